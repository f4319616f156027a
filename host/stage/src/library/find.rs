//! Finds the plug-in of a name, a pinned version or a file.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::state::{Direction, Entry, Follows};
use super::{Library, Origin, Shared, absolute};
use crate::error::{LoadError, PublishError, ResolveError};
use crate::plugin::{DescriptionError, Digest, Plugin};
use crate::source::{EMBEDDED_NUMBER, VersionSource};
use crate::spec::Source;

impl Library {
    /// Returns every name, in order.
    pub fn names(&self) -> Vec<String> {
        self.shared.names()
    }

    /// Loads and returns every plug-in with its origin; the versions of a name from old to new. Of stored versions, it
    /// returns those that were used so far.
    ///
    /// # Errors
    /// [`ResolveError::Load`] for the first that cannot be loaded.
    pub fn list(&self) -> Result<Vec<(Origin, Plugin)>, ResolveError> {
        let entries: Vec<(String, Entry)> = {
            let state = self.shared.state.lock();
            let all = state.plugins.iter();
            all.flat_map(|(name, versions)| versions.entries.iter().map(|entry| (name.clone(), entry.clone())))
                .filter(|(_, entry)| !entry.is_replaced)
                .collect()
        };
        entries
            .into_iter()
            .map(|(name, entry)| Ok((entry.origin.clone(), self.shared.entry_plugin(&name, &entry)?)))
            .collect()
    }

    /// Returns a numbered version of the store, or the one that is part of the program for [`EMBEDDED_NUMBER`].
    ///
    /// # Errors
    /// [`ResolveError`] when there is none, or it cannot be loaded.
    pub fn version(&self, name: &str, number: u32) -> Result<Plugin, ResolveError> {
        self.shared.numbered(name, number)
    }

    /// Returns the plug-in with this digest, or `None` if it is not known.
    ///
    /// # Errors
    /// [`ResolveError`] when it cannot be loaded.
    pub fn by_digest(&self, digest: &Digest) -> Result<Option<Plugin>, ResolveError> {
        let known = {
            let state = self.shared.state.lock();
            let all = state
                .plugins
                .iter()
                .flat_map(|(name, versions)| versions.entries.iter().map(move |entry| (name, entry)));
            let mut current = all.filter(|(_, entry)| !entry.is_replaced);
            current.find(|(_, entry)| entry.has(*digest)).map(|(name, entry)| (name.clone(), entry.clone()))
        };
        if let Some((name, entry)) = known {
            return self.shared.entry_plugin(&name, &entry).map(Some);
        }
        let Some(source) = self.shared.source() else { return Ok(None) };
        for name in source.names() {
            let found = source.versions(&name).into_iter().find(|(_, stored)| stored == digest);
            if let Some((number, _)) = found {
                return self.version(&name, number).map(Some);
            }
        }
        Ok(None)
    }

    pub(super) fn find(&self, source: &Source) -> Result<(Plugin, Follows), ResolveError> {
        match source {
            Source::Name { name, version: None } => Ok((self.shared.active(name)?, Follows::Name(name.clone()))),
            Source::Name { name, version: Some(version) } => Ok((self.shared.pinned(name, version)?, Follows::Nothing)),
            Source::File(path) => {
                let failed = |source| ResolveError::Load { plugin: path.display().to_string(), source };
                self.find_file(path).map_err(failed)
            }
        }
    }

    fn find_file(&self, path: &Path) -> Result<(Plugin, Follows), LoadError> {
        let path = absolute(path)?;
        // Followed even if it does not load: a stage may be started from it later.
        self.shared.state.lock().want(&path, Instant::now());
        match self.reload(&path) {
            // If a live stage rejects the file, the version before stays in use.
            Ok(_) | Err(PublishError::Refused(_)) => {}
            Err(PublishError::Load(error)) => return Err(error),
        }
        let known = self.shared.state.lock().files.get(&path).map(|file| file.active.clone());
        let plugin =
            known.ok_or_else(|| LoadError::Read { path: path.clone(), source: io::ErrorKind::NotFound.into() })?;
        Ok((plugin, Follows::File(path)))
    }
}

