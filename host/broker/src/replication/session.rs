//! The fetch session of a follower with its leader (KIP-227): a request names only the partitions that have changed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use millstream_wire::messages::{FetchPartition, FetchRequest, FetchTopic, ForgottenTopic};
use uuid::Uuid;

use super::PartitionKey;

/// The session of one connection.
#[derive(Debug, Default)]
pub(super) struct FetchSession {
    /// 0 for none.
    id: i32,
    /// The epoch of the next request; 0 begins a session.
    epoch: i32,
    /// What the leader remembers.
    sent: HashMap<PartitionKey, Sent>,
    /// The number of the last request, which tells the partitions that it wants from others.
    request: u64,
}

/// A partition as it was sent last.
#[derive(Debug)]
struct Sent {
    partition: FetchPartition,
    /// The last request that wanted it.
    request: u64,
}

impl FetchSession {
    /// Puts the partitions that are new, changed or no longer wanted into a request.
    pub(super) fn fill(&mut self, request: &mut FetchRequest, wanted: impl Iterator<Item = (Uuid, FetchPartition)>) {
        (request.session_id, request.session_epoch) = (self.id, self.epoch);
        self.request += 1;
        let (number, mut count) = (self.request, 0);
        for (topic_id, partition) in wanted {
            count += 1;
            match self.sent.entry((topic_id, partition.partition)) {
                Entry::Occupied(mut known) => {
                    let known = known.get_mut();
                    known.request = number;
                    if known.partition == partition {
                        continue;
                    }
                    known.partition = partition.clone();
                }
                Entry::Vacant(new) => {
                    new.insert(Sent { partition: partition.clone(), request: number });
                }
            }
            add(&mut request.topics, topic_id, partition);
        }
        if count == self.sent.len() {
            return;
        }
        self.sent.retain(|(topic_id, partition), sent| {
            let is_wanted = sent.request == number;
            if !is_wanted {
                forget(&mut request.forgotten_topics_data, *topic_id, *partition);
            }
            is_wanted
        });
    }

    /// Notes the session of a response.
    pub(super) fn responded(&mut self, id: i32) {
        if id == 0 {
            // The leader has no room for a session, or it has ended. All partitions are named again.
            return self.reset();
        }
        self.id = id;
        self.epoch = self.epoch.checked_add(1).unwrap_or(1);
    }

    /// Begins again: the leader does not know the session any more.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

fn add(topics: &mut Vec<FetchTopic>, topic_id: Uuid, partition: FetchPartition) {
    match topics.last_mut() {
        Some(topic) if topic.topic_id == topic_id => topic.partitions.push(partition),
        _ => topics.push(FetchTopic { topic_id, partitions: vec![partition], ..Default::default() }),
    }
}

fn forget(topics: &mut Vec<ForgottenTopic>, topic_id: Uuid, partition: i32) {
    match topics.iter_mut().find(|topic| topic.topic_id == topic_id) {
        Some(topic) => topic.partitions.push(partition),
        None => topics.push(ForgottenTopic { topic_id, partitions: vec![partition], ..Default::default() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: Uuid = Uuid::from_u128(7);

    fn fill(session: &mut FetchSession, wanted: &[(i32, i64)]) -> (i32, i32, Vec<(i32, i64)>, Vec<i32>) {
        let mut request = FetchRequest::default();
        let wanted = wanted.iter().map(|(partition, fetch_offset)| {
            let partition = *partition;
            (TOPIC, FetchPartition { partition, fetch_offset: *fetch_offset, ..Default::default() })
        });
        session.fill(&mut request, wanted);
        let asked = request.topics.iter().flat_map(|topic| &topic.partitions);
        let asked = asked.map(|one| (one.partition, one.fetch_offset)).collect();
        let forgotten = request.forgotten_topics_data.iter().flat_map(|topic| topic.partitions.clone()).collect();
        (request.session_id, request.session_epoch, asked, forgotten)
    }

    #[test]
    fn only_changes_are_named() {
        let mut session = FetchSession::default();
        assert_eq!(fill(&mut session, &[(0, 1), (1, 1)]), (0, 0, vec![(0, 1), (1, 1)], vec![]));
        session.responded(5);
        assert_eq!(fill(&mut session, &[(0, 1), (1, 2)]), (5, 1, vec![(1, 2)], vec![]));
        session.responded(5);
        assert_eq!(fill(&mut session, &[(1, 2)]), (5, 2, vec![], vec![0]));
        session.responded(5);
        assert_eq!(fill(&mut session, &[(0, 1), (1, 2)]), (5, 3, vec![(0, 1)], vec![]));
        session.reset();
        assert_eq!(fill(&mut session, &[(0, 1)]), (0, 0, vec![(0, 1)], vec![]));
        session.responded(0);
        assert_eq!(fill(&mut session, &[(0, 1)]), (0, 0, vec![(0, 1)], vec![]), "without a session");
    }
}
