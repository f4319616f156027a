//! Compares two manifests of a plug-in: the allowed changes, and what a change requires. Pure.

use millstream_registry::format::{Manifest, Version};
use millstream_stage::Kind;

/// What a new manifest changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transition<'m> {
    /// New versions, whose bytes have to be checked.
    pub(super) added: Vec<&'m Version>,
    /// The numbers of deleted versions, which nothing may need.
    pub(super) removed: Vec<u32>,
    /// The version that becomes active, if that changes.
    pub(super) activated: Option<u32>,
}

/// Why a manifest may not follow another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TransitionError {
    /// Another write came first.
    #[error(
        "plug-in {name} was changed meanwhile: it has revision {known}, and this is revision {new}; read it again and \
         write {}",
        known.saturating_add(1)
    )]
    Revision { name: String, known: u64, new: u64 },
    /// The kind of a plug-in is fixed.
    #[error("plug-in {name} is a {known} and cannot become a {new}")]
    Kind { name: String, known: Kind, new: Kind },
    /// Numbers of versions are never reused.
    #[error("plug-in {name}: next is {known} and cannot become {new}")]
    Next { name: String, known: u32, new: u32 },
    /// A version never changes.
    #[error("version {number} of plug-in {name} is immutable; push another one")]
    Immutable { name: String, number: u32 },
    /// The number belonged to a deleted version.
    #[error("version {number} of plug-in {name} is gone; the next is {next}")]
    Gone { name: String, number: u32, next: u32 },
}

/// Compares the manifest of a plug-in with the next one.
///
/// # Errors
/// The new manifest may not follow.
pub(super) fn transition<'m>(known: Option<&Manifest>, new: &'m Manifest) -> Result<Transition<'m>, TransitionError> {
    let Some(known) = known else {
        // The first record of a backup may have any revision: compaction has removed those before it.
        let activated = (new.active != 0).then_some(new.active);
        return Ok(Transition { added: new.versions.iter().collect(), removed: Vec::new(), activated });
    };
    if known == new {
        return Ok(Transition { added: Vec::new(), removed: Vec::new(), activated: None });
    }
    let name = || new.name.clone();
    if new.revision != known.revision.saturating_add(1) {
        return Err(TransitionError::Revision { name: name(), known: known.revision, new: new.revision });
    }
    if new.kind != known.kind {
        return Err(TransitionError::Kind { name: name(), known: known.kind, new: new.kind });
    }
    if new.next < known.next {
        return Err(TransitionError::Next { name: name(), known: known.next, new: new.next });
    }
    for version in &new.versions {
        match known.version(version.number) {
            Some(before) if !is_same(before, version) => {
                return Err(TransitionError::Immutable { name: name(), number: version.number });
            }
            None if version.number < known.next => {
                return Err(TransitionError::Gone { name: name(), number: version.number, next: known.next });
            }
            _ => {}
        }
    }
    let added = new.versions.iter().filter(|version| known.version(version.number).is_none()).collect();
    let numbers = known.versions.iter().map(|version| version.number);
    let removed = numbers.filter(|number| new.version(*number).is_none()).collect();
    Ok(Transition { added, removed, activated: (new.active != known.active).then_some(new.active) })
}

/// Returns whether a version is unchanged, except for being bad or not.
fn is_same(before: &Version, after: &Version) -> bool {
    let after = Version { bad: before.bad.clone(), ..after.clone() };
    *before == after
}

#[cfg(test)]
mod tests {
    use millstream_stage::Digest;

    use super::*;

    fn version(number: u32) -> Version {
        Version {
            number,
            digest: Digest::of(&number.to_be_bytes()),
            size: 4,
            chunks: 1,
            version: "1".to_owned(),
            pushed_ms: 1,
            bad: None,
        }
    }

    fn manifest(revision: u64, numbers: &[u32], active: u32, next: u32) -> Manifest {
        let versions = numbers.iter().map(|number| version(*number)).collect();
        Manifest { name: "a".to_owned(), revision, kind: Kind::Filter, active, next, versions, history: Vec::new() }
    }

    #[test]
    fn a_first_manifest_may_be_a_backup() {
        let new = manifest(40, &[3, 7], 7, 9);
        let first = transition(None, &new).unwrap();
        assert_eq!((first.added.len(), first.activated), (2, Some(7)));
        assert_eq!(transition(Some(&new), &new).unwrap().added.len(), 0);
    }

    #[test]
    fn a_transition_names_the_added_removed_and_activated_versions() {
        let known = manifest(4, &[1, 2], 2, 3);
        let new = manifest(5, &[2, 3], 3, 4);
        let change = transition(Some(&known), &new).unwrap();
        let added: Vec<u32> = change.added.iter().map(|version| version.number).collect();
        assert_eq!((added, change.removed, change.activated), (vec![3], vec![1], Some(3)));
        let mut bad = manifest(5, &[1, 2], 1, 3);
        bad.versions[1].bad = Some("traps".to_owned());
        assert_eq!(transition(Some(&known), &bad).unwrap().activated, Some(1));
    }

    #[test]
    fn forbidden_changes_of_a_manifest_are_rejected() {
        let known = manifest(4, &[1, 2], 2, 4);
        let refused = |change: fn(&mut Manifest)| {
            let mut new = manifest(5, &[1, 2], 2, 4);
            change(&mut new);
            transition(Some(&known), &new).unwrap_err().to_string()
        };
        assert!(refused(|m| m.revision = 6).contains("changed meanwhile"));
        assert!(refused(|m| m.revision = 3).contains("changed meanwhile"));
        assert!(refused(|m| m.kind = Kind::Compressor).contains("cannot become"));
        assert!(refused(|m| m.next = 3).contains("next is 4"));
        assert!(refused(|m| m.versions[0].digest = Digest::of(b"other")).contains("immutable"));
        assert!(refused(|m| m.versions.push(version(3))).contains("is gone"));
    }
}
