//! The offsets that a group has committed, and when they expire.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::kind::Group;

/// One committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The offset of the next record to consume.
    pub offset: i64,
    /// The leader epoch of the last record consumed; -1 if the client did not send it.
    pub leader_epoch: i32,
    /// The client's text, kept as given.
    pub metadata: Arc<str>,
    /// In milliseconds since the Unix epoch.
    pub commit_timestamp_ms: i64,
    /// When the offset expires whatever the group does. Only clients that send a retention time ask for it
    /// (OffsetCommit up to v4).
    pub expires_ms: Option<i64>,
    /// Nil if the topic was unknown when the offset was committed.
    pub topic_id: Uuid,
    /// The offset of its record in the partition of `__consumer_offsets`. Of two commits the later record wins,
    /// whichever is committed first, so that memory equals a replay of the log.
    pub log_offset: i64,
}

/// The committed offsets of one group, by topic and partition.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    topics: BTreeMap<Arc<str>, BTreeMap<i32, CommittedOffset>>,
    /// The offsets of tombstones that were applied while commits are being written: an earlier commit may be applied
    /// after the tombstone, and must not bring the offset back.
    tombstones: BTreeMap<(Arc<str>, i32), i64>,
    /// The offsets of open transactions, by producer id.
    pending: BTreeMap<i64, Vec<PendingOffset>>,
}

/// An offset that counts once its transaction is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PendingOffset {
    topic: Arc<str>,
    partition: i32,
    committed: CommittedOffset,
}

