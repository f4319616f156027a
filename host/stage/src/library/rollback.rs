//! Rolls back automatically: a version that traps again and again, or fails for most of its records, is replaced by the
//! last good one.

use std::path::PathBuf;
use std::sync::Arc;

use super::state::{Direction, Versions};
use super::{Origin, Shared};
use crate::failure_detector::SpikeReason;
use crate::plugin::{Digest, Plugin};
use crate::source::EMBEDDED_NUMBER;

/// Reports that a version fails too often, once for each activation of the version.
///
/// If the version is from a store, the owner of the store must roll it back: `number` is set, and nothing has changed
/// yet. Otherwise the library has rolled back already.
#[derive(Debug, Clone, PartialEq)]
pub struct Spike {
    /// The plug-in's name.
    pub plugin: String,
    /// The version that the plug-in states.
    pub version: String,
    /// The digest of the component.
    pub digest: Digest,
    /// The number of the version in the store, if it comes from there.
    pub number: Option<u32>,
    /// The failures.
    pub reason: SpikeReason,
    /// The version that is in use again; `None` if there is none, or if the owner decides.
    pub rolled_back_to: Option<String>,
}

/// A version that can replace a broken one.
struct Way {
    plugin: Plugin,
    origin: Origin,
}

impl Shared {
    /// Reports a failure of a version that is not broken yet. The caller holds no lock and no instance.
    pub(super) fn failed(&self, name: &str, digest: Digest) {
        let Some(on_failure) = self.on_failure.read().clone() else { return };
        let number = self.state.lock().known(name, digest).and_then(|known| known.plugin.health.number());
        if let Some(number) = number.filter(|number| *number != EMBEDDED_NUMBER) {
            on_failure(name, number);
        }
    }

    /// Handles the alarm of a version. The caller holds no lock and no instance.
    pub(super) fn spiked(self: &Arc<Self>, name: &str, digest: Digest, reason: SpikeReason) {
        let (version, number) = {
            let state = self.state.lock();
            let known = state.known(name, digest);
            let number =
                known.and_then(|known| known.plugin.health.number()).filter(|number| *number != EMBEDDED_NUMBER);
            (known.map(|known| known.version.clone()).unwrap_or_default(), number)
        };
        let rolled_back_to = match number {
            Some(number) => {
                tracing::error!(plugin = name, version, number, %reason, "a plug-in fails too often");
                None
            }
            None => {
                let back = self.roll_back(name, digest);
                match &back {
                    Some(back) => {
                        tracing::error!(
                            plugin = name,
                            version,
                            %reason,
                            back,
                            "a plug-in fails too often: rolled back to an older version"
                        );
                    }
                    None => {
                        tracing::error!(
                            plugin = name,
                            version,
                            %reason,
                            "a plug-in fails too often, and there is no older version to roll back to"
                        );
                    }
                }
                back
            }
        };
        // Not under the lock: it may set another callback.
        let on_spike = self.on_spike.read().clone();
        if let Some(on_spike) = on_spike {
            on_spike(Spike { plugin: name.to_owned(), version, digest, number, reason, rolled_back_to });
        }
    }

    /// Replaces a bad version by the last good one, wherever it is in use. Returns the good version.
    fn roll_back(self: &Arc<Self>, name: &str, bad: Digest) -> Option<String> {
        let _in_order = self.publishing.lock();
        let mut back = None;
        // Files come first: a file may also have the name.
        while let Some(way) = self.way_back(name, bad) {
            let version = way.plugin.version().to_owned();
            match self.prepare(&way.plugin, way.origin, Direction::Back) {
                Ok(activation) => drop(activation.commit()),
                Err(error) => {
                    tracing::error!(plugin = name, %error, "cannot roll back to the version before");
                    return back;
                }
            }
            back = Some(version);
        }
        back
    }

    /// Returns the next place where a bad version is in use, and the version to use there.
    fn way_back(self: &Arc<Self>, name: &str, bad: Digest) -> Option<Way> {
        let (of_file, entry) = {
            let mut state = self.state.lock();
            let file = state.files.iter_mut().find(|(_, file)| file.active.is_version(name, bad));
            let of_file = file.and_then(|(path, file)| Some((PathBuf::clone(path), file.previous.take()?)));
            let versions = state.plugins.get_mut(name);
            let entry = versions.and_then(|versions: &mut Versions| {
                versions.mark_bad(bad);
                let is_active = versions.active().is_some_and(|entry| entry.is_bad && entry.has(bad));
                is_active.then(|| versions.last_good(bad).cloned()).flatten()
            });
            (of_file, entry)
        };
        if let Some((path, plugin)) = of_file {
            return Some(Way { plugin, origin: Origin::File(path) });
        }
        let entry = entry?;
        let plugin = self.entry_plugin(name, &entry).ok()?;
        Some(Way { plugin, origin: entry.origin })
    }
}