impl Shared {
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.state.lock().plugins.keys().cloned().collect();
        if let Some(source) = self.source() {
            // A plug-in without versions has only a history.
            names.extend(source.names().into_iter().filter(|name| !source.versions(name).is_empty()));
        }
        names.sort();
        names.dedup();
        names
    }

    fn source(&self) -> Option<Arc<dyn VersionSource>> {
        self.source.read().clone()
    }

    /// Returns the version for stages that follow `name`.
    fn active(self: &Arc<Self>, name: &str) -> Result<Plugin, ResolveError> {
        let active = self.state.lock().plugins.get(name).and_then(|versions| versions.active().cloned());
        // A version that was activated here is the newest. If there is none, the store decides.
        let stored = match active.as_ref().map(|entry| &entry.origin) {
            None | Some(Origin::Embedded) => self.source().and_then(|source| source.active(name)),
            Some(_) => None,
        };
        match (stored, active) {
            (Some(number), _) if number != EMBEDDED_NUMBER => {
                let plugin = self.numbered(name, number)?;
                self.begin_with(&plugin, number);
                Ok(plugin)
            }
            (_, Some(entry)) => self.entry_plugin(name, &entry),
            (_, None) => Err(self.nothing_serves(name)),
        }
    }

    /// Returns the error for a name that has no active version.
    fn nothing_serves(&self, name: &str) -> ResolveError {
        let newest = self.source().and_then(|source| source.versions(name).last().map(|(number, _)| *number));
        match newest {
            Some(known) => ResolveError::Inactive { name: name.to_owned(), known },
            None => ResolveError::Unknown { name: name.to_owned(), known: self.names().join(", ") },
        }
    }

    /// Activates the store's active version, which is used for the first time, unless another was activated meanwhile.
    fn begin_with(&self, plugin: &Plugin, number: u32) {
        let mut state = self.state.lock();
        let active = state.plugins.get(plugin.name()).and_then(|versions| versions.active());
        if active.is_none_or(|entry| entry.origin == Origin::Embedded) {
            state.activate(plugin, &Origin::Store { number }, Direction::Forward, true);
        }
    }

    /// Returns the version that `wanted` means: a number of the store, or the leading numbers of a version text.
    fn pinned(self: &Arc<Self>, name: &str, wanted: &str) -> Result<Plugin, ResolveError> {
        let entries = {
            let state = self.state.lock();
            state.plugins.get(name).map(|versions| versions.entries.clone()).unwrap_or_default()
        };
        if let Ok(number) = wanted.parse()
            && self.is_numbered(name, number, &entries)
        {
            return self.numbered(name, number);
        }
        if entries.is_empty() && self.source().is_none_or(|source| source.versions(name).is_empty()) {
            return Err(ResolveError::Unknown { name: name.to_owned(), known: self.names().join(", ") });
        }
        let mut known = Vec::new();
        for entry in entries.iter().rev().filter(|entry| !entry.is_replaced) {
            let plugin = self.entry_plugin(name, entry)?;
            if is_version(plugin.version(), wanted) {
                return Ok(plugin);
            }
            known.push(plugin.version().to_owned());
        }
        let stored = self.source().map(|source| source.versions(name)).unwrap_or_default();
        known.extend(stored.iter().map(|(number, _)| number.to_string()));
        Err(no_version(name, wanted, known))
    }

    /// Returns whether a pinned `number` is a number of the store. It also is if the store does not have it yet, so
    /// that a pin keeps its meaning when it is stored later.
    fn is_numbered(&self, name: &str, number: u32, entries: &[Entry]) -> bool {
        if number == EMBEDDED_NUMBER {
            return entries.iter().any(|entry| entry.origin == Origin::Embedded);
        }
        let is_stored = |entry: &Entry| matches!(entry.origin, Origin::Store { .. });
        entries.iter().any(is_stored) || self.source().is_some_and(|source| !source.versions(name).is_empty())
    }

    fn numbered(self: &Arc<Self>, name: &str, number: u32) -> Result<Plugin, ResolveError> {
        let entry = {
            let state = self.state.lock();
            let versions = state.plugins.get(name);
            versions.and_then(|versions| match number {
                EMBEDDED_NUMBER => versions.embedded().cloned(),
                number => versions.stored(number).cloned(),
            })
        };
        if let Some(entry) = entry {
            return self.entry_plugin(name, &entry);
        }
        let failed = |source| ResolveError::Load { plugin: format!("{name}@{number}"), source };
        let source = self.source();
        let versions = source.as_ref().map(|source| source.versions(name)).unwrap_or_default();
        let found = versions.iter().find(|(stored, _)| *stored == number).zip(source);
        let Some(((_, digest), source)) = found else {
            let mut known: Vec<String> = versions.iter().map(|(number, _)| number.to_string()).collect();
            known.extend(self.stored_numbers(name));
            return Err(no_version(name, &number.to_string(), known));
        };
        if let Some(plugin) = self.loaded(name, *digest) {
            plugin.health().set_number(number);
            return Ok(plugin);
        }
        let bytes = source.bytes(name, number).map_err(|error| failed(LoadError::Fetch(error)))?;
        let have = Digest::of(&bytes);
        if have != *digest {
            return Err(failed(LoadError::Digest { have: have.to_string(), want: digest.to_string() }));
        }
        let plugin = self.load(Some(name), &bytes).map_err(failed)?;
        plugin.health().set_number(number);
        Ok(plugin)
    }

    fn stored_numbers(&self, name: &str) -> Vec<String> {
        let state = self.state.lock();
        let entries = state.plugins.get(name).into_iter().flat_map(|versions| &versions.entries);
        entries.filter_map(|entry| entry.origin.number()).map(|number| number.to_string()).collect()
    }

    /// Returns the plug-in of an entry, and loads it if necessary.
    pub(super) fn entry_plugin(self: &Arc<Self>, name: &str, entry: &Entry) -> Result<Plugin, ResolveError> {
        let failed = |source| ResolveError::Load { plugin: name.to_owned(), source };
        let mut loaded = entry.code.plugin.lock();
        if let Some(plugin) = &*loaded {
            return Ok(plugin.clone());
        }
        let plugin = self.load_part(name, &entry.code).map_err(failed)?;
        let own = &plugin.description().name;
        if own != name {
            return Err(failed(LoadError::Description(DescriptionError::OtherName(own.clone()))));
        }
        *loaded = Some(plugin.clone());
        if let Some(number) = entry.origin.number() {
            plugin.health().set_number(number);
        }
        Ok(plugin)
    }
}

fn no_version(name: &str, wanted: &str, mut known: Vec<String>) -> ResolveError {
    known.sort();
    known.dedup();
    ResolveError::Version { name: name.to_owned(), wanted: wanted.to_owned(), known: known.join(", ") }
}

/// Returns whether `wanted` means a version: it is the same, or continues after a dot.
fn is_version(version: &str, wanted: &str) -> bool {
    version.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_pinned_by_its_leading_numbers() {
        assert!(is_version("3.1.4", "3"));
        assert!(is_version("3.1.4", "3.1"));
        assert!(is_version("3.1.4", "3.1.4"));
        assert!(!is_version("3.1.4", "3.1.4.1"));
        assert!(!is_version("31.4", "3"));
        assert!(!is_version("2.3", "3"));
    }
}
