//! Writes to the topic of the plug-ins, by clients and by the broker. A batch is checked record by record, and the
//! versions that it activates are prepared for every live stage, on every broker. Then it is appended and synced, and
//! is in force.
//!
//! There is one operation at a time, so that the append finds the state that was checked. The checks and the
//! preparation block for the disk and for the compiler, so they run on blocking threads. The waits in between, for
//! changes of topics and for the commit, keep no thread.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use millstream_partition::{Acks, Partition, WriteEnd, now_ms};
use millstream_record::{BatchView, Record};
use millstream_registry::TOPIC;
use millstream_registry::format::{EventKind, Key, Manifest, Version};
use millstream_registry::image::PluginImage;
use millstream_stage::{Activation, EMBEDDED_NUMBER, Library, Origin, Plugin};

use super::error::{RecordError, VersionError, WriteError};
use super::transition::{Transition, transition};
use super::{follow, own, prepare, uses};
use crate::blocking::blocking;
use crate::cluster::NotPrepared;
use crate::detached::detached;
use crate::edge::context::{Edge, MetadataChanges};
use crate::edge::decoders::Leaving;
use crate::error::ApiError;

/// Writes a client's batch under the lock of the store; see [`write()`]. Continues if the returned future is dropped,
/// so that an appended batch comes into force.
///
/// # Errors
/// Those of [`write()`].
pub(crate) async fn produce<T: Send + 'static>(
    edge: &Arc<Edge>,
    changes: &Arc<dyn MetadataChanges>,
    partition: &Arc<Partition>,
    batch: Bytes,
    append: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let (edge, changes, partition) = (Arc::clone(edge), Arc::clone(changes), Arc::clone(partition));
    let work = async move {
        let _turn = edge.plugins.turn().await;
        write(&edge, &changes, &partition, batch, append).await
    };
    detached(work).await
}

/// Checks a batch, appends it with `append`, and puts it in force once it is durable. The caller holds the lock of
/// [`super::Plugins::turn`].
///
/// # Errors
/// `INVALID_RECORD` names the record, what is wrong with it and, if a version does not work, for which stage. Then
/// nothing is appended and nothing has changed.
pub(super) async fn write<T: Send + 'static>(
    edge: &Arc<Edge>,
    changes: &Arc<dyn MetadataChanges>,
    partition: &Arc<Partition>,
    batch: Bytes,
    append: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    follow::lead(edge, partition).await?;
    let (begin, leader_epoch) = (partition.log_end_offset()?, partition.leader_epoch());
    let (owner, sent) = (Arc::clone(edge), batch.clone());
    let checked = blocking(move || Checked::of(owner, begin, &sent)).await??;
    let count = checked.records;
    // From now on no topic may start to use a deleted version, nor change its stages.
    let no_changes = changes.hold().await;
    let mut prepared = blocking(move || checked.prepare()).await?;
    let is_shared = prepared.as_ref().is_ok_and(|ready| ready.is_shared);
    if is_shared && let Err(error) = prepare::on_all(edge, begin, &batch).await {
        prepared = prepared.and_then(|ready| Err(ready.rejected_elsewhere(error)));
        prepare::announce(edge, begin).await;
    }
    let ready = match prepared {
        Ok(ready) => ready,
        Err(RejectedPlugin { name, index, error }) => {
            drop(no_changes);
            if let Some(number) = error.failing_version() {
                let reason = error.to_string();
                own::note(edge, changes, partition, &name, EventKind::Refused, number, &reason).await;
            }
            return Err(rejected(error.at(index)));
        }
    };
    let appended = blocking(append).await??;
    let end = partition.log_end_offset()?;
    // A producer without the first response sends again. Then nothing was appended, and nothing changes.
    if end == begin + count as i64 {
        partition.committed(WriteEnd { offset: end, leader_epoch }, Acks::All).await?;
        let owner = Arc::clone(edge);
        blocking(move || ready.put_in_force(&owner, end)).await??;
        if is_shared {
            prepare::announce(edge, end).await;
        }
    }
    drop(no_changes);
    Ok(appended)
}

