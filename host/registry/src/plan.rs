//! Plans changes: computes the next manifest from the current state. Clients, the broker's watched folder and its
//! automatic rollback all use it.

use millstream_stage::{Digest, Kind};

use crate::error::RegistryError;
use crate::format::{CHUNK_BYTES_MAX, EventKind, Manifest, Version, check_name, reason_of};
use crate::image::PluginImage;

/// A component to store as a version.
#[derive(Debug, Clone, Copy)]
pub struct NewVersion<'a> {
    /// The name in the cluster.
    pub name: &'a str,
    /// Its kind.
    pub kind: Kind,
    /// The SHA-256 of the component.
    pub digest: Digest,
    /// Its size, in bytes.
    pub size: u64,
    /// The version that the plug-in reports.
    pub version: &'a str,
}

/// A planned change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The number of the version; for an activation or rollback, of the one that is active after it.
    pub number: u32,
    /// The manifest to write; `None` if nothing changes.
    pub manifest: Option<Manifest>,
}

/// Splits a component into chunks, in order.
pub fn chunks(component: &[u8]) -> impl ExactSizeIterator<Item = &[u8]> {
    component.chunks(CHUNK_BYTES_MAX)
}

impl PluginImage {
    /// Plans to store a version and, with `activate`, to activate it. Bytes that are a version already are not stored
    /// again.
    ///
    /// # Errors
    /// [`RegistryError`]: the name is invalid, or belongs to another kind.
    pub fn plan_push(
        &self,
        new: NewVersion<'_>,
        activate: bool,
        reason: &str,
        now_ms: i64,
    ) -> Result<Plan, RegistryError> {
        check_name(new.name)?;
        let Some(known) = self.plugin(new.name) else {
            let first = Manifest {
                name: new.name.to_owned(),
                revision: 0,
                kind: new.kind,
                active: 0,
                next: 1,
                versions: Vec::new(),
                history: Vec::new(),
            };
            return Ok(with_version(first, new, activate, reason, now_ms));
        };
        if known.kind != new.kind {
            let (name, have, new) = (new.name.to_owned(), known.kind.name(), new.kind.name());
            return Err(RegistryError::Kind { name, have, new });
        }
        match known.with_digest(&new.digest).map(|version| version.number) {
            Some(number) if !activate => Ok(Plan { number, manifest: None }),
            Some(number) => self.plan_activate(new.name, number, reason, now_ms),
            None => Ok(with_version(Manifest::clone(known), new, activate, reason, now_ms)),
        }
    }

    /// Plans to activate a version; 0 is the one in the binary. A bad version becomes good again.
    ///
    /// # Errors
    /// [`RegistryError`]: there is no such plug-in or version.
    pub fn plan_activate(&self, name: &str, number: u32, reason: &str, now_ms: i64) -> Result<Plan, RegistryError> {
        let known = self.known(name)?;
        if number != 0 && known.version(number).is_none() {
            return Err(no_version(known, number));
        }
        if known.active == number {
            return Ok(Plan { number, manifest: None });
        }
        let mut manifest = next(known);
        activate(&mut manifest, number, EventKind::Activated, reason, now_ms);
        Ok(Plan { number, manifest: Some(manifest) })
    }

    /// Plans to activate the last good version and to mark the active one as bad. `embedded`: whether the binary has a
    /// plug-in of this name, to roll back to before the first version.
    ///
    /// # Errors
    /// [`RegistryError`]: there is no such plug-in, no active version, or no version to roll back to.
    pub fn plan_rollback(&self, name: &str, why: &str, embedded: bool, now_ms: i64) -> Result<Plan, RegistryError> {
        let known = self.known(name)?;
        let active = known.active;
        if active == 0 {
            return Err(RegistryError::Inactive { name: name.to_owned(), known: known.numbers() });
        }
        let Some(number) = good_versions(known).first().copied().or(embedded.then_some(0)) else {
            return Err(RegistryError::NothingBefore { name: name.to_owned(), active, known: known.numbers() });
        };
        Ok(Plan { number, manifest: Some(rolled_back(known, number, why, now_ms)) })
    }

    /// Plans a history entry about a change that was not made. Plans nothing if there is one already, or too many.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`].
    pub fn plan_note(
        &self,
        name: &str,
        event: EventKind,
        number: u32,
        reason: &str,
        now_ms: i64,
    ) -> Result<Plan, RegistryError> {
        let known = self.known(name)?;
        let manifest = known.takes_note(event, number, reason).then(|| {
            let mut manifest = next(known);
            manifest.record(now_ms, event, number, reason);
            manifest
        });
        Ok(Plan { number, manifest })
    }

    /// Plans to delete a version that is not active.
    ///
    /// # Errors
    /// [`RegistryError`]: it does not exist, or is active.
    pub fn plan_delete(&self, name: &str, number: u32, now_ms: i64) -> Result<Plan, RegistryError> {
        let known = self.known(name)?;
        if known.version(number).is_none() {
            return Err(no_version(known, number));
        }
        if known.active == number {
            return Err(RegistryError::Active { name: name.to_owned(), number });
        }
        let mut manifest = next(known);
        manifest.versions.retain(|version| version.number != number);
        manifest.record(now_ms, EventKind::Deleted, number, "");
        Ok(Plan { number, manifest: Some(manifest) })
    }

