//! Going back by itself: a version that traps again and again, or fails for most of its records, gives its
//! place to the last one that did not.

use std::path::PathBuf;
use std::sync::Arc;

use super::state::{Direction, Versions};
use super::{Origin, Shared};
use crate::failure_detector::SpikeReason;
use crate::plugin::{Digest, Plugin};
use crate::source::EMBEDDED_NUMBER;

/// A version goes wrong too often. Told once for each time that the version is put to use.
///
/// A version from a store is for the store's owner to take back, who hears of it here: `number` is set,
/// nothing has changed yet. For all others the library itself has gone back.
#[derive(Debug, Clone, PartialEq)]
pub struct Spike {
    /// The plug-in's name.
    pub plugin: String,
    /// The version, in its own words.
    pub version: String,
    /// The digest of the component.
    pub digest: Digest,
    /// Its number in the store, if it comes from there.
    pub number: Option<u32>,
    /// What it does.
    pub reason: SpikeReason,
    /// The version that serves again; `None` when there is none, or the owner is to say.
    pub rolled_back_to: Option<String>,
}

/// A version that can take the place of a broken one.
struct Way {
    plugin: Plugin,
    origin: Origin,
}

impl Shared {
    /// The alarm of a version. No lock is held, and no instance.
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
                tracing::error!(plugin = name, version, number, "the plug-in misbehaves: {reason}");
                None
            }
            None => {
                let back = self.roll_back(name, digest);
                match &back {
                    Some(back) => {
                        tracing::error!(
                            plugin = name,
                            version,
                            back,
                            "the plug-in misbehaves, an older version takes over: {reason}"
                        );
                    }
                    None => {
                        tracing::error!(
                            plugin = name,
                            version,
                            "the plug-in misbehaves, and there is no version to go back to: {reason}"
                        );
                    }
                }
                back
            }
        };
        // Not under the lock: it may set another.
        let on_spike = self.on_spike.read().clone();
        if let Some(on_spike) = on_spike {
            on_spike(Spike { plugin: name.to_owned(), version, digest, number, reason, rolled_back_to });
        }
    }

    /// Puts the last good version in the place of a bad one, wherever that serves: its version.
    fn roll_back(self: &Arc<Self>, name: &str, bad: Digest) -> Option<String> {
        let _in_order = self.publishing.lock();
        let mut back = None;
        // A file first: it may have the name too.
        while let Some(way) = self.way_back(name, bad) {
            let version = way.plugin.version().to_owned();
            match self.prepare(&way.plugin, way.origin, Direction::Back) {
                Ok(activation) => drop(activation.commit()),
                Err(error) => {
                    tracing::error!(plugin = name, %error, "the version before cannot take over either");
                    return back;
                }
            }
            back = Some(version);
        }
        back
    }

    /// The next place where a bad version serves, and what is to serve there.
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
