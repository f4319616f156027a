//! Compares what readers of committed records see with the source and the committed offsets.

use std::collections::{BTreeMap, BTreeSet};

use super::attempt;
use super::connection::Nodes;
use super::copier::Task;
use super::reader::{committed, read_all};
use super::{Copy, LETTERS, SOURCE, TARGETS, Target};
use crate::checker::{Broken, Promise};

/// What a comparison has found.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// The records that are copied, and those of them that the target's stage has rejected.
    pub(super) copied: usize,
    pub(super) rejected: usize,
    /// The batches whose dead letters were written more than once: attempts, and partitions of the target.
    pub(super) repeated: BTreeSet<(String, i32)>,
    pub(super) broken: Vec<Broken>,
}

impl Compared {
    fn note(&mut self, promise: Promise, what: String) {
        self.broken.push(Broken::new(promise, what));
    }

    /// Compares the copies of one record: each copy is wanted once, and all in `topic`.
    fn compare_one(&mut self, place: &str, copies: &[&Copy], topic: &str) {
        let attempts: BTreeSet<&str> = copies.iter().map(|copy| attempt::parse(&copy.value).1).collect();
        if attempts.len() != 1 || copies.iter().any(|copy| copy.topic != topic) {
            self.note(Promise::Atomic, format!("{place} is not copied by one transaction to {topic}: {copies:?}"));
        } else if let [first, _, ..] = copies {
            match topic {
                LETTERS => drop(self.repeated.insert((attempts.into_iter().collect(), first.partition))),
                _ => self.note(Promise::Atomic, format!("{place} is copied {} times: {copies:?}", copies.len())),
            }
        }
    }
}

/// Compares the copies with the source and the offsets of the copiers. `seen` is what readers have seen meanwhile.
pub(super) async fn compare(bootstrap: &str, target: Target, tasks: &[Task], seen: &BTreeSet<Copy>) -> Compared {
    let (mut nodes, mut compared) = (Nodes::new(bootstrap), Compared::default());
    let mut visible = BTreeSet::new();
    for topic in target.topics() {
        for partition in 0..TARGETS {
            let copies = read_all(&mut nodes, topic, partition).await.into_iter();
            visible.extend(copies.map(|(offset, value)| Copy { topic, partition, offset, value }));
        }
    }
    for unreal in seen.difference(&visible) {
        let what = format!("a reader of committed records has seen {unreal:?}, which is not committed");
        compared.note(Promise::CommittedOnly, what);
    }
    let mut found = BTreeMap::<&str, Vec<&Copy>>::new();
    for copy in &visible {
        let (value, attempt) = attempt::parse(&copy.value);
        if attempt::is_aborted(attempt) {
            compared.note(Promise::CommittedOnly, format!("{copy:?} is visible, though it was never to be committed"));
        }
        found.entry(value).or_default().push(copy);
    }
    for task in tasks {
        let offset = committed(&mut nodes, &task.name(), SOURCE, task.partition).await;
        for (at, value) in read_all(&mut nodes, SOURCE, task.partition).await {
            let copies = found.remove(&*value).unwrap_or_default();
            let place = format!("{value:?} at offset {at} of partition {}", task.partition);
            if at < offset {
                let topic = target.of(&value);
                compared.copied += 1;
                compared.rejected += usize::from(topic == LETTERS);
                compared.compare_one(&place, &copies, topic);
            } else if !copies.is_empty() {
                let what = format!("{place} is copied, though the committed offset is {offset}: {copies:?}");
                compared.note(Promise::Atomic, what);
            }
        }
    }
    assert!(found.is_empty(), "copies of nothing: {found:?}");
    compared
}
