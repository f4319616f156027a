//! Putting a version to use, in two steps: it is made ready for every live stage that it concerns, all or
//! none, and then takes over in all of them, which cannot fail any more.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::StageError;
use crate::library::{Direction, Origin, Published, Shared};
use crate::plugin::Plugin;
use crate::stage::{Prepared, Stage};

/// A version that is ready to take over. Dropping it changes nothing.
#[must_use = "the version takes over with `commit`"]
pub struct Activation {
    library: Arc<Shared>,
    pending: Arc<Pending>,
}

/// A version between the two steps. A stage that is made meanwhile is made ready for it too.
pub(crate) struct Pending {
    pub(crate) plugin: Plugin,
    pub(crate) origin: Origin,
    direction: Direction,
    /// `None` once it has taken over.
    ready: Mutex<Option<Vec<Prepared>>>,
}

/// A version is refused: it does not serve where it would have to. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivationError {
    /// The plug-in's name.
    pub plugin: String,
    /// The version, in its own words.
    pub version: String,
    /// Its number in the store, if it has one.
    pub number: Option<u32>,
    /// Where it would not serve, and why; at least one.
    pub refusals: Vec<Refused>,
}

/// A stage that a version cannot serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Where the stage is attached.
    pub attachment: String,
    /// Why.
    pub error: StageError,
}

impl fmt::Display for ActivationError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ActivationError { plugin, version, number, refusals } = self;
        write!(formatter, "plug-in {plugin}")?;
        if let Some(number) = number {
            write!(formatter, "@{number}")?;
        }
        write!(formatter, " (version {version}) does not serve ")?;
        match &refusals[..] {
            [] => formatter.write_str("here"),
            [first, others @ ..] => {
                write!(formatter, "{}: {}", first.attachment, first.error.fault)?;
                match others.len() {
                    0 => Ok(()),
                    others => write!(formatter, " (nor {others} more)"),
                }
            }
        }
    }
}

impl std::error::Error for ActivationError {}

impl fmt::Debug for Activation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Activation").field("plugin", &self.pending.plugin).finish_non_exhaustive()
    }
}

impl Activation {
    pub(crate) fn new(library: &Arc<Shared>, pending: Arc<Pending>) -> Activation {
        Activation { library: Arc::clone(library), pending }
    }

    /// The version.
    pub fn plugin(&self) -> &Plugin {
        &self.pending.plugin
    }

    /// How many live stages it is ready for.
    pub fn stages(&self) -> usize {
        self.pending.ready.lock().as_ref().map_or(0, Vec::len)
    }

    /// The version takes over everywhere, at the next batch of each stage.
    pub fn commit(self) -> Published {
        let Pending { plugin, origin, direction, ready } = &*self.pending;
        // What the version did when it served before is forgiven.
        plugin.tally().forgive();
        // Whoever makes a stage adds it to the living and then looks for what is pending: it either gets
        // the new version here, or sees below that it came too late and takes it by itself.
        self.library.activate(plugin, origin, *direction);
        let ready = ready.lock().take().unwrap_or_default();
        Published { plugin: plugin.clone(), swapped: ready.into_iter().map(Prepared::commit).collect() }
    }
}

impl Pending {
    pub(crate) fn new(plugin: Plugin, origin: Origin, direction: Direction) -> Arc<Pending> {
        Arc::new(Pending { plugin, origin, direction, ready: Mutex::new(Some(Vec::new())) })
    }

    /// Makes the version ready for these stages.
    pub(crate) fn prepare(&self, stages: Vec<Arc<Stage>>) -> Result<(), ActivationError> {
        let mut refusals = Vec::new();
        for stage in stages {
            if let Err(error) = self.prepare_one(&stage) {
                refusals.push(Refused { attachment: stage.attachment().to_owned(), error });
            }
        }
        if refusals.is_empty() {
            return Ok(());
        }
        Err(ActivationError {
            plugin: self.plugin.name().to_owned(),
            version: self.plugin.version().to_owned(),
            number: self.origin.number(),
            refusals,
        })
    }

    /// Makes the version ready for a stage, or puts it there if it has taken over everywhere else.
    pub(crate) fn prepare_one(&self, stage: &Arc<Stage>) -> Result<(), StageError> {
        if stage.plugin().is_same(&self.plugin) {
            return Ok(());
        }
        let prepared = stage.prepare(self.plugin.clone())?;
        match &mut *self.ready.lock() {
            Some(ready) => ready.push(prepared),
            None => drop(prepared.commit()),
        }
        Ok(())
    }
}
