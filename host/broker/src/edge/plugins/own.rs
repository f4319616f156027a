//! Writes of the broker itself to the topic. They pass the same checks as a client's write.

use std::sync::Arc;

use bytes::Bytes;
use millstream_partition::{Partition, now_ms};
use millstream_record::{BatchBuilder, BuildError, CheckedBatch, Codec, TimestampType};
use millstream_registry::TOPIC;
use millstream_registry::format::{EventKind, Key};
use millstream_registry::image::PluginImage;
use millstream_wire::ErrorCode;
use tokio::sync::OwnedMutexGuard;

use super::follow;
use super::write::write;
use crate::edge::context::{BoxFuture, Edge, MetadataChanges};
use crate::error::ApiError;

/// The store, while the broker holds its lock.
pub(super) struct Own {
    edge: Arc<Edge>,
    changes: Arc<dyn MetadataChanges>,
    partition: Arc<Partition>,
    _turn: OwnedMutexGuard<()>,
}

impl Own {
    /// Creates the topic if it does not exist, and waits for the lock of the store.
    ///
    /// # Errors
    /// The topic cannot be created, or another broker leads it.
    pub(super) async fn lock(edge: &Arc<Edge>, changes: &Arc<dyn MetadataChanges>) -> Result<Self, ApiError> {
        changes.ensure_topic(TOPIC).await?;
        let turn = edge.plugins.turn().await;
        let partition = edge.partition(TOPIC, 0)?;
        partition.check_leader(-1)?;
        follow::lead(edge, &partition).await?;
        Ok(Self { edge: Arc::clone(edge), changes: Arc::clone(changes), partition, _turn: turn })
    }

    /// Returns the current plug-ins.
    pub(super) fn image(&self) -> Arc<PluginImage> {
        self.edge.plugins.store().image()
    }

    /// Returns the broker's state at the edge.
    pub(super) fn edge(&self) -> &Arc<Edge> {
        &self.edge
    }

    /// Writes a record. It is in force when this returns.
    ///
    /// # Errors
    /// Those of [`write`](write()): nothing has changed.
    pub(super) async fn write(&self, key: &Key, value: Option<&[u8]>) -> Result<(), ApiError> {
        write_one(&self.edge, &self.changes, &self.partition, key, value).await
    }

    /// Appends a not-done event to the plug-in's history, as [`note`] does.
    pub(super) async fn note(&self, name: &str, event: EventKind, number: u32, reason: &str) {
        note(&self.edge, &self.changes, &self.partition, name, event, number, reason).await;
    }
}

/// Appends a not-done event to the plug-in's history, if it has one. Failure is logged and ignored. The caller must
/// hold the store's lock.
pub(super) fn note<'a>(
    edge: &'a Arc<Edge>,
    changes: &'a Arc<dyn MetadataChanges>,
    partition: &'a Arc<Partition>,
    name: &'a str,
    event: EventKind,
    number: u32,
    reason: &'a str,
) -> BoxFuture<'a, ()> {
    Box::pin(async move {
        let planned = edge.plugins.store().image().plan_note(name, event, number, reason, now_ms());
        let Some(manifest) = planned.ok().and_then(|plan| plan.manifest) else { return };
        let key = Key::Plugin(name.to_owned());
        if let Err(error) = write_one(edge, changes, partition, &key, Some(&manifest.to_bytes())).await {
            tracing::warn!(plugin = name, version = number, "cannot append `{}` to the history: {error}", event.name());
        }
    })
}

async fn write_one(
    edge: &Arc<Edge>,
    changes: &Arc<dyn MetadataChanges>,
    partition: &Arc<Partition>,
    key: &Key,
    value: Option<&[u8]>,
) -> Result<(), ApiError> {
    let batch = Bytes::from(batch_of(key, value)?);
    let (log, bytes) = (Arc::clone(partition), batch.clone());
    let append = move || Ok(log.append(&CheckedBatch::of_own(&bytes)?, now_ms())?);
    write(edge, changes, partition, batch, append).await.map(drop)
}

fn batch_of(key: &Key, value: Option<&[u8]>) -> Result<Vec<u8>, ApiError> {
    let failed = |error: BuildError| ApiError::new(ErrorCode::UNKNOWN_SERVER_ERROR, error.to_string());
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    builder.append(now_ms(), Some(key.to_string().as_bytes()), value, []).map_err(failed)?;
    builder.build().map_err(failed)
}
