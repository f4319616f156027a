//! The metadata log on disk.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use millstream_log::{AppendError, CleanupPolicy, Log, LogConfig, LogError, OpenOptions, ReplayError};
use millstream_record::{BatchBuilder, BatchError, BatchView, CheckedBatch, Codec, TimestampType};
use parking_lot::Mutex;
use uuid::Uuid;

use super::delta::{MetadataDelta, touched};
use super::feature::{FeatureLevel, UnknownLevel};
use super::image::{ImageError, MetadataImage};
use super::record::{MetadataRecord, RecordError};

/// The folder, with Kafka's name.
const FOLDER: &str = "__cluster_metadata-0";

/// The largest batch: the changes of one request.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// Why a metadata log cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// A file cannot be read or written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log rejects a batch.
    #[error("cannot write to the metadata log: {0}")]
    Append(#[from] AppendError),
    /// The log cannot be read.
    #[error("the metadata log cannot be read: {0}")]
    Replay(#[from] ReplayError),
    /// A batch is damaged.
    #[error("the metadata log is damaged: {0}")]
    Batch(#[from] BatchError),
    /// A record is not one that this program knows.
    #[error("the metadata log cannot be read at offset {offset}: {error}")]
    Record {
        /// The offset of the record.
        offset: i64,
        /// What is wrong.
        error: RecordError,
    },
    /// A record does not fit the records before it.
    #[error("the metadata log contradicts itself at offset {offset}: {error}")]
    Image {
        /// The offset of the record.
        offset: i64,
        /// What is wrong.
        error: ImageError,
    },
    /// A newer program has raised the feature level.
    #[error(transparent)]
    FeatureLevel(UnknownLevel),
    /// A change does not fit the current image.
    #[error("a change does not fit the metadata: {0}")]
    Change(ImageError),
    /// The log is not in this folder.
    #[error("the quorum of the cluster has the metadata log")]
    Replicated,
    /// A change has too many records.
    #[error("a change of the metadata is too large for one batch")]
    TooLarge,
}

/// The image, and the log that it adds up to.
///
/// A broker that is alone has the log in its own folder. In a cluster a quorum has the log, and publishes the image
/// here.
#[derive(Debug)]
pub struct MetadataStore {
    /// `None` in a cluster.
    log: Option<Mutex<Log>>,
    current: ArcSwap<Published>,
    /// The offset after the last committed record. Read without the lock, which is held during an fsync.
    end_offset: AtomicI64,
}

/// An image with its version in the quorum.
#[derive(Debug)]
struct Published {
    image: Arc<MetadataImage>,
    version: u64,
}

impl MetadataStore {
    /// Opens the log, creates it if it is missing, and replays it.
    pub fn open(data_dir: &Path, node_id: i32) -> Result<Self, MetadataError> {
        let config = LogConfig {
            max_message_bytes: BATCH_BYTES_MAX as u32,
            retention_ms: None,
            retention_bytes: None,
            cleanup_policy: CleanupPolicy::DELETE,
            ..LogConfig::default()
        };
        // Every change is synced before it counts, and a torn tail was never acknowledged. Each start checks the whole
        // log.
        let options = OpenOptions::default();
        let log = Log::open(&data_dir.join(FOLDER), Arc::new(config), options)?;
        let image = replay(&log, MetadataImage::new(node_id))?;
        let end_offset = AtomicI64::new(log.log_end_offset());
        Ok(Self { log: Some(Mutex::new(log)), current: ArcSwap::from_pointee(published(image, 0)), end_offset })
    }

    /// Returns a store without a log of its own. A quorum publishes the images.
    pub fn replicated() -> Self {
        let current = ArcSwap::from_pointee(published(MetadataImage::without_brokers(), 0));
        Self { log: None, current, end_offset: AtomicI64::new(0) }
    }

    /// Replaces the image by that of the quorum.
    pub fn publish(&self, image: MetadataImage, version: u64) {
        self.end_offset.store(i64::try_from(version).unwrap_or(i64::MAX), Ordering::Release);
        self.current.store(Arc::new(published(image, version)));
    }

    /// Returns the current image.
    pub fn image(&self) -> Arc<MetadataImage> {
        Arc::clone(&self.current.load().image)
    }

    /// Returns the current image with its version in the quorum.
    pub fn image_of_version(&self) -> (Arc<MetadataImage>, u64) {
        let current = self.current.load();
        (Arc::clone(&current.image), current.version)
    }

    /// Returns the version of the image in the quorum.
    pub fn version(&self) -> u64 {
        self.current.load().version
    }

    /// Returns the offset after the last committed record.
    pub fn end_offset(&self) -> i64 {
        self.end_offset.load(Ordering::Acquire)
    }

    /// Begins a draft on the current image. The caller serializes drafts: only one of them may be committed.
    pub fn draft(&self, now_ms: i64) -> Draft {
        Draft::of(self.image(), now_ms)
    }

    /// Begins a draft, and returns the version of its image in the quorum.
    pub fn draft_of_version(&self, now_ms: i64) -> (Draft, u64) {
        let current = self.current.load();
        (Draft::of(Arc::clone(&current.image), now_ms), current.version)
    }

    /// Appends the changes of a draft, makes all of them durable with one fsync, and only then publishes the new image.
    /// Blocks for the disk. The changes keep their order, and a crash keeps each of them whole or not at all.
    ///
    /// # Errors
    /// The log cannot be written, or a quorum has it.
    pub fn commit(&self, draft: &Draft) -> Result<(), MetadataError> {
        if draft.batches.is_empty() {
            return Ok(());
        }
        let mut log = self.log.as_ref().ok_or(MetadataError::Replicated)?.lock();
        for batch in &draft.batches {
            log.append(&CheckedBatch::of_own(batch)?, draft.image.leader_epoch, draft.now_ms)?;
        }
        log.flush()?;
        self.end_offset.store(log.log_end_offset(), Ordering::Release);
        self.current.store(Arc::new(published(draft.image.clone(), 0)));
        Ok(())
    }

    /// Writes the files of a clean stop.
    pub fn close(&self) -> Result<(), MetadataError> {
        if let Some(log) = &self.log {
            log.lock().close_clean()?;
        }
        Ok(())
    }
}

fn published(image: MetadataImage, version: u64) -> Published {
    Published { image: Arc::new(image), version }
}

/// Changes that are decided but not committed.
#[derive(Debug)]
pub struct Draft {
    before: Arc<MetadataImage>,
    image: MetadataImage,
    /// One batch for each change.
    batches: Vec<Bytes>,
    touched: BTreeSet<Uuid>,
    /// The timestamp of the records.
    now_ms: i64,
}

impl Draft {
    fn of(before: Arc<MetadataImage>, now_ms: i64) -> Self {
        let image = MetadataImage::clone(&before);
        Self { before, image, batches: Vec::new(), touched: BTreeSet::new(), now_ms }
    }

    /// Begins a draft on top of this one, which does not change.
    pub fn trial(&self) -> Self {
        Self::of(Arc::new(self.image.clone()), self.now_ms)
    }

    /// Returns one batch of records for each change.
    pub(crate) fn batches(&self) -> &[Bytes] {
        &self.batches
    }

    /// Returns whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Returns the image after the changes.
    pub fn image(&self) -> &MetadataImage {
        &self.image
    }

    /// Returns the total difference of the draft's changes.
    pub fn delta(&self) -> MetadataDelta {
        MetadataDelta::between(&self.before, &self.image, self.touched.iter().copied())
    }

    /// Adds a change.
    pub fn add(&mut self, records: &[MetadataRecord]) -> Result<(), MetadataError> {
        self.add_if(records, None, |_| Ok(()))
    }

    /// Adds a change if `check` accepts its difference. `about` names a topic that belongs to the difference even if
    /// the records do not change it.
    ///
    /// # Errors
    /// The records do not fit, or `check` fails. The draft is then unchanged.
    pub fn add_if<T, E: From<MetadataError>>(
        &mut self,
        records: &[MetadataRecord],
        about: Option<Uuid>,
        check: impl FnOnce(&MetadataDelta) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut touched = touched(&self.image, records);
        touched.extend(about);
        let saved = self.image.save(&touched);
        let checked = self.apply(records, &touched).and_then(|(batch, delta)| Ok((batch, check(&delta)?)));
        match checked {
            Ok((batch, checked)) => {
                self.batches.extend(batch);
                self.touched.extend(touched);
                Ok(checked)
            }
            Err(error) => {
                self.image.restore(saved);
                Err(error)
            }
        }
    }

    fn apply<E: From<MetadataError>>(
        &mut self,
        records: &[MetadataRecord],
        touched: &BTreeSet<Uuid>,
    ) -> Result<(Option<Bytes>, MetadataDelta), E> {
        let batch =
            if records.is_empty() { None } else { Some(encode(records, self.image.feature_level, self.now_ms)?) };
        let before = self.image.topics_by_id(touched);
        for record in records {
            self.image.apply(record).map_err(MetadataError::Change)?;
        }
        Ok((batch, MetadataDelta::from_topics(before, &self.image)))
    }
}

fn encode(records: &[MetadataRecord], mut level: FeatureLevel, now_ms: i64) -> Result<Bytes, MetadataError> {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    for record in records {
        // The records after it may be those of the new level.
        if let MetadataRecord::FeatureLevelSet { level: new } = record {
            level = FeatureLevel::new(*new).map_err(MetadataError::FeatureLevel)?;
        }
        let value = record.encode(level);
        builder.append(now_ms, None, Some(&value), []).map_err(|_| MetadataError::TooLarge)?;
    }
    Ok(Bytes::from(builder.build().map_err(|_| MetadataError::TooLarge)?))
}

/// Builds the image from all records of the log.
fn replay(log: &Log, mut image: MetadataImage) -> Result<MetadataImage, MetadataError> {
    let failed = log.reader().replay(0..log.log_end_offset(), |batch| match apply_batch(&mut image, batch) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    })?;
    match failed {
        None => Ok(image),
        Some(error) => Err(error),
    }
}

pub(crate) fn apply_batch(image: &mut MetadataImage, batch: &BatchView<'_>) -> Result<(), MetadataError> {
    for record in &batch.records(BATCH_BYTES_MAX)? {
        let record = record?;
        let offset = record.offset;
        let change = MetadataRecord::decode(record.value.unwrap_or_default());
        let change = change.map_err(|error| MetadataError::Record { offset, error })?;
        image.apply(&change).map_err(|error| match error {
            ImageError::FeatureLevel(unknown) => MetadataError::FeatureLevel(unknown),
            error => MetadataError::Image { offset, error },
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use millstream_record::batches;

    use uuid::Uuid;

    use super::*;

    fn created(name: &str, id: u128) -> MetadataRecord {
        MetadataRecord::TopicCreated {
            name: name.to_owned(),
            id: Uuid::from_u128(id),
            partitions: 1,
            configs: BTreeMap::new(),
            replicas: Vec::new(),
        }
    }

    fn commit(store: &MetadataStore, changes: &[&[MetadataRecord]]) -> Result<(), MetadataError> {
        let mut draft = store.draft(0);
        changes.iter().try_for_each(|records| draft.add(records))?;
        store.commit(&draft)
    }

    #[test]
    fn the_image_survives_a_restart_and_a_bad_change_leaves_no_trace() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = MetadataStore::open(folder.path(), 0).expect("a new log");
        commit(&store, &[&[created("a", 1), created("b", 2)]]).expect("both fit");
        assert!(commit(&store, &[&[created("c", 3), created("a", 4)]]).is_err());
        commit(&store, &[&[MetadataRecord::ProducerIdsAllocated { next: 1000 }]]).expect("it fits any state");
        let before = store.image();
        assert!(before.topic("c").is_none());
        drop(store);
        let store = MetadataStore::open(folder.path(), 0).expect("a good log");
        assert_eq!(store.image(), before);
    }

    #[test]
    fn a_change_that_is_rejected_leaves_the_draft_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = MetadataStore::open(folder.path(), 0).expect("a new log");
        let mut draft = store.draft(0);
        draft.add(&[created("a", 1), created("b", 2)]).expect("they fit");
        let before = draft.image().clone();
        let records = [
            MetadataRecord::TopicDeleted { id: Uuid::from_u128(1) },
            MetadataRecord::PartitionsAdded { id: Uuid::from_u128(2), partitions: 5, replicas: Vec::new() },
            created("a", 3),
            MetadataRecord::ProducerIdsAllocated { next: 7 },
        ];
        let rejected = draft.add_if(&records, None, |delta| {
            assert_eq!((delta.deleted.len(), delta.changed.len(), delta.created.len()), (1, 1, 1));
            Err::<(), _>(MetadataError::TooLarge)
        });
        assert!(matches!(rejected, Err(MetadataError::TooLarge)));
        assert_eq!((draft.image(), draft.batches.len(), draft.touched.len()), (&before, 1, 2));
        let about = Some(Uuid::from_u128(2));
        let changed = draft.add_if(&[], about, |delta| Ok::<_, MetadataError>(delta.changed.len()));
        assert_eq!(changed.expect("nothing to reject"), 1, "a topic can be named without a record");
        assert_eq!(draft.batches.len(), 1, "no records, no batch");
    }

    #[test]
    fn the_changes_of_a_draft_stay_whole_by_themselves() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = MetadataStore::open(folder.path(), 0).expect("a new log");
        let mut draft = store.draft(0);
        draft.add(&[created("a", 1)]).expect("it fits");
        assert!(draft.trial().add(&[created("a", 2)]).is_err(), "a trial builds on its draft");
        draft.trial().add(&[created("d", 4)]).expect("it fits");
        draft.add(&[created("b", 2), created("c", 3)]).expect("they fit");
        assert!(store.image().topic("a").is_none(), "nothing counts before it is durable");
        assert_eq!(store.end_offset(), 0);
        store.commit(&draft).expect("a writable folder");
        assert_eq!(store.end_offset(), 3);
        assert_eq!(draft.delta().created.len(), 3);
        let log = store.log.as_ref().expect("a log of its own").lock();
        let stored = log.read(0, 1 << 20, i64::MAX, true).expect("readable").expect("not empty");
        let stored = stored.read_to_bytes().expect("readable");
        let counts: Vec<i32> = batches(&stored).map(|batch| batch.expect("whole").count()).collect();
        assert_eq!(counts, [1, 2], "one batch for each change");
    }
}
