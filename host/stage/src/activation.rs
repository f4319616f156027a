//! Activates a version in two steps. First it is prepared for every live stage that follows it, or for none. Then it
//! takes over in all of them, which cannot fail.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::StageError;
use crate::library::{Direction, Origin, Published, Shared};
use crate::plugin::Plugin;
use crate::stage::{Prepared, Stage};

/// Holds a version that is ready to take over. Dropping it changes nothing.
#[must_use = "the version takes over with `commit`"]
pub struct Activation {
    library: Arc<Shared>,
    pending: Arc<Pending>,
}

/// Holds a version between the two steps. It is prepared for a stage that starts in between, too.
pub(crate) struct Pending {
    pub(crate) plugin: Plugin,
    pub(crate) origin: Origin,
    direction: Direction,
    /// `None` after it took over.
    ready: Mutex<Option<Vec<Prepared>>>,
}

/// Reports that a version cannot be activated, because a stage rejects it. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivationError {
    /// The plug-in's name.
    pub plugin: String,
    /// The version that the plug-in states.
    pub version: String,
    /// The number of the version in the store, if it has one.
    pub number: Option<u32>,
    /// The stages that reject it; at least one.
    pub refusals: Vec<Refused>,
}

/// Names a stage that a version cannot serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Where the stage is attached.
    pub attachment: String,
    /// The reason.
    pub error: StageError,
}

impl fmt::Display for ActivationError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ActivationError { plugin, version, number, refusals } = self;
        write!(formatter, "plug-in {plugin}")?;
        if let Some(number) = number {
            write!(formatter, "@{number}")?;
        }
        write!(formatter, " (version {version}) cannot be activated")?;
        match &refusals[..] {
            [] => Ok(()),
            [first] => write!(formatter, ": {}: {}", first.attachment, first.error.fault),
            [first, others @ ..] => {
                let others = others.len();
                write!(formatter, ": {}: {} (and {others} more)", first.attachment, first.error.fault)
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

    /// Returns the version.
    pub fn plugin(&self) -> &Plugin {
        &self.pending.plugin
    }

    /// Returns the number of live stages that it is ready for.
    pub fn stages(&self) -> usize {
        self.pending.ready.lock().as_ref().map_or(0, Vec::len)
    }

    /// Lets the version take over everywhere, at the next batch of each stage.
    pub fn commit(self) -> Published {
        let Pending { plugin, origin, direction, ready } = &*self.pending;
        // Failures from an earlier activation do not count.
        plugin.health().forgive();
        // A stage that starts is first added to the live stages, then prepared for pending versions. It is either
        // swapped here, or finds that it came too late and swaps by itself.
        self.library.activate(plugin, origin, *direction);
        let ready = ready.lock().take().unwrap_or_default();
        Published { plugin: plugin.clone(), swapped: ready.into_iter().map(Prepared::commit).collect() }
    }
}

impl Pending {
    pub(crate) fn new(plugin: Plugin, origin: Origin, direction: Direction) -> Arc<Pending> {
        Arc::new(Pending { plugin, origin, direction, ready: Mutex::new(Some(Vec::new())) })
    }

    /// Prepares the version for these stages.
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

    /// Prepares the version for a stage, or swaps the stage if the version took over everywhere else.
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