impl Offsets {
    /// Returns whether there are none, not even in open transactions.
    pub(crate) fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.pending.is_empty()
    }

    /// Adds an offset of an open transaction.
    pub(crate) fn add_pending(
        &mut self,
        producer_id: i64,
        topic: &Arc<str>,
        partition: i32,
        committed: CommittedOffset,
    ) {
        let pending = self.pending.entry(producer_id).or_default();
        pending.push(PendingOffset { topic: Arc::clone(topic), partition, committed });
    }

    /// Ends the transaction of a producer whose marker is at `log_offset`. Later offsets belong to its next one.
    pub(crate) fn end_transaction(&mut self, producer_id: i64, is_commit: bool, log_offset: i64) {
        let Some(pending) = self.pending.remove(&producer_id) else { return };
        let is_ended = |pending: &PendingOffset| pending.committed.log_offset < log_offset;
        let (ended, later): (Vec<_>, Vec<_>) = pending.into_iter().partition(is_ended);
        if !later.is_empty() {
            self.pending.insert(producer_id, later);
        }
        if is_commit {
            ended.into_iter().for_each(|ended| self.apply(&ended.topic, ended.partition, ended.committed));
        }
    }

    /// Returns whether a producer has offsets in an open transaction.
    pub(crate) fn has_pending(&self, producer_id: i64) -> bool {
        self.pending.contains_key(&producer_id)
    }

    /// Returns the partitions with offsets of open transactions.
    pub(crate) fn unstable(&self) -> impl Iterator<Item = (&Arc<str>, i32)> {
        self.pending.values().flatten().map(|pending| (&pending.topic, pending.partition))
    }

    fn is_unstable(&self, topic: &str, partition: i32) -> bool {
        self.unstable().any(|(known, index)| &**known == topic && index == partition)
    }

    /// Applies an offset whose record is committed, unless a later record is known.
    pub(crate) fn apply(&mut self, topic: &Arc<str>, partition: i32, committed: CommittedOffset) {
        let is_deleted = |tombstone: &i64| *tombstone > committed.log_offset;
        // Nearly always there are none.
        if !self.tombstones.is_empty() && self.tombstones.get(&(Arc::clone(topic), partition)).is_some_and(is_deleted) {
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

    /// Removes an offset whose tombstone is at `log_offset`, unless a later record has committed it again.
    pub(crate) fn remove(&mut self, topic: &str, partition: i32, log_offset: i64) {
        self.remove_pending(topic, partition, log_offset);
        let Some(partitions) = self.topics.get_mut(topic) else { return };
        if partitions.get(&partition).is_some_and(|known| known.log_offset < log_offset) {
            partitions.remove(&partition);
        }
        if partitions.is_empty() {
            self.topics.remove(topic);
        }
    }

    /// Removes the offsets of open transactions that are older than a tombstone.
    fn remove_pending(&mut self, topic: &str, partition: i32, log_offset: i64) {
        if self.pending.is_empty() {
            return;
        }
        let is_removed = |pending: &PendingOffset| {
            &*pending.topic == topic && pending.partition == partition && pending.committed.log_offset < log_offset
        };
        self.pending.values_mut().for_each(|pending| pending.retain(|one| !is_removed(one)));
        self.pending.retain(|_, pending| !pending.is_empty());
    }

    /// Removes an offset as [`Self::remove`] does, while earlier commits may still have to be applied.
    pub(crate) fn remove_for_good(&mut self, topic: &Arc<str>, partition: i32, log_offset: i64) {
        let known = self.tombstones.entry((Arc::clone(topic), partition)).or_insert(log_offset);
        *known = log_offset.max(*known);
        self.remove(topic, partition, log_offset);
    }

    /// Forgets the tombstones. For a group without writes in flight: all earlier commits were applied.
    pub(crate) fn forget_tombstones(&mut self) {
        self.tombstones.clear();
    }

    /// Returns all partitions that have offsets, also those of open transactions.
    pub(crate) fn partitions(&self) -> Vec<(Arc<str>, i32)> {
        let of = |(topic, partitions): (&Arc<str>, &BTreeMap<i32, CommittedOffset>)| {
            partitions.keys().map(|partition| (Arc::clone(topic), *partition)).collect::<Vec<_>>()
        };
        let pending = self.unstable().map(|(topic, partition)| (Arc::clone(topic), partition));
        let all: BTreeSet<_> = self.topics.iter().flat_map(of).chain(pending).collect();
        all.into_iter().collect()
    }

    /// Returns the offset committed for a partition.
    pub(crate) fn get(&self, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.topics.get(topic)?.get(&partition)
    }

    /// Returns all offsets by topic.
    pub(crate) fn topics(&self) -> impl Iterator<Item = (&Arc<str>, &BTreeMap<i32, CommittedOffset>)> {
        self.topics.iter()
    }

    /// Returns the partitions of a topic that have offsets.
    pub(crate) fn of_topic(&self, topic: &str) -> Vec<(Arc<str>, i32)> {
        let found = self.topics.get_key_value(topic).into_iter();
        found
            .flat_map(|(topic, partitions)| partitions.keys().map(|partition| (Arc::clone(topic), *partition)))
            .collect()
    }

    /// Returns the offsets that are older than `offsets.retention.minutes` (KIP-211):
    /// - in a group that had members: all, counted from when it became empty;
    /// - in a stable group of consumers: those of topics without a subscription, counted from the commit;
    /// - of consumers that never join: each, counted from its commit;
    /// - in any other group with members: none, since its topics are unknown.
    pub(crate) fn expired(&self, group: &Group, retention_ms: i64, now_wall_ms: i64) -> Vec<(Arc<str>, i32)> {
        let subscribed = if group.lets_offsets_expire() { group.subscribed_topics() } else { None };
        let Some(subscribed) = subscribed else { return Vec::new() };
        let empty_since_ms = group.empty_since_ms();
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
        // An open transaction may be about to commit it again.
        let expired = partitions
            .filter(|(topic, (partition, committed))| is_expired(committed) && !self.is_unstable(topic, **partition));
        expired.map(|(topic, (partition, _))| (Arc::clone(topic), *partition)).collect()
    }
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
    fn offsets_of_a_transaction_count_once_it_is_committed() {
        let topic = Arc::from("t");
        let mut offsets = Offsets::default();
        offsets.apply(&topic, 0, at(5, 1));
        offsets.add_pending(7, &topic, 0, at(10, 2));
        offsets.add_pending(7, &topic, 1, at(11, 3));
        offsets.add_pending(8, &topic, 2, at(12, 4));
        // The next transaction of the same producer.
        offsets.add_pending(7, &topic, 1, at(20, 9));
        assert_eq!(offsets.get("t", 0).map(|known| known.offset), Some(5));
        offsets.end_transaction(8, false, 6);
        offsets.end_transaction(7, true, 8);
        let known = [0, 1, 2].map(|index| offsets.get("t", index).map(|known| known.offset));
        assert_eq!(known, [Some(10), Some(11), None]);
        assert_eq!(offsets.unstable().collect::<Vec<_>>(), [(&topic, 1)]);
        // A plain commit with a later record wins, and a tombstone removes what is pending.
        offsets.add_pending(7, &topic, 0, at(21, 10));
        offsets.apply(&topic, 0, at(30, 11));
        offsets.remove("t", 1, 12);
        offsets.end_transaction(7, true, 13);
        let known = [0, 1].map(|index| offsets.get("t", index).map(|known| known.offset));
        assert_eq!(known, [Some(30), None]);
        assert!(offsets.pending.is_empty());
    }

    #[test]
    fn the_later_record_wins_whatever_is_confirmed_first() {
        let topic = Arc::from("t");
        let mut offsets = Offsets::default();
        offsets.apply(&topic, 0, at(20, 8));
        offsets.apply(&topic, 0, at(10, 7));
        assert_eq!(offsets.get("t", 0).map(|known| known.offset), Some(20));
        offsets.remove("t", 0, 5);
        assert!(offsets.get("t", 0).is_some());
        offsets.remove_for_good(&topic, 0, 10);
        assert!(offsets.is_empty());
        offsets.apply(&topic, 0, at(30, 9));
        assert!(offsets.is_empty(), "an earlier commit that is confirmed after the tombstone");
        offsets.apply(&topic, 0, at(40, 11));
        assert_eq!(offsets.get("t", 0).map(|known| known.offset), Some(40));
        offsets.forget_tombstones();
        assert!(offsets.tombstones.is_empty());
    }
}