fn rejected(error: RecordError) -> ApiError {
    tracing::warn!(record = error.index, "a write to {TOPIC} is rejected: {error}");
    error.into()
}

/// A plug-in whose new state cannot take effect, although each of its records is valid.
pub(super) struct RejectedPlugin {
    name: String,
    /// Its last record in the batch.
    pub(super) index: usize,
    pub(super) error: Box<WriteError>,
}

/// A batch that is ready to be appended.
pub(super) struct Ready {
    /// The state after it.
    image: PluginImage,
    /// By plug-in, with the number of the version.
    pub(super) activations: BTreeMap<String, (u32, Activation)>,
    /// The plug-ins that the batch changes, each with its last record.
    concerned: BTreeMap<String, usize>,
    /// Whether it adds, activates or deletes a version, which concerns every broker.
    is_shared: bool,
    /// Plug-ins without an active version.
    forgotten: Vec<String>,
    /// Until this is dropped, nothing can come to need a version that the batch deletes.
    _leaving: Vec<Leaving>,
}

impl Ready {
    /// Returns the rejection of a batch that other brokers cannot prepare.
    fn rejected_elsewhere(self, NotPrepared { index, message }: NotPrepared) -> RejectedPlugin {
        let last = self.concerned.iter().next_back();
        let concerned = self.concerned.iter().find(|(_, record)| **record == index).or(last);
        let (name, index) = concerned.map_or_else(|| (String::new(), index), |(name, index)| (name.clone(), *index));
        let manifest = self.image.plugin(&name);
        let newest = manifest.and_then(|manifest| manifest.versions.last()).map(|version| version.number);
        let active = self.activations.get(&name).map(|(number, _)| *number);
        let number = active.or(newest).unwrap_or(EMBEDDED_NUMBER);
        let error = WriteError::OtherBrokers { name: name.clone(), number, message };
        RejectedPlugin { name, index, error: Box::new(error) }
    }

    fn put_in_force(self, edge: &Edge, end: i64) -> Result<(), ApiError> {
        edge.plugins.store().set_image(self.image, end);
        for (_, activation) in self.activations.into_values() {
            let published = activation.commit();
            let (plugin, stages) = (&published.plugin, published.swapped.len());
            let (name, version, digest) = (plugin.version_name(), plugin.version(), plugin.digest());
            tracing::info!(plugin = %name, version, %digest, stages, "active");
        }
        edge.plugins.changed().notify_one();
        for name in self.forgotten {
            edge.plugins.library()?.forget(&name);
        }
        Ok(())
    }
}

/// A batch whose records are being checked.
struct Check<'a> {
    edge: &'a Edge,
    library: Arc<Library>,
    begin: i64,
    records: &'a [Record<'a>],
    /// The state before, and after the records so far.
    known: Arc<PluginImage>,
    image: PluginImage,
    /// New versions that were loaded.
    loaded: BTreeMap<(String, u32), Plugin>,
    /// The plug-ins that the batch changes, each with its last record.
    concerned: BTreeMap<String, usize>,
}

impl<'a> Check<'a> {
    fn new(edge: &'a Edge, begin: i64, records: &'a [Record<'a>]) -> Result<Self, ApiError> {
        let known = edge.plugins.store().image();
        let image = PluginImage::clone(&known);
        let library = edge.plugins.library()?;
        let (loaded, concerned) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { edge, library, begin, records, known, image, loaded, concerned })
    }

    /// Checks a record against the state before it.
    fn record(&mut self, index: usize) -> Result<(), WriteError> {
        let record = &self.records[index];
        let key = Key::parse(record.key)?;
        match &key {
            Key::Chunk { .. } => self.chunk(&key, record.value)?,
            Key::Plugin(name) => {
                if let Some(value) = record.value {
                    self.manifest(name, value)?;
                }
                self.concerned.insert(name.clone(), index);
            }
            Key::Topic(_) => {}
        }
        let offset = self.begin + index as i64;
        self.image.apply(offset, now_ms(), record.key, record.value)?;
        Ok(())
    }