    /// Returns the plug-in with this name.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`].
    pub fn known(&self, name: &str) -> Result<&Manifest, RegistryError> {
        let unknown = || RegistryError::Unknown { name: name.to_owned(), known: self.names() };
        self.plugin(name).map(|manifest| &**manifest).ok_or_else(unknown)
    }

    /// Returns a version of a plug-in; with `None` the active one.
    ///
    /// # Errors
    /// [`RegistryError`]: there is no such plug-in or version, or none is active.
    pub fn version(&self, name: &str, number: Option<u32>) -> Result<&Version, RegistryError> {
        let known = self.known(name)?;
        match number {
            None if known.active == 0 => Err(RegistryError::Inactive { name: name.to_owned(), known: known.numbers() }),
            number => {
                let number = number.unwrap_or(known.active);
                known.version(number).ok_or_else(|| no_version(known, number))
            }
        }
    }
}

fn no_version(known: &Manifest, wanted: u32) -> RegistryError {
    RegistryError::Version { name: known.name.clone(), wanted, known: known.numbers() }
}

fn next(known: &Manifest) -> Manifest {
    Manifest { revision: known.revision + 1, ..known.clone() }
}

fn with_version(known: Manifest, new: NewVersion<'_>, activate_it: bool, reason: &str, now_ms: i64) -> Plan {
    let mut manifest = next(&known);
    let number = manifest.next;
    manifest.next += 1;
    manifest.versions.push(Version {
        number,
        digest: new.digest,
        size: new.size,
        chunks: new.size.div_ceil(CHUNK_BYTES_MAX as u64) as u32,
        version: new.version.to_owned(),
        pushed_ms: now_ms,
        bad: None,
    });
    manifest.record(now_ms, EventKind::Pushed, number, reason);
    if activate_it {
        activate(&mut manifest, number, EventKind::Activated, reason, now_ms);
    }
    Plan { number, manifest: Some(manifest) }
}

fn activate(manifest: &mut Manifest, number: u32, event: EventKind, reason: &str, now_ms: i64) {
    manifest.active = number;
    if let Some(version) = manifest.versions.iter_mut().find(|version| version.number == number) {
        version.bad = None;
    }
    manifest.record(now_ms, event, number, reason);
}

/// Returns the manifest with version `number` activated and the active version marked as bad.
pub fn rolled_back(known: &Manifest, number: u32, why: &str, now_ms: i64) -> Manifest {
    let mut manifest = next(known);
    if let Some(bad) = manifest.versions.iter_mut().find(|version| version.number == known.active) {
        bad.bad = Some(reason_of(why));
    }
    activate(&mut manifest, number, EventKind::RolledBack, why, now_ms);
    manifest
}

