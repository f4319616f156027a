//! The broker's store of plug-ins: the image of its topic, and the bytes of versions by their offsets in the log.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use millstream_partition::{Partition, PartitionError, UNPACKED_BATCH_BYTES_MAX};
use millstream_record::{BatchError, BatchView, batches};
use millstream_registry::TOPIC;
use millstream_registry::format::Version;
use millstream_registry::image::{Place, PluginImage};
use millstream_stage::{Digest, FetchError, VersionSource};

use super::error::ReadTopicError;

/// Why the bytes of a version cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// The topic was never created.
    #[error("{TOPIC} does not exist")]
    NoTopic,
    /// The log has no record there.
    #[error("no chunk is stored at offset {0} of {TOPIC}")]
    Missing(i64),
    /// The log cannot be read.
    #[error("cannot read the chunk at offset {offset} of {TOPIC}: {error}")]
    Read { offset: i64, error: ReadTopicError },
    /// The chunks differ from those that were pushed.
    #[error("its bytes have the digest {actual}, and the manifest says {manifest}")]
    Digest { actual: Digest, manifest: Digest },
}

/// The broker's view of its topic.
#[derive(Debug, Default)]
pub(crate) struct Store {
    image: ArcSwap<PluginImage>,
    /// The topic's only partition, once the topic exists.
    partition: ArcSwapOption<Partition>,
    /// The offset after the last record that the image has.
    applied: AtomicI64,
}

impl Store {
    /// Returns the current plug-ins.
    pub(super) fn image(&self) -> Arc<PluginImage> {
        self.image.load_full()
    }

    /// Replaces the plug-ins by those of the log up to `end`.
    pub(super) fn set_image(&self, image: PluginImage, end: i64) {
        self.image.store(Arc::new(image));
        self.applied.store(end, Ordering::Release);
    }

    /// Returns the plug-ins with the committed records that they lack, and the offset after the last of them. `None` if
    /// there are none. Blocks for the disk.
    pub(super) fn committed(&self, partition: &Partition) -> Result<Option<(PluginImage, i64)>, PartitionError> {
        let (applied, end) = (self.applied.load(Ordering::Acquire), partition.high_watermark());
        if end <= applied {
            return Ok(None);
        }
        let mut image = PluginImage::clone(&self.image());
        partition.reader()?.replay(applied..end, |batch| apply(&mut image, batch))?;
        Ok(Some((image, end)))
    }

    /// Reads the topic. Logs and ignores records that cannot be applied: a broker never writes such records. Blocks for
    /// the disk.
    pub(super) fn open(&self, partition: &Arc<Partition>) {
        if !partition.is_replica() {
            return;
        }
        let mut image = PluginImage::default();
        // What is not committed on a follower may go again.
        let end = partition.high_watermark();
        let read = partition.reader().and_then(|log| Ok(log.replay(0..end, |batch| apply(&mut image, batch))?));
        if let Err(error) = read {
            tracing::error!("{TOPIC} cannot be read to its end, plug-ins may be missing: {error}");
        }
        self.set_image(image, end);
        self.serve(partition);
    }

    /// Sets the topic's partition, once the topic exists.
    pub(super) fn serve(&self, partition: &Arc<Partition>) {
        self.partition.store(Some(Arc::clone(partition)));
    }

    /// Returns whether the partition has committed records that the image lacks.
    pub(super) fn lacks(&self, partition: &Partition) -> bool {
        partition.high_watermark() > self.applied.load(Ordering::Acquire)
    }

    /// Returns the offset after the last record that the image has.
    pub(super) fn applied(&self) -> i64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Returns whether the store reads this partition.
    pub(super) fn serves(&self, partition: &Arc<Partition>) -> bool {
        self.partition.load().as_ref().is_some_and(|served| Arc::ptr_eq(served, partition))
    }

    /// Returns the bytes of a version whose chunks are at `places`; `batch` has those that are not in the log yet.
    pub(super) fn component(
        &self,
        version: &Version,
        places: &[Place],
        batch: &dyn Fn(i64) -> Option<Bytes>,
    ) -> Result<Vec<u8>, StoreError> {
        let mut component = Vec::with_capacity(usize::try_from(version.size).unwrap_or(0));
        for place in places {
            let chunk = match batch(place.offset) {
                Some(chunk) => chunk,
                None => self.chunk(*place)?,
            };
            component.extend_from_slice(&chunk);
        }
        let have = Digest::of(&component);
        if have != version.digest {
            return Err(StoreError::Digest { actual: have, manifest: version.digest });
        }
        Ok(component)
    }

    /// Returns the value of the record at an offset.
    pub(super) fn chunk(&self, place: Place) -> Result<Bytes, StoreError> {
        let offset = place.offset;
        let partition = self.partition.load_full().ok_or(StoreError::NoTopic)?;
        let value = value_at(&partition, offset).map_err(|error| StoreError::Read { offset, error })?;
        value.ok_or(StoreError::Missing(offset))
    }
}

fn value_at(partition: &Partition, offset: i64) -> Result<Option<Bytes>, ReadTopicError> {
    let Some(slice) = partition.read(offset, 1, true)?.slice else { return Ok(None) };
    let bytes = slice.read_to_bytes()?;
    let Some(batch) = batches(&bytes).next().transpose()? else { return Ok(None) };
    for record in &batch.records(UNPACKED_BATCH_BYTES_MAX)? {
        let record = record?;
        if record.offset == offset {
            return Ok(record.value.map(Bytes::copy_from_slice));
        }
    }
    Ok(None)
}

/// Applies a batch. One that cannot be read is ignored.
fn apply(image: &mut PluginImage, batch: &BatchView<'_>) -> ControlFlow<()> {
    if let Err(error) = apply_batch(image, batch) {
        tracing::warn!(offset = batch.base_offset(), "a batch of {TOPIC} is ignored: {error}");
    }
    ControlFlow::Continue(())
}

fn apply_batch(image: &mut PluginImage, batch: &BatchView<'_>) -> Result<(), BatchError> {
    for record in &batch.records(UNPACKED_BATCH_BYTES_MAX)? {
        let record = record?;
        if let Err(error) = image.apply(record.offset, record.timestamp, record.key, record.value) {
            tracing::warn!(offset = record.offset, "a record of {TOPIC} is ignored: {error}");
        }
    }
    Ok(())
}

impl VersionSource for Store {
    fn names(&self) -> Vec<String> {
        self.image().plugins().map(|manifest| manifest.name.clone()).collect()
    }

    fn versions(&self, name: &str) -> Vec<(u32, Digest)> {
        let image = self.image();
        let versions = image.plugin(name).map(|manifest| &manifest.versions[..]).unwrap_or_default();
        versions.iter().map(|version| (version.number, version.digest)).collect()
    }

    fn active(&self, name: &str) -> Option<u32> {
        Some(self.image().plugin(name)?.active)
    }

    fn bytes(&self, name: &str, number: u32) -> Result<Vec<u8>, FetchError> {
        let image = self.image();
        let version = image.version(name, Some(number)).map_err(FetchError::new)?;
        let places = image.places(version).map_err(FetchError::new)?;
        self.component(version, &places, &|_| None).map_err(FetchError::new)
    }
}
