//! What the broker itself writes to the topic. It takes the same checks as a client's write.

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

/// The store, while the broker holds its lock. All methods block.
pub(super) struct Own<'a> {
    broker: &'a Arc<Broker>,
    partition: Arc<Partition>,
}

/// Runs `work` on a blocking thread, with the lock of the store.
///
/// # Errors
/// The topic cannot be created, or `work` fails.
pub(super) async fn in_turn<T, E>(
    broker: &Arc<Broker>,
    work: impl FnOnce(&Own<'_>) -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<ApiError> + Send + 'static,
{
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
    /// Returns the plug-ins as they are now.
    pub(super) fn image(&self) -> Arc<PluginImage> {
        self.broker.plugins.store().image()
    }

    pub(super) fn library(&self) -> Result<Arc<Library>, ApiError> {
        self.broker.plugins.library()
    }

    /// Writes a record. It is in force when this returns.
    ///
    /// # Errors
    /// As [`write`](write()): nothing has changed.
    pub(super) fn write(&self, key: &Key, value: Option<&[u8]>) -> Result<(), ApiError> {
        write_one(self.broker, &self.partition, key, value)
    }

    /// Appends a not-done event to the plug-in's history, as [`note`] does.
    pub(super) fn note(&self, name: &str, event: EventKind, number: u32, reason: &str) {
        note(self.broker, &self.partition, name, event, number, reason);
    }
}

/// Appends a not-done event to the plug-in's history, if it has one. Failure is logged and ignored. The caller must hold the
/// store's lock.
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
        tracing::warn!(plugin = name, version = number, "cannot append `{}` to the history: {error}", event.name());
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
