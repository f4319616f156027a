//! The offsets that a group has committed, and when they expire.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use millstream_wire::Str;
use millstream_wire::codec::{Versioned, from_bytes};
use millstream_wire::records::ConsumerProtocolSubscription;
use uuid::Uuid;

use super::state::{Group, GroupState};

/// One committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommittedOffset {
    pub(crate) offset: i64,
    /// Of the last record consumed; -1 if the client did not say.
    pub(crate) leader_epoch: i32,
    /// The client's own words, kept as given.
    pub(crate) metadata: Arc<str>,
    /// In milliseconds since the Unix epoch.
    pub(crate) commit_timestamp_ms: i64,
    /// When it expires whatever the group does: only clients that send a retention time (OffsetCommit up to v4) ask for it.
    pub(crate) expires_ms: Option<i64>,
    /// Nil if the topic was not known when the offset was committed.
    pub(crate) topic_id: Uuid,
    /// Where its record lies in the partition of `__consumer_offsets`. Of two commits the later record wins, whichever of them
    /// is confirmed first, so that memory says what a replay of the log would say.
    pub(crate) log_offset: i64,
}

/// The committed offsets of one group, by topic and partition.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    topics: BTreeMap<Arc<str>, BTreeMap<i32, CommittedOffset>>,
    /// Where in the log the tombstones lie that were written while commits were under way: a commit before its tombstone
    /// is void, although it is confirmed later.
    tombstones: BTreeMap<(Arc<str>, i32), i64>,
    /// As `tombstones`, for the tombstone of the whole group.
    all_removed_at: Option<i64>,
}

impl Offsets {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Takes over an offset whose record is durable, unless a later record is known.
    pub(crate) fn apply(&mut self, topic: &Arc<str>, partition: i32, committed: CommittedOffset) {
        let tombstone = self.tombstones.get(&(Arc::clone(topic), partition)).copied().max(self.all_removed_at);
        if tombstone.is_some_and(|at| committed.log_offset < at) {
            return;
        }
        let partitions = match self.topics.get_mut(topic) {
            Some(partitions) => partitions,
            None => self.topics.entry(Arc::clone(topic)).or_default(),
        };
        match partitions.get(&partition) {
            Some(known) if known.log_offset > committed.log_offset => {}
            _ => _ = partitions.insert(partition, committed),
        }
    }

    /// Removes an offset whose tombstone lies at `log_offset`, unless it was committed again after that. Keeps the
    /// tombstone in mind if commits are under way.
    pub(crate) fn remove(&mut self, topic: &Arc<str>, partition: i32, log_offset: i64, commits_under_way: bool) {
        if commits_under_way {
            self.tombstones.insert((Arc::clone(topic), partition), log_offset);
        }
        let Some(partitions) = self.topics.get_mut(topic) else { return };
        if partitions.get(&partition).is_some_and(|known| known.log_offset < log_offset) {
            partitions.remove(&partition);
        }
        if partitions.is_empty() {
            self.topics.remove(topic);
        }
    }

    /// Removes everything: the tombstone of the group lies at `log_offset`.
    pub(crate) fn removed_all(&mut self, log_offset: i64) {
        self.topics.clear();
        self.all_removed_at = Some(log_offset);
    }

    /// Forgets the tombstones: no commit is under way any more.
    pub(crate) fn forget_tombstones(&mut self) {
        self.tombstones.clear();
        self.all_removed_at = None;
    }

    /// Returns every partition that has an offset.
    pub(crate) fn partitions(&self) -> Vec<(Arc<str>, i32)> {
        let of = |(topic, partitions): (&Arc<str>, &BTreeMap<i32, CommittedOffset>)| {
            partitions.keys().map(|&partition| (Arc::clone(topic), partition)).collect::<Vec<_>>()
        };
        self.topics.iter().flat_map(of).collect()
    }

    /// The offset committed for a partition.
    pub(crate) fn get(&self, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.topics.get(topic)?.get(&partition)
    }

    /// All offsets, topic by topic.
    pub(crate) fn topics(&self) -> impl Iterator<Item = (&Arc<str>, &BTreeMap<i32, CommittedOffset>)> {
        self.topics.iter()
    }

    /// The partitions of a topic that have offsets.
    pub(crate) fn of_topic(&self, topic: &str) -> Vec<(Arc<str>, i32)> {
        let found = self.topics.get_key_value(topic).into_iter();
        found
            .flat_map(|(topic, partitions)| partitions.keys().map(|partition| (Arc::clone(topic), *partition)))
            .collect()
    }