    /// Checks that no version loses or changes one of its chunks.
    fn chunk(&self, key: &Key, value: Option<&[u8]>) -> Result<(), WriteError> {
        let Key::Chunk { digest, index } = key else { return Ok(()) };
        let Some((name, number)) = self.image.user_of(digest) else { return Ok(()) };
        let (name, key) = (name.to_owned(), key.clone());
        let Some(value) = value else { return Err(WriteError::ChunkNeeded { name, number, key }) };
        let Some(place) = self.image.place(digest, *index) else { return Ok(()) };
        let have = match self.in_batch(place.offset) {
            Some(chunk) => chunk,
            None => self.edge.plugins.store().chunk(place)?,
        };
        if have != value {
            return Err(WriteError::ChunkImmutable { name, number, key });
        }
        Ok(())
    }

    fn manifest(&mut self, name: &str, value: &[u8]) -> Result<(), WriteError> {
        let new =
            Manifest::parse(name, value).map_err(|error| WriteError::Manifest { name: name.to_owned(), error })?;
        let known = self.image.plugin(name).cloned();
        let Transition { added, .. } = transition(known.as_deref(), &new)?;
        if known.is_none() {
            self.kind_in_binary(name, &new)?;
        }
        for version in added {
            let number = version.number;
            let plugin = self.load(name, &new, version).map_err(|error| {
                let name = name.to_owned();
                WriteError::Version { name, number, error }
            })?;
            self.loaded.insert((name.to_owned(), number), plugin);
        }
        Ok(())
    }

    /// Loads a new version, and checks it against the manifest.
    fn load(&self, name: &str, manifest: &Manifest, version: &Version) -> Result<Plugin, VersionError> {
        let places = self.image.places(version)?;
        let component = self.edge.plugins.store().component(version, &places, &|offset| self.in_batch(offset))?;
        let plugin = self.library.load(name, &component)?;
        if plugin.kind() != manifest.kind {
            return Err(VersionError::Kind { actual: plugin.kind(), manifest: manifest.kind });
        }
        if plugin.version() != version.version {
            let (actual, manifest) = (plugin.version().to_owned(), version.version.clone());
            return Err(VersionError::Name { actual, manifest });
        }
        Ok(plugin)
    }

    /// Checks that a name of the binary keeps its kind, so that configs with the name keep their meaning.
    fn kind_in_binary(&self, name: &str, new: &Manifest) -> Result<(), WriteError> {
        match self.library.version(name, EMBEDDED_NUMBER) {
            Ok(own) if own.kind() != new.kind => {
                Err(WriteError::BuiltInKind { name: name.to_owned(), built_in: own.kind(), new: new.kind })
            }
            _ => Ok(()),
        }
    }

    /// Returns the value of a record of this batch.
    fn in_batch(&self, offset: i64) -> Option<Bytes> {
        let index = usize::try_from(offset.checked_sub(self.begin)?).ok()?;
        self.records.get(index)?.value.map(Bytes::copy_from_slice)
    }
}

/// A batch whose records are valid.
pub(super) struct Checked {
    edge: Arc<Edge>,
    library: Arc<Library>,
    /// The number of its records.
    records: usize,
    /// The state before and after it.
    known: Arc<PluginImage>,
    image: PluginImage,
    loaded: BTreeMap<(String, u32), Plugin>,
    concerned: BTreeMap<String, usize>,
    leaving: Vec<Leaving>,
}

impl Checked {
    /// Checks a batch that is to be appended at the offset `begin`.
    pub(super) fn of(edge: Arc<Edge>, begin: i64, batch: &[u8]) -> Result<Self, ApiError> {
        let records = BatchView::parse(batch)?.records(edge.config.request_max_bytes)?;
        let records = records.iter().collect::<Result<Vec<_>, _>>()?;
        let mut check = Check::new(&edge, begin, &records)?;
        for index in 0..records.len() {
            check.record(index).map_err(|error| rejected(error.at(index)))?;
        }
        let Check { library, known, image, loaded, concerned, .. } = check;
        let (records, leaving) = (records.len(), Vec::new());
        let mut checked = Self { edge, library, records, known, image, loaded, concerned, leaving };
        // This searches all stored batches, so topics may change meanwhile.
        checked.leaving = checked.leave().map_err(rejected)?;
        Ok(checked)
    }

