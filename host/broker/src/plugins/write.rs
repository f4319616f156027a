//! Writes to the topic, whoever makes them: a batch is checked record by record, what it activates is made
//! ready for every stage that lives, it is appended and synced, and then it is in force.
//!
//! One operation at a time: what was checked is what the append finds. All of it blocks, for the disk and for
//! the compiler, so it runs on threads where that is allowed.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use millstream_client::plugins::TOPIC;
use millstream_client::plugins::format::{Key, Manifest};
use millstream_client::plugins::image::PluginImage;
use millstream_record::{BatchBuilder, BatchView, Codec, Record, TimestampType};
use millstream_stage::{Activation, EMBEDDED_NUMBER, Library, Origin, Plugin};
use millstream_wire::ErrorCode;

use super::transition::{Transition, transition};
use super::uses;
use crate::broker::Broker;
use crate::controller::{self, blocking};
use crate::error::ApiError;
use crate::partition::Partition;
use crate::time::now_ms;

/// A record to write.
pub(super) type NewRecord = (Key, Option<Vec<u8>>);

/// Checks a batch, appends it with `append`, and puts it in force once it is on stable storage. Blocks; the caller
/// has the turn, [`super::Plugins::turn`].
///
/// # Errors
/// `INVALID_RECORD` names the record, what is wrong with it and, where a version does not work, for whom. Then
/// nothing is appended and nothing has changed.
pub(crate) fn write<T>(
    broker: &Arc<Broker>,
    partition: &Arc<Partition>,
    batch: &BatchView<'_>,
    append: impl FnOnce() -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    broker.plugins.store().serve(partition);
    let records = batch.records(broker.config.request_max_bytes)?;
    let records = records.iter().collect::<Result<Vec<_>, _>>()?;
    let begin = partition.reader()?.log_end_offset();
    let mut check = Check::new(broker, begin, &records)?;
    for index in 0..records.len() {
        check.record(index).map_err(|problem| refused(index, problem))?;
    }
    // From here on no topic may come to use what goes, nor change its stages.
    let _no_changes = broker.changes.blocking_lock();
    let Checked { image, activations, forgotten } = check.finish()?;
    let appended = append()?;
    let end = partition.reader()?.log_end_offset();
    // A producer that did not get the first answer sends again: then nothing was appended, nor is anything to change.
    if end == begin + records.len() as i64 {
        let durable = broker.syncer.wait(partition, end).blocking_recv();
        durable.map_err(|_| ApiError::new(ErrorCode::NOT_LEADER_OR_FOLLOWER, "the broker stops"))??;
        broker.plugins.store().set_image(image);
        for activation in activations {
            let plugin = activation.plugin().clone();
            let stages = activation.commit().swapped.len();
            tracing::info!(plugin = plugin.name(), version = plugin.version(), digest = %plugin.digest(), stages, "active");
        }
        for name in forgotten {
            broker.plugins.library()?.forget(&name);
        }
    }
    Ok(appended)
}

fn refused(index: usize, problem: String) -> ApiError {
    tracing::warn!("a write to {TOPIC} is refused: {problem}");
    let record = u32::try_from(index).ok().map(|record| (record, problem.clone()));
    ApiError { records: record.into_iter().collect(), ..ApiError::new(ErrorCode::INVALID_RECORD, problem) }
}

/// A batch that may be appended.
struct Checked {
    /// The state after it.
    image: PluginImage,
    activations: Vec<Activation>,
    /// Plug-ins of which no version serves any more.
    forgotten: Vec<String>,
}

/// A batch that is being checked.
struct Check<'a> {
    broker: &'a Broker,
    library: Arc<Library>,
    begin: i64,
    records: &'a [Record<'a>],
    /// The state before, and after the records so far.
    known: Arc<PluginImage>,
    image: PluginImage,
    /// New versions that were loaded.
    loaded: BTreeMap<(String, u32), Plugin>,
    /// The plug-ins that the batch is about, each with its last record.
    concerned: BTreeMap<String, usize>,
}

impl<'a> Check<'a> {
    fn new(broker: &'a Broker, begin: i64, records: &'a [Record<'a>]) -> Result<Self, ApiError> {
        let known = broker.plugins.store().image();
        let image = PluginImage::clone(&known);
        let library = broker.plugins.library()?;
        let (loaded, concerned) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { broker, library, begin, records, known, image, loaded, concerned })
    }

    /// Checks a record against the state before it.
    fn record(&mut self, index: usize) -> Result<(), String> {
        let record = &self.records[index];
        let key = Key::parse(record.key).map_err(|error| error.to_string())?;
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
        self.image.apply(offset, record.key, record.value).map(drop).map_err(|error| error.to_string())
    }

    /// What a version needs stays as it is.
    fn chunk(&self, key: &Key, value: Option<&[u8]>) -> Result<(), String> {
        let Key::Chunk { digest, index } = key else { return Ok(()) };
        let Some((name, number)) = self.image.user_of(digest) else { return Ok(()) };
        let Some(value) = value else {
            return Err(format!("{name}@{number} needs {key}: delete the version first"));
        };
        let Some(place) = self.image.place(digest, *index) else { return Ok(()) };
        let have = match self.in_batch(place.offset) {
            Some(chunk) => chunk,
            None => self.broker.plugins.store().chunk(place)?,
        };
        if have != value {
            return Err(format!("{name}@{number} is immutable: {key} cannot become something else"));
        }
        Ok(())
    }