    /// The offsets that have outlived `offsets.retention.minutes` (KIP-211):
    /// - a group that had members: all, counted from when it became empty;
    /// - a group of consumers at work: those of topics that nobody subscribes to, counted from the commit;
    /// - simple consumers, who never join: each, counted from its commit;
    /// - any other group with members: none, since what it reads is not known.
    pub(crate) fn expired(&self, group: &Group, retention_ms: i64, now_wall_ms: i64) -> Vec<(Arc<str>, i32)> {
        let subscribed = match (group.protocol_type(), group.state()) {
            (None, _) | (Some(_), GroupState::Empty) => Some(BTreeSet::new()),
            (Some(_), GroupState::Stable) => group.subscribed_topics(),
            _ => None,
        };
        let Some(subscribed) = subscribed else { return Vec::new() };
        let empty_since_ms =
            group.protocol_type().filter(|_| group.state() == GroupState::Empty).map(|_| group.state_since_ms());
        let is_expired = |committed: &CommittedOffset| match committed.expires_ms {
            Some(expires_ms) => expires_ms <= now_wall_ms,
            None => {
                let counted_from_ms = empty_since_ms
                    .map_or(committed.commit_timestamp_ms, |since| since.max(committed.commit_timestamp_ms));
                now_wall_ms.saturating_sub(counted_from_ms) >= retention_ms
            }
        };
        let unsubscribed = self.topics.iter().filter(|(topic, _)| !subscribed.contains(&***topic));
        let partitions =
            unsubscribed.flat_map(|(topic, partitions)| partitions.iter().map(move |entry| (topic, entry)));
        let expired = partitions.filter(|(_, (_, committed))| is_expired(committed));
        expired.map(|(topic, (partition, _))| (Arc::clone(topic), *partition)).collect()
    }
}

impl Group {
    /// The topics that the members of a stable group of consumers subscribe to; `None` if they cannot be told.
    pub(crate) fn subscribed_topics(&self) -> Option<BTreeSet<Str>> {
        if self.protocol_type().map(|kind| &**kind) != Some("consumer") {
            return None;
        }
        let mut topics = BTreeSet::new();
        for member in self.describe_members() {
            topics.extend(parse_subscription(&member.subscription)?);
        }
        Some(topics)
    }
}

/// The topics of a consumer's subscription. Later versions only add fields, so that what is newer than we know is read as the
/// newest that we know.
fn parse_subscription(bytes: &Bytes) -> Option<Vec<Str>> {
    let newest = <ConsumerProtocolSubscription as Versioned>::VERSIONS.end();
    let (version, _) = bytes.split_first_chunk()?;
    let version = i16::from_be_bytes(*version).min(*newest);
    Some(from_bytes::<ConsumerProtocolSubscription>(bytes.slice(2..), version).ok()?.topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64, log_offset: i64) -> CommittedOffset {
        CommittedOffset {
            offset,
            leader_epoch: -1,
            metadata: Arc::from(""),
            commit_timestamp_ms: 1_000,
            expires_ms: None,
            topic_id: Uuid::nil(),
            log_offset,
        }
    }

    #[test]
    fn the_later_record_wins_whatever_is_confirmed_first() {
        let topic = Arc::from("t");
        let mut offsets = Offsets::default();
        offsets.apply(&topic, 0, at(20, 8));
        offsets.apply(&topic, 0, at(10, 7));
        assert_eq!(offsets.get("t", 0).map(|known| known.offset), Some(20));
        offsets.remove(&topic, 0, 5, false);
        assert!(offsets.get("t", 0).is_some());
        offsets.remove(&topic, 0, 9, false);
        assert!(offsets.is_empty());
    }

    #[test]
    fn a_commit_that_is_confirmed_after_its_tombstone_is_void() {
        let topic = Arc::from("t");
        let mut offsets = Offsets::default();
        offsets.remove(&topic, 0, 9, true);
        offsets.apply(&topic, 0, at(10, 8));
        assert!(offsets.is_empty());
        offsets.apply(&topic, 0, at(20, 10));
        offsets.apply(&topic, 1, at(30, 8));
        assert_eq!(offsets.partitions().len(), 2);
        offsets.removed_all(12);
        offsets.apply(&topic, 1, at(40, 11));
        assert!(offsets.is_empty());
        offsets.forget_tombstones();
        offsets.apply(&topic, 1, at(40, 11));
        assert_eq!(offsets.get("t", 1).map(|known| known.offset), Some(40));
    }

    #[test]
    fn a_subscription_is_parsed_and_a_broken_one_is_not() {
        let good = Bytes::from_static(&[0, 0, 0, 0, 0, 2, 0, 1, b'a', 0, 2, b'b', b'c', 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(parse_subscription(&good), Some(vec![Str::from("a"), Str::from("bc")]));
        assert_eq!(parse_subscription(&good.slice(..10)), None);
        assert_eq!(parse_subscription(&Bytes::new()), None);
        assert_eq!(parse_subscription(&Bytes::from_static(&[0, 1, 0x7f, 0xff, 0xff, 0xff, 0, 1, b'a'])), None);
    }
}
