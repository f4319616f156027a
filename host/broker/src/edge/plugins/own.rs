//! What the broker writes to the topic by itself, by the same way as everybody.

use std::sync::Arc;

use millstream_partition::{Partition, now_ms};
use millstream_record::{BatchBuilder, BuildError, CheckedBatch, Codec, TimestampType};
use millstream_registry::TOPIC;
use millstream_registry::format::{EventKind, Key};
use millstream_registry::image::PluginImage;
use millstream_stage::Library;
use millstream_wire::ErrorCode;

use super::write::write;
use crate::blocking::blocking;
use crate::broker::Broker;
use crate::controller;
use crate::error::ApiError;

/// The store while it is the broker's own turn: nobody else changes it. All of it blocks.
pub(super) struct Own<'a> {
    broker: &'a Arc<Broker>,
    partition: Arc<Partition>,
}

/// Does `work` when it is its turn, on a thread where that may block.
///
/// # Errors
/// The topic cannot be had, or what `work` says.
pub(super) async fn in_turn<T: Send + 'static>(
    broker: &Arc<Broker>,
    work: impl FnOnce(&Own<'_>) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    controller::ensure_topic(broker, TOPIC).await?;
    let turn = broker.plugins.turn().await;
    let broker = Arc::clone(broker);
    let work = move || {
        let _turn = turn;
        let partition = broker.partition(TOPIC, 0)?;
        work(&Own { broker: &broker, partition })
    };
    blocking(work).await?
}

impl Own<'_> {
    /// The plug-ins as they are now.
    pub(super) fn image(&self) -> Arc<PluginImage> {
        self.broker.plugins.store().image()
    }

    pub(super) fn library(&self) -> Result<Arc<Library>, ApiError> {
        self.broker.plugins.library()
    }

    /// Writes a record; it is in force when this returns.
    ///
    /// # Errors
    /// As [`write`](write()): nothing has changed.
    pub(super) fn write(&self, key: &Key, value: Option<&[u8]>) -> Result<(), ApiError> {
        write_one(self.broker, &self.partition, key, value)
    }

    /// Has the history of a plug-in say what was not done, as [`note`] does.
    pub(super) fn note(&self, name: &str, event: EventKind, number: u32, reason: &str) {
        note(self.broker, &self.partition, name, event, number, reason);
    }
}

/// Has the history of a plug-in say what was not done, if it has one. That it cannot is told, and is no reason to stop. The
/// caller has the turn.
pub(super) fn note(
    broker: &Arc<Broker>,
    partition: &Arc<Partition>,
    name: &str,
    event: EventKind,
    number: u32,
    reason: &str,
) {
    let Ok(plan) = broker.plugins.store().image().plan_note(name, event, number, reason, now_ms()) else { return };
    let Some(manifest) = plan.manifest else { return };
    let written = write_one(broker, partition, &Key::Plugin(name.to_owned()), Some(&manifest.to_bytes()));
    if let Err(error) = written {
        tracing::warn!(plugin = name, version = number, "the history does not say `{}`: {error}", event.name());
    }
}

fn write_one(
    broker: &Arc<Broker>,
    partition: &Arc<Partition>,
    key: &Key,
    value: Option<&[u8]>,
) -> Result<(), ApiError> {
    let bytes = batch_of(key, value)?;
    let batch = CheckedBatch::of_own(&bytes)?;
    write(broker, partition, &batch, || Ok(partition.append(&batch, now_ms())?)).map(drop)
}

fn batch_of(key: &Key, value: Option<&[u8]>) -> Result<Vec<u8>, ApiError> {
    let failed = |error: BuildError| ApiError::new(ErrorCode::UNKNOWN_SERVER_ERROR, error.to_string());
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    builder.append(now_ms(), Some(key.to_string().as_bytes()), value, []).map_err(failed)?;
    builder.build().map_err(failed)
}
