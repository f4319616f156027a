//! From one manifest of a plug-in to the next: what may change, and what that asks for. Pure.

use millstream_registry::format::{Manifest, Version};

/// What a new manifest changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transition<'m> {
    /// Versions that were not there: their bytes are to be checked.
    pub(super) added: Vec<&'m Version>,
    /// The numbers of versions that go: nothing may need them.
    pub(super) removed: Vec<u32>,
    /// The version that is to serve, if that is another one than now.
    pub(super) activated: Option<u32>,
}

/// Compares what is known of a plug-in with what is to be known.
///
/// # Errors
/// What may not change, and what to do.
pub(super) fn transition<'m>(known: Option<&Manifest>, new: &'m Manifest) -> Result<Transition<'m>, String> {
    let Some(known) = known else {
        // The first record of a backup may be of any revision: compaction has removed those before it.
        let activated = (new.active != 0).then_some(new.active);
        return Ok(Transition { added: new.versions.iter().collect(), removed: Vec::new(), activated });
    };
    if known == new {
        return Ok(Transition { added: Vec::new(), removed: Vec::new(), activated: None });
    }
    if new.revision != known.revision.saturating_add(1) {
        return Err(format!(
            "plug-in {} was changed meanwhile: it has revision {}, and this is revision {}; read it again and write {}",
            new.name,
            known.revision,
            new.revision,
            known.revision.saturating_add(1)
        ));
    }
    if new.kind != known.kind {
        return Err(format!("plug-in {} is a {} and cannot become a {}", new.name, known.kind, new.kind));
    }
    if new.next < known.next {
        return Err(format!("plug-in {}: next is {} and cannot become {}", new.name, known.next, new.next));
    }
    for version in &new.versions {
        match known.version(version.number) {
            Some(before) if !is_same(before, version) => {
                return Err(format!(
                    "version {} of plug-in {} is immutable; push another one",
                    version.number, new.name
                ));
            }
            None if version.number < known.next => {
                return Err(format!(
                    "version {} of plug-in {} is gone; the next is {}",
                    version.number, new.name, known.next
                ));
            }
            _ => {}
        }
    }
    let added = new.versions.iter().filter(|version| known.version(version.number).is_none()).collect();
    let numbers = known.versions.iter().map(|version| version.number);
    let removed = numbers.filter(|number| new.version(*number).is_none()).collect();
    Ok(Transition { added, removed, activated: (new.active != known.active).then_some(new.active) })
}

/// Whether a version is as it was, but for being bad or not.
fn is_same(before: &Version, after: &Version) -> bool {
    let after = Version { bad: before.bad.clone(), ..after.clone() };
    *before == after
}

#[cfg(test)]
mod tests {
    use millstream_stage::{Digest, Kind};

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
    fn what_is_added_removed_and_activated_is_told() {
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
    fn what_may_not_change_is_refused() {
        let known = manifest(4, &[1, 2], 2, 4);
        let refused = |change: fn(&mut Manifest)| {
            let mut new = manifest(5, &[1, 2], 2, 4);
            change(&mut new);
            transition(Some(&known), &new).unwrap_err()
        };
        assert!(refused(|m| m.revision = 6).contains("changed meanwhile"));
        assert!(refused(|m| m.revision = 3).contains("changed meanwhile"));
        assert!(refused(|m| m.kind = Kind::Compressor).contains("cannot become"));
        assert!(refused(|m| m.next = 3).contains("next is 4"));
        assert!(refused(|m| m.versions[0].digest = Digest::of(b"other")).contains("immutable"));
        assert!(refused(|m| m.versions.push(version(3))).contains("is gone"));
    }
}
