//! Writes to the topic, whoever makes them: a batch is checked record by record, what it activates is made
//! ready for every stage that lives, it is appended and synced, and then it is in force.
//!
//! One operation at a time: what was checked is what the append finds. All of it blocks, for the disk and for
//! the compiler, so it runs on threads where that is allowed.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use millstream_record::{BatchView, Record};
use millstream_registry::TOPIC;
use millstream_registry::format::{EventKind, Key, Manifest, Version};
use millstream_registry::image::PluginImage;
use millstream_stage::{Activation, EMBEDDED_NUMBER, Library, Origin, Plugin};
use millstream_wire::ErrorCode;

use super::transition::{Transition, transition};
use super::{own, uses};
use crate::broker::Broker;
use crate::clock::now_ms;
use crate::edge::Leaving;
use crate::error::ApiError;
use crate::partition::Partition;

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
    // A look at all that is stored: nobody has to wait for that.
    let leaving = check.leave().map_err(|(index, problem)| refused(index, problem))?;
    // From here on no topic may come to use what goes, nor change its stages.
    let no_changes = broker.controller.hold();
    let Checked { image, activations, forgotten } = match check.finish() {
        Ok(checked) => checked,
        Err(unfit) => {
            drop(no_changes);
            if let Some(number) = unfit.number {
                own::note(broker, partition, &unfit.name, EventKind::Refused, number, &unfit.problem);
            }
            return Err(refused(unfit.index, unfit.problem));
        }
    };
    let appended = append()?;
    let end = partition.reader()?.log_end_offset();
    // A producer that did not get the first answer sends again: then nothing was appended, nor is anything to change.
    if end == begin + records.len() as i64 {
        let durable = broker.syncer.wait(partition, end).blocking_recv();
        durable.map_err(|_| ApiError::new(ErrorCode::NOT_LEADER_OR_FOLLOWER, "the broker stops"))??;
        broker.plugins.store().set_image(image);
        for activation in activations {
            let published = activation.commit();
            let (plugin, stages) = (&published.plugin, published.swapped.len());
            tracing::info!(plugin = %plugin.version_name(), version = plugin.version(), digest = %plugin.digest(), stages, "active");
        }
        for name in forgotten {
            broker.plugins.library()?.forget(&name);
        }
    }
    // Whoever comes now finds that it is gone.
    drop(leaving);
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

/// Why a batch may not be appended, whose records all mean something.
struct Unfit {
    /// The record, the last of its plug-in.
    index: usize,
    name: String,
    problem: String,
    /// The version that was to serve and does not work here, if that is it.
    number: Option<u32>,
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
        self.image.apply(offset, now_ms(), record.key, record.value).map(drop).map_err(|error| error.to_string())
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
        if known.is_none() {
            self.kind_in_binary(name, &new)?;
        }
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

    /// A name of the binary's has its kind: what is written with it goes on meaning the same.
    fn kind_in_binary(&self, name: &str, new: &Manifest) -> Result<(), String> {
        match self.library.version(name, EMBEDDED_NUMBER) {
            Ok(own) if own.kind() != new.kind => Err(format!(
                "plug-in {name} is a {} in the binary, and this is a {}; push it under another name",
                own.kind(),
                new.kind
            )),
            _ => Ok(()),
        }
    }

    /// The value of a record of this batch.
    fn in_batch(&self, offset: i64) -> Option<Bytes> {
        let index = usize::try_from(offset.checked_sub(self.begin)?).ok()?;
        self.records.get(index)?.value.map(Bytes::copy_from_slice)
    }

    /// Makes sure that nobody needs the versions that go, nor comes to while the answer lives. An error has the place of the
    /// record that removes one.
    fn leave(&self) -> Result<Vec<Leaving<'a>>, (usize, String)> {
        let mut leaving: Vec<Leaving<'a>> = Vec::new();
        for (name, index) in &self.concerned {
            let needed = |problem| (*index, problem);
            // Before what is at work is disturbed by a deletion that comes to nothing.
            if self.image.plugin(name).is_none() && self.library.version(name, EMBEDDED_NUMBER).is_err() {
                uses::check_unfollowed(self.broker, name).map_err(needed)?;
            }
            for version in self.gone(name) {
                uses::check_unpinned(self.broker, name, version).map_err(needed)?;
                let digest = &version.digest;
                // Unless its bytes stay as those of another one, or went as such just now.
                if self.image.user_of(digest).is_none() && !leaving.iter().any(|leaving| leaving.is(digest)) {
                    leaving.push(uses::check_unneeded(self.broker, name, version).map_err(needed)?);
                }
            }
        }
        Ok(leaving)
    }

    /// The versions of a plug-in that are not there any more after the batch.
    fn gone(&self, name: &str) -> impl Iterator<Item = &Version> {
        let (before, after) = (self.known.plugin(name), self.image.plugin(name));
        let versions = before.into_iter().flat_map(|before| &before.versions);
        versions.filter(move |version| after.is_none_or(|after| after.version(version.number).is_none()))
    }

    /// Makes what is to serve ready, while no topic changes.
    fn finish(mut self) -> Result<Checked, Unfit> {
        let (mut activations, mut forgotten) = (Vec::new(), Vec::new());
        for (name, index) in std::mem::take(&mut self.concerned) {
            let unfit = |problem, number| Unfit { index, name: name.clone(), problem, number };
            for version in self.gone(&name) {
                // Once more: topics have changed since.
                uses::check_unpinned(self.broker, &name, version).map_err(|problem| unfit(problem, None))?;
            }
            let before = self.known.plugin(&name).map_or(EMBEDDED_NUMBER, |before| before.active);
            let active = self.image.plugin(&name).map_or(EMBEDDED_NUMBER, |after| after.active);
            if active == before {
                continue;
            }
            match self.change(&name, active).map_err(|(problem, number)| unfit(problem, number))? {
                Change::Activate(activation) => activations.push(activation),
                Change::Forget => forgotten.push(name),
            }
        }
        Ok(Checked { image: self.image, activations, forgotten })
    }

    /// The text of an error says what is wrong; the number is that of the version that does not work here.
    fn change(&self, name: &str, active: u32) -> Result<Change, (String, Option<u32>)> {
        let plugin = match self.loaded.get(&(name.to_owned(), active)) {
            Some(plugin) => plugin.clone(),
            None => match self.library.version(name, active) {
                Ok(plugin) => plugin,
                Err(_) if active == EMBEDDED_NUMBER => {
                    uses::check_unfollowed(self.broker, name).map_err(|problem| (problem, None))?;
                    return Ok(Change::Forget);
                }
                Err(error) => return Err((error.to_string(), Some(active))),
            },
        };
        let origin = match active {
            EMBEDDED_NUMBER => Origin::Embedded,
            number => Origin::Store { number },
        };
        let activation = self.library.prepare(&plugin, origin).map_err(|error| (error.to_string(), Some(active)))?;
        Ok(Change::Activate(activation))
    }
}

/// What a batch does to what serves of one name.
enum Change {
    Activate(Activation),
    /// Nothing serves under that name any more.
    Forget,
}