    fn manifest(&mut self, name: &str, value: &[u8]) -> Result<(), String> {
        let new = Manifest::parse(name, value).map_err(|error| format!("plug-in {name}: {error}"))?;
        let known = self.image.plugin(name).cloned();
        let Transition { added, .. } = transition(known.as_deref(), &new)?;
        for version in added {
            let failed = |problem: String| format!("plug-in {name}@{}: {problem}", version.number);
            let places = self.image.places(version).map_err(|error| failed(error.0))?;
            let in_batch = |offset| self.in_batch(offset);
            let component = self.broker.plugins.store().component(version, &places, &in_batch).map_err(failed)?;
            let plugin = self.library.load(name, &component).map_err(|error| failed(error.to_string()))?;
            if plugin.kind() != new.kind {
                return Err(failed(format!("it is a {}, and the manifest says {}", plugin.kind(), new.kind)));
            }
            if plugin.version() != version.version {
                let (have, said) = (plugin.version(), &version.version);
                return Err(failed(format!("it calls its version {have}, and the manifest says {said}")));
            }
            self.loaded.insert((name.to_owned(), version.number), plugin);
        }
        Ok(())
    }

    /// The value of a record of this batch.
    fn in_batch(&self, offset: i64) -> Option<Bytes> {
        let index = usize::try_from(offset.checked_sub(self.begin)?).ok()?;
        self.records.get(index)?.value.map(Bytes::copy_from_slice)
    }

    /// Makes what is to serve ready, and makes sure that nobody needs what goes.
    fn finish(mut self) -> Result<Checked, ApiError> {
        let (mut activations, mut forgotten) = (Vec::new(), Vec::new());
        for (name, index) in std::mem::take(&mut self.concerned) {
            let change = self.change(&name).map_err(|problem| refused(index, problem))?;
            match change {
                Change::Nothing => {}
                Change::Activate(activation) => activations.push(activation),
                Change::Forget => forgotten.push(name),
            }
        }
        Ok(Checked { image: self.image, activations, forgotten })
    }

    fn change(&self, name: &str) -> Result<Change, String> {
        let (before, after) = (self.known.plugin(name), self.image.plugin(name));
        let gone = before.iter().flat_map(|before| &before.versions);
        let gone = gone.filter(|version| after.is_none_or(|after| after.version(version.number).is_none()));
        for version in gone {
            let bytes_go = self.image.user_of(&version.digest).is_none();
            uses::check_unneeded(self.broker, name, version, bytes_go)?;
        }
        let active_before = before.map_or(EMBEDDED_NUMBER, |before| before.active);
        let active = after.map_or(EMBEDDED_NUMBER, |after| after.active);
        if active == active_before {
            return Ok(Change::Nothing);
        }
        let plugin = match self.loaded.get(&(name.to_owned(), active)) {
            Some(plugin) => plugin.clone(),
            None => match self.library.version(name, active) {
                Ok(plugin) => plugin,
                Err(_) if active == EMBEDDED_NUMBER => {
                    uses::check_unfollowed(self.broker, name)?;
                    return Ok(Change::Forget);
                }
                Err(error) => return Err(error.to_string()),
            },
        };
        let origin = match active {
            EMBEDDED_NUMBER => Origin::Embedded,
            number => Origin::Store { number },
        };
        let activation = self.library.prepare(&plugin, origin).map_err(|error| error.to_string())?;
        Ok(Change::Activate(activation))
    }
}

/// What a batch does to what serves of one name.
enum Change {
    Nothing,
    Activate(Activation),
    /// Nothing serves under that name any more.
    Forget,
}

/// Writes records of the broker's own, planned on the state as it is when it is their turn. Whether anything was planned is
/// the answer.
///
/// # Errors
/// As [`write`], or what the plan says.
pub(super) async fn write_own(
    broker: &Arc<Broker>,
    plan: impl FnOnce(&PluginImage, &Library) -> Result<Vec<NewRecord>, String> + Send + 'static,
) -> Result<bool, ApiError> {
    controller::ensure_topic(broker, TOPIC).await?;
    let turn = broker.plugins.turn().await;
    let work = move |broker: &Arc<Broker>| {
        let _turn = turn;
        let image = broker.plugins.store().image();
        let planned = plan(&image, &*broker.plugins.library()?);
        let records = planned.map_err(|problem| ApiError::new(ErrorCode::INVALID_RECORD, problem))?;
        let partition = broker.partition(TOPIC, 0)?;
        let is_change = !records.is_empty();
        for record in records {
            let bytes = batch_of(record)?;
            let batch = BatchView::parse(&bytes)?;
            write(broker, &partition, &batch, || Ok(partition.append(&bytes, now_ms())??))?;
        }
        Ok(is_change)
    };
    blocking(broker, work).await?
}

fn batch_of((key, value): NewRecord) -> Result<Vec<u8>, ApiError> {
    let failed =
        |error: millstream_record::BuildError| ApiError::new(ErrorCode::UNKNOWN_SERVER_ERROR, error.to_string());
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    builder.append(now_ms(), Some(key.to_string().as_bytes()), value.as_deref(), []).map_err(failed)?;
    builder.build().map_err(failed)
}
