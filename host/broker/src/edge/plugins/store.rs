//! The store of plug-ins as the broker has it: the image of its topic, and the bytes of versions by their
//! offsets in the log.

use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use bytes::Bytes;
use millstream_partition::{Partition, UNPACKED_BATCH_BYTES_MAX};
use millstream_record::{BatchError, BatchView, batches};
use millstream_registry::TOPIC;
use millstream_registry::format::Version;
use millstream_registry::image::{Place, PluginImage};
use millstream_stage::{Digest, FetchError, VersionSource};

/// What the broker knows of its topic.
#[derive(Debug, Default)]
pub(crate) struct Store {
    image: ArcSwap<PluginImage>,
    /// The topic's one partition, once the topic is there.
    partition: OnceLock<Arc<Partition>>,
}

impl Store {
    /// The plug-ins as they are now.
    pub(super) fn image(&self) -> Arc<PluginImage> {
        self.image.load_full()
    }

    /// Puts a new state in force.
    pub(super) fn set_image(&self, image: PluginImage) {
        self.image.store(Arc::new(image));
    }

    /// Replays the topic. Records that cannot be read are logged and ignored: they were written past the checks. Blocks for the
    /// disk.
    pub(super) fn open(&self, partition: &Arc<Partition>) {
        let mut image = PluginImage::default();
        let read = partition.replay(|batch| {
            if let Err(error) = apply_batch(&mut image, batch) {
                tracing::warn!(offset = batch.base_offset(), "a batch of {TOPIC} is ignored: {error}");
            }
            ControlFlow::Continue(())
        });
        if let Err(error) = read {
            tracing::error!("{TOPIC} cannot be read to its end, plug-ins may be missing: {error}");
        }
        self.set_image(image);
        self.serve(partition);
    }

    /// The topic is there.
    pub(super) fn serve(&self, partition: &Arc<Partition>) {
        // It is created once and never deleted.
        let _ = self.partition.set(Arc::clone(partition));
    }

    /// The bytes of a version whose chunks lie at `places`; `batch` has those that are not in the log yet.
    pub(super) fn component(
        &self,
        version: &Version,
        places: &[Place],
        batch: &dyn Fn(i64) -> Option<Bytes>,
    ) -> Result<Vec<u8>, String> {
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
            return Err(format!("its bytes have the digest {have}, and the manifest says {}", version.digest));
        }
        Ok(component)
    }

    /// The value of the record at an offset.
    pub(super) fn chunk(&self, place: Place) -> Result<Bytes, String> {
        let partition = self.partition.get().ok_or("the topic is not there")?;
        let read = partition.read(place.offset, 1, true).map_err(|error| error.to_string())?;
        let slice = read.slice.ok_or("a chunk is not where it should be")?;
        let bytes = slice.read_to_bytes().map_err(|error| error.to_string())?;
        let batch =
            batches(&bytes).next().ok_or("a chunk is not where it should be")?.map_err(|error| error.to_string())?;
        for record in &batch.records(UNPACKED_BATCH_BYTES_MAX).map_err(|error| error.to_string())? {
            let record = record.map_err(|error| error.to_string())?;
            if record.offset == place.offset {
                return record.value.map(Bytes::copy_from_slice).ok_or_else(|| "a chunk is gone".to_owned());
            }
        }
        Err("a chunk is not where it should be".to_owned())
    }
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