/// Returns the good versions to roll back to from the active one, best first: the previously active ones, most recent
/// first, then the older ones, newest first.
pub fn good_versions(manifest: &Manifest) -> Vec<u32> {
    let is_good = |number: u32| {
        let version = manifest.version(number);
        number != manifest.active && version.is_some_and(|version| version.bad.is_none())
    };
    let served = manifest.history.iter().rev().filter(|event| event.event.is_begin()).map(|event| event.version);
    let older = manifest.versions.iter().rev().map(|version| version.number).filter(|number| *number < manifest.active);
    let mut good = Vec::new();
    for number in served.chain(older) {
        if is_good(number) && !good.contains(&number) {
            good.push(number);
        }
    }
    good
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "region";

    fn new(bytes: &[u8]) -> NewVersion<'_> {
        NewVersion {
            name: NAME,
            kind: Kind::Filter,
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            version: "1.0.0",
        }
    }

    /// Plans and applies, as if the record were in the log.
    fn done(image: &mut PluginImage, plan: Result<Plan, RegistryError>) -> u32 {
        let plan = plan.unwrap();
        if let Some(manifest) = plan.manifest {
            let key = format!("plugin/{NAME}");
            image.apply(0, 0, Some(key.as_bytes()), Some(&manifest.to_bytes())).unwrap();
        }
        plan.number
    }

    fn pushed(versions: u32) -> PluginImage {
        let mut image = PluginImage::default();
        for number in 1..=versions {
            let plan = image.plan_push(new(&[number as u8]), true, "", i64::from(number));
            assert_eq!(done(&mut image, plan), number);
        }
        image
    }

    #[test]
    fn the_same_bytes_are_one_version() {
        let mut image = pushed(2);
        let plan = image.plan_push(new(&[1]), false, "", 9).unwrap();
        assert_eq!(plan, Plan { number: 1, manifest: None });
        let plan = image.plan_push(new(&[1]), true, "", 9);
        assert_eq!(done(&mut image, plan), 1);
        let manifest = image.plugin(NAME).unwrap();
        assert_eq!((manifest.active, manifest.versions.len(), manifest.revision), (1, 2, 3));
        let other = NewVersion { kind: Kind::Compressor, ..new(b"x") };
        assert!(matches!(image.plan_push(other, true, "", 9), Err(RegistryError::Kind { .. })));
        assert!(image.plan_push(NewVersion { name: "a b", ..new(b"x") }, true, "", 9).is_err());
    }

    #[test]
    fn a_version_that_is_only_stored_is_not_active() {
        let mut image = pushed(1);
        let plan = image.plan_push(new(&[2]), false, "", 9);
        assert_eq!(done(&mut image, plan), 2);
        assert_eq!(image.plugin(NAME).unwrap().active, 1);
        assert_eq!(image.version(NAME, None).unwrap().number, 1);
        assert!(matches!(image.plan_activate(NAME, 3, "", 9), Err(RegistryError::Version { wanted: 3, .. })));
        assert!(matches!(image.plan_activate("no", 3, "", 9), Err(RegistryError::Unknown { .. })));
        assert_eq!(image.plan_activate(NAME, 1, "", 9).unwrap().manifest, None);
    }

    #[test]
    fn a_rollback_goes_through_previously_active_good_versions() {
        let mut image = pushed(3);
        let plan = image.plan_activate(NAME, 1, "", 9);
        done(&mut image, plan);
        let plan = image.plan_activate(NAME, 3, "", 9);
        done(&mut image, plan);
        // 1 was active before 3, although 2 is newer.
        let plan = image.plan_rollback(NAME, "traps", false, 10);
        assert_eq!(done(&mut image, plan), 1);
        let manifest = image.plugin(NAME).unwrap();
        assert_eq!(manifest.version(3).unwrap().bad.as_deref(), Some("traps"));
        assert_eq!(manifest.history.last().unwrap().event, EventKind::RolledBack);
        let plan = image.plan_rollback(NAME, "traps", false, 11);
        assert_eq!(done(&mut image, plan), 2);
        assert!(matches!(
            image.plan_rollback(NAME, "x", false, 12),
            Err(RegistryError::NothingBefore { active: 2, .. })
        ));
        let plan = image.plan_rollback(NAME, "x", true, 12);
        assert_eq!(done(&mut image, plan), 0);
        assert!(matches!(image.plan_rollback(NAME, "x", true, 13), Err(RegistryError::Inactive { .. })));
        let plan = image.plan_activate(NAME, 3, "", 14);
        assert_eq!(done(&mut image, plan), 3);
        assert_eq!(image.plugin(NAME).unwrap().version(3).unwrap().bad, None);
    }

    #[test]
    fn older_versions_come_after_previously_active_ones() {
        let mut image = pushed(4);
        for number in [2, 3, 2, 4] {
            let plan = image.plan_activate(NAME, number, "", 9);
            done(&mut image, plan);
        }
        assert_eq!(good_versions(image.plugin(NAME).unwrap()), [2, 3, 1]);
        let plan = image.plan_rollback(NAME, "traps", false, 10);
        assert_eq!(done(&mut image, plan), 2);
        assert_eq!(good_versions(image.plugin(NAME).unwrap()), [3, 1]);
        let mut forgetful = Manifest::clone(image.plugin(NAME).unwrap());
        forgetful.history.clear();
        assert_eq!(good_versions(&forgetful), [1], "not 4, which is bad, nor 3, which is newer");
    }

    #[test]
    fn repeated_notes_are_omitted_and_their_number_is_limited() {
        let mut image = pushed(2);
        let note = |image: &mut PluginImage, event, number, reason: &str| {
            let plan = image.plan_note(NAME, event, number, reason, 9);
            let is_noted = plan.as_ref().is_ok_and(|plan| plan.manifest.is_some());
            done(image, plan);
            is_noted
        };
        assert!(note(&mut image, EventKind::Refused, 3, "a"));
        assert!(note(&mut image, EventKind::Refused, 3, "b"));
        assert!(!note(&mut image, EventKind::Refused, 3, "a"), "even with another one in between");
        assert!(note(&mut image, EventKind::NotRolledBack, 2, "a"));
        let noted = (0..100).filter(|round| note(&mut image, EventKind::Refused, 3, &round.to_string())).count();
        assert_eq!(noted, 7);
        assert_eq!((image.plugin(NAME).unwrap().active, image.plugin(NAME).unwrap().next), (2, 3));
        let plan = image.plan_activate(NAME, 1, "", 9);
        done(&mut image, plan);
        assert!(note(&mut image, EventKind::Refused, 3, "a"), "the manifest has changed since");
        assert!(image.plan_note("other", EventKind::Refused, 1, "a", 9).is_err());
    }

    #[test]
    fn numbers_are_never_reused() {
        let mut image = pushed(2);
        assert!(matches!(image.plan_delete(NAME, 2, 9), Err(RegistryError::Active { number: 2, .. })));
        let plan = image.plan_activate(NAME, 1, "", 9);
        done(&mut image, plan);
        let plan = image.plan_delete(NAME, 2, 9);
        assert_eq!(done(&mut image, plan), 2);
        let plan = image.plan_push(new(b"new"), true, "", 10);
        assert_eq!(done(&mut image, plan), 3);
        assert_eq!(image.plugin(NAME).unwrap().numbers(), "1, 3");
    }
}