    /// Checks that nothing needs the deleted versions. Nothing can come to need them while the returned guards live.
    fn leave(&self) -> Result<Vec<Leaving>, RecordError> {
        let mut leaving: Vec<Leaving> = Vec::new();
        for (name, index) in &self.concerned {
            let needed = |error| WriteError::InUse(error).at(*index);
            // This check comes first, so that a rejected deletion does not disturb compressors in use.
            if self.image.plugin(name).is_none() && self.library.version(name, EMBEDDED_NUMBER).is_err() {
                uses::check_unfollowed(&self.edge, name).map_err(needed)?;
            }
            for version in self.gone(name) {
                uses::check_unpinned(&self.edge, name, version).map_err(needed)?;
                let digest = &version.digest;
                // The bytes may stay as those of another version, or were already checked.
                if self.image.user_of(digest).is_none() && !leaving.iter().any(|leaving| leaving.is(digest)) {
                    leaving.push(uses::check_unneeded(&self.edge, name, version).map_err(needed)?);
                }
            }
        }
        Ok(leaving)
    }

    /// Returns the versions of a plug-in that the batch deletes.
    fn gone(&self, name: &str) -> impl Iterator<Item = &Version> {
        let (before, after) = (self.known.plugin(name), self.image.plugin(name));
        let versions = before.into_iter().flat_map(|before| &before.versions);
        versions.filter(move |version| after.is_none_or(|after| after.version(version.number).is_none()))
    }

    /// Prepares the versions that become active, while no topic changes.
    pub(super) fn prepare(self) -> Result<Ready, RejectedPlugin> {
        let (mut activations, mut forgotten) = (BTreeMap::new(), Vec::new());
        let mut is_shared = !self.loaded.is_empty();
        for (name, index) in &self.concerned {
            let unfit = |error| RejectedPlugin { name: name.clone(), index: *index, error: Box::new(error) };
            for version in self.gone(name) {
                is_shared = true;
                // Checked again: topics may have changed since.
                uses::check_unpinned(&self.edge, name, version).map_err(|error| unfit(error.into()))?;
            }
            let before = self.known.plugin(name).map_or(EMBEDDED_NUMBER, |before| before.active);
            let active = self.image.plugin(name).map_or(EMBEDDED_NUMBER, |after| after.active);
            if active == before {
                continue;
            }
            is_shared = true;
            match self.change(name, active).map_err(unfit)? {
                Change::Activate(activation) => drop(activations.insert(name.clone(), (active, activation))),
                Change::Forget => forgotten.push(name.clone()),
            }
        }
        let Self { image, concerned, leaving, .. } = self;
        Ok(Ready { image, activations, concerned, is_shared, forgotten, _leaving: leaving })
    }

    fn change(&self, name: &str, active: u32) -> Result<Change, WriteError> {
        let plugin = match self.loaded.get(&(name.to_owned(), active)) {
            Some(plugin) => plugin.clone(),
            None => match self.library.version(name, active) {
                Ok(plugin) => plugin,
                Err(_) if active == EMBEDDED_NUMBER => {
                    uses::check_unfollowed(&self.edge, name)?;
                    return Ok(Change::Forget);
                }
                Err(error) => return Err(WriteError::NotFound { number: active, error }),
            },
        };
        let origin = match active {
            EMBEDDED_NUMBER => Origin::Embedded,
            number => Origin::Store { number },
        };
        let activation = self
            .library
            .prepare(&plugin, origin)
            .map_err(|error| WriteError::DoesNotServe { number: active, error })?;
        Ok(Change::Activate(activation))
    }
}

/// The effect of a batch on the stages that follow a name.
enum Change {
    Activate(Activation),
    /// No version is active any more.
    Forget,
}
