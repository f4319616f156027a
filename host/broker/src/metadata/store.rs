//! The metadata log on disk.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use millstream_log::{AppendError, CleanupPolicy, Log, LogConfig, LogError, OpenOptions, ReplayError};
use millstream_partition::now_ms;
use millstream_record::{BatchBuilder, BatchError, BatchView, CheckedBatch, Codec, TimestampType};
use parking_lot::Mutex;

use super::image::{ImageError, MetadataImage};
use super::record::MetadataRecord;

/// The folder, named as Kafka names it.
const FOLDER: &str = "__cluster_metadata-0";

/// The largest batch: the changes of one request.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// A metadata log that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetadataError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the metadata log takes no record: {0}")]
    Append(#[from] AppendError),
    #[error("the metadata log cannot be read: {0}")]
    Replay(#[from] ReplayError),
    #[error("the metadata log is damaged: {0}")]
    Batch(#[from] BatchError),
    #[error("the metadata log holds a record at offset {offset} that this version does not know: {error}")]
    Record { offset: i64, error: serde_json::Error },
    #[error("the metadata log does not fit together at offset {offset}: {error}")]
    Image { offset: i64, error: ImageError },
    #[error("a change does not fit the metadata: {0}")]
    Change(ImageError),
    #[error("a change of the metadata is too large for one batch")]
    TooLarge,
}

/// The log and the image that it adds up to.
#[derive(Debug)]
pub(crate) struct MetadataStore {
    log: Mutex<Log>,
    image: ArcSwap<MetadataImage>,
}

impl MetadataStore {
    /// Opens the log, creates it if it is not there, and replays it.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, MetadataError> {
        let config = LogConfig {
            max_message_bytes: BATCH_BYTES_MAX as u32,
            retention_ms: None,
            retention_bytes: None,
            cleanup_policy: CleanupPolicy::DELETE,
            ..LogConfig::default()
        };
        // Everything is synced before it counts, and a torn tail was never answered: the whole log is checked at each start.
        let options = OpenOptions { recovery_point: 0, log_start_offset: 0, clean_shutdown: false, topic_id: None };
        let log = Log::open(&data_dir.join(FOLDER), Arc::new(config), options)?;
        let image = replay(&log)?;
        Ok(Self { log: Mutex::new(log), image: ArcSwap::from_pointee(image) })
    }

    pub(crate) fn image(&self) -> Arc<MetadataImage> {
        self.image.load_full()
    }

    /// Writes the records as one batch, makes them durable, and only then publishes the new image. Blocks for an fsync.
    ///
    /// The caller serializes changes: it looked at the image to decide on them.
    pub(crate) fn commit(&self, records: &[MetadataRecord]) -> Result<Arc<MetadataImage>, MetadataError> {
        let mut next = MetadataImage::clone(&self.image.load());
        for record in records {
            next.apply(record).map_err(MetadataError::Change)?;
        }
        let batch = encode(records)?;
        let mut log = self.log.lock();
        log.append(&CheckedBatch::of_own(&batch)?, next.leader_epoch, now_ms())?;
        log.flush()?;
        let next = Arc::new(next);
        self.image.store(Arc::clone(&next));
        Ok(next)
    }

    /// Writes what a clean stop leaves behind.
    pub(crate) fn close(&self) -> Result<(), MetadataError> {
        self.log.lock().close_clean()?;
        Ok(())
    }
}

fn encode(records: &[MetadataRecord]) -> Result<Bytes, MetadataError> {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    let now = now_ms();
    for record in records {
        let value = serde_json::to_vec(record).expect("a record is plain data");
        builder.append(now, None, Some(&value), []).map_err(|_| MetadataError::TooLarge)?;
    }
    Ok(Bytes::from(builder.build().map_err(|_| MetadataError::TooLarge)?))
}

/// Builds the image from all records of the log.
fn replay(log: &Log) -> Result<MetadataImage, MetadataError> {
    let mut image = MetadataImage::default();
    let failed = log.reader().replay(0..log.log_end_offset(), |batch| match apply_batch(&mut image, batch) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    })?;
    match failed {
        None => Ok(image),
        Some(error) => Err(error),
    }
}

fn apply_batch(image: &mut MetadataImage, batch: &BatchView<'_>) -> Result<(), MetadataError> {
    for record in &batch.records(BATCH_BYTES_MAX)? {
        let record = record?;
        let value = record.value.unwrap_or_default();
        let change =
            serde_json::from_slice(value).map_err(|error| MetadataError::Record { offset: record.offset, error })?;
        image.apply(&change).map_err(|error| MetadataError::Image { offset: record.offset, error })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use uuid::Uuid;

    use super::*;

    fn created(name: &str, id: u128) -> MetadataRecord {
        MetadataRecord::TopicCreated {
            name: name.to_owned(),
            id: Uuid::from_u128(id),
            partitions: 1,
            configs: BTreeMap::new(),
        }
    }

    #[test]
    fn the_image_survives_a_restart_and_a_bad_change_leaves_no_trace() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = MetadataStore::open(folder.path()).expect("opened");
        store.commit(&[created("a", 1), created("b", 2)]).expect("committed");
        assert!(store.commit(&[created("c", 3), created("a", 4)]).is_err());
        store.commit(&[MetadataRecord::ProducerIdsAllocated { next: 1000 }]).expect("committed");
        let before = store.image();
        assert!(before.topic("c").is_none());
        drop(store);
        let store = MetadataStore::open(folder.path()).expect("opened again");
        assert_eq!(store.image(), before);
    }
}
