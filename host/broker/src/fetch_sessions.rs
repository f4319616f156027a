//! Fetch sessions (KIP-227): the broker remembers the partitions of a consumer or a follower, which then names only
//! changes. A response has only the partitions with news.
//!
//! A client that gets no session, since there are too many, gets id 0 and names all partitions each time.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::time::Duration;

use millstream_wire::messages::{FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData};
use millstream_wire::{ErrorCode, Str};
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

/// No session.
const NO_SESSION: i32 = 0;

/// The epoch of a request that names all partitions and wants a session.
const INITIAL_EPOCH: i32 = 0;

/// The epoch of a request that ends its session, or wants none.
const FINAL_EPOCH: i32 = -1;

/// A session that was not used for this long gives its slot to another one, as in Kafka.
const IDLE_AFTER: Duration = Duration::from_secs(120);

/// The most partitions of all sessions together. A client beyond it works without a session.
const PARTITIONS_MAX: usize = 2_000_000;

/// The sessions of a broker.
#[derive(Debug)]
pub(crate) struct FetchSessions {
    /// `max.incremental.fetch.session.cache.slots`
    slots: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    sessions: BTreeMap<i32, Session>,
    /// The partitions of all of them.
    partitions: usize,
}

/// A partition by its topic's id or, from an old client, by its name with the nil id, and by its number.
type Key = (Str, Uuid, i32);

#[derive(Debug)]
struct Session {
    /// The epoch of the next request.
    epoch: i32,
    partitions: BTreeMap<Key, Remembered>,
    /// The partition with the last records. The next pass begins behind it, so that each gets its turn.
    served: Option<Key>,
    used: Instant,
    is_follower: bool,
}

#[derive(Debug)]
struct Remembered {
    asked: FetchPartition,
    /// The high watermark and the log start that the client knows.
    known: Option<(i64, i64)>,
}

/// The session of one request.
#[derive(Debug)]
pub(crate) struct SessionUse {
    sessions: Arc<FetchSessions>,
    id: i32,
    /// Whether the response leaves out partitions without news.
    is_incremental: bool,
}

impl FetchSessions {
    pub(crate) fn new(slots: usize) -> Arc<Self> {
        Arc::new(Self { slots, inner: Mutex::default() })
    }

    /// Finds or begins the session of a request. A request of a session gets all its partitions.
    ///
    /// # Errors
    /// The session is not known, or the epoch is not the next one.
    pub(crate) fn open(self: &Arc<Self>, request: &mut FetchRequest) -> Result<Option<SessionUse>, ErrorCode> {
        let (id, epoch) = (request.session_id, request.session_epoch);
        let mut inner = self.inner.lock();
        if epoch == FINAL_EPOCH || epoch == INITIAL_EPOCH {
            inner.remove(id);
            if epoch == FINAL_EPOCH || !inner.has_room(self.slots, request) {
                return Ok(None);
            }
            let id = inner.begin(request);
            return Ok(Some(SessionUse { sessions: Arc::clone(self), id, is_incremental: false }));
        }
        let Inner { sessions, partitions } = &mut *inner;
        let session = sessions.get_mut(&id).ok_or(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)?;
        if session.epoch != epoch {
            return Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH);
        }
        *partitions -= session.partitions.len();
        session.change(request);
        *partitions += session.partitions.len();
        request.topics = session.topics();
        if session.partitions.is_empty() {
            inner.remove(id);
            return Ok(None);
        }
        Ok(Some(SessionUse { sessions: Arc::clone(self), id, is_incremental: true }))
    }
}

impl Inner {
    fn remove(&mut self, id: i32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.partitions -= session.partitions.len();
        }
    }

    /// Returns whether there is a slot for a new session, after taking one from a session that is idle. A follower also
    /// takes one from a consumer.
    fn has_room(&mut self, slots: usize, request: &FetchRequest) -> bool {
        let count: usize = request.topics.iter().map(|topic| topic.partitions.len()).sum();
        if count == 0 || self.partitions + count > PARTITIONS_MAX {
            return false;
        }
        if self.sessions.len() < slots {
            return true;
        }
        let is_follower = request.replica().replica_id >= 0;
        let takes = |one: &Session| one.used.elapsed() >= IDLE_AFTER || (is_follower && !one.is_follower);
        let oldest = self.sessions.iter().filter(|(_, one)| takes(one)).min_by_key(|(_, one)| one.used);
        let Some(id) = oldest.map(|(id, _)| *id) else { return false };
        self.remove(id);
        true
    }

    /// Begins a session with the partitions of a request. Returns its id.
    fn begin(&mut self, request: &FetchRequest) -> i32 {
        let id = loop {
            // Random, so that a client of a broker that has restarted does not meet the session of another one.
            let id = i32::from_be_bytes(Uuid::new_v4().as_bytes()[..4].try_into().unwrap_or_default()) & i32::MAX;
            if id != NO_SESSION && !self.sessions.contains_key(&id) {
                break id;
            }
        };
        let mut session = Session {
            epoch: INITIAL_EPOCH,
            partitions: BTreeMap::new(),
            served: None,
            used: Instant::now(),
            is_follower: request.replica().replica_id >= 0,
        };
        session.change(request);
        self.partitions += session.partitions.len();
        self.sessions.insert(id, session);
        id
    }
}

impl Session {
    /// Takes the partitions that a request names, and forgets those that it no longer wants.
    fn change(&mut self, request: &FetchRequest) {
        for topic in &request.forgotten_topics_data {
            for partition in &topic.partitions {
                self.partitions.remove(&key(&topic.topic, topic.topic_id, *partition));
            }
        }
        for topic in &request.topics {
            for asked in &topic.partitions {
                let key = key(&topic.topic, topic.topic_id, asked.partition);
                match self.partitions.get_mut(&key) {
                    Some(remembered) => remembered.asked = asked.clone(),
                    None => drop(self.partitions.insert(key, Remembered { asked: asked.clone(), known: None })),
                }
            }
        }
        // Epochs go on at 1: 0 is that of a new session.
        self.epoch = self.epoch.checked_add(1).unwrap_or(1);
        self.used = Instant::now();
    }

    /// Returns all partitions, beginning behind the one with the last records.
    fn topics(&self) -> Vec<FetchTopic> {
        let mut topics: Vec<FetchTopic> = Vec::new();
        let behind = self.served.as_ref().map_or(Unbounded, Excluded);
        let rest = self.partitions.range((behind, Unbounded));
        let before = self.partitions.len() - rest.clone().count();
        for ((topic, topic_id, _), remembered) in rest.chain(self.partitions.iter().take(before)) {
            let partition = remembered.asked.clone();
            match topics.last_mut() {
                Some(last) if (&last.topic, last.topic_id) == (topic, *topic_id) => last.partitions.push(partition),
                _ => topics.push(FetchTopic { topic: topic.clone(), topic_id: *topic_id, partitions: vec![partition] }),
            }
        }
        topics
    }
}

/// Returns the key of a partition. The text is copied, so that a session does not keep the bytes of a request.
fn key(name: &str, id: Uuid, partition: i32) -> Key {
    (if id.is_nil() { Str::from(name) } else { Str::EMPTY }, id, partition)
}

impl SessionUse {
    /// Puts the id of the session into a response, and leaves out the partitions without news.
    pub(crate) fn finish(&self, response: &mut FetchResponse) {
        let mut inner = self.sessions.inner.lock();
        // A session that was replaced meanwhile is one that the client does not know any more.
        let Some(session) = inner.sessions.get_mut(&self.id) else { return };
        response.session_id = self.id;
        for topic in &mut response.responses {
            let (name, id) = (topic.topic.clone(), topic.topic_id);
            topic.partitions.retain(|data| {
                let key = key(&name, id, data.partition_index);
                let Some(remembered) = session.partitions.get_mut(&key) else { return true };
                if !data.records.is_empty() {
                    session.served = Some(key);
                }
                remembered.has_news(data) || !self.is_incremental
            });
        }
        response.responses.retain(|topic| !topic.partitions.is_empty());
    }
}

impl Remembered {
    /// Returns whether the client does not know this yet, and notes that it does now.
    fn has_news(&mut self, data: &PartitionData) -> bool {
        let is_error = data.error_code.is_err();
        let sent = (data.high_watermark, data.log_start_offset);
        // After an error the client has to learn that it is over.
        let before = std::mem::replace(&mut self.known, (!is_error).then_some(sent));
        is_error
            || before != Some(sent)
            || !data.records.is_empty()
            || data.diverging_epoch.epoch >= 0
            || data.preferred_read_replica >= 0
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millstream_wire::Records;
    use millstream_wire::messages::{FetchableTopicResponse, ForgottenTopic};

    use super::*;

    fn request(id: i32, epoch: i32, partitions: &[(i32, i64)]) -> FetchRequest {
        let partitions = partitions.iter().map(|(partition, fetch_offset)| FetchPartition {
            partition: *partition,
            fetch_offset: *fetch_offset,
            ..Default::default()
        });
        let topic = FetchTopic { topic: "t".into(), partitions: partitions.collect(), ..Default::default() };
        FetchRequest { session_id: id, session_epoch: epoch, topics: vec![topic], ..Default::default() }
    }

    /// Returns a response for partitions: their high watermarks, and whether they have records.
    fn response(partitions: &[(i32, i64, bool)]) -> FetchResponse {
        let data = |&(partition_index, high_watermark, has_records): &(i32, i64, bool)| PartitionData {
            partition_index,
            high_watermark,
            log_start_offset: 0,
            records: if has_records { Records::Bytes(Bytes::from_static(b"r")) } else { Records::EMPTY },
            ..Default::default()
        };
        let partitions = partitions.iter().map(data).collect();
        let topic = FetchableTopicResponse { topic: "t".into(), partitions, ..Default::default() };
        FetchResponse { responses: vec![topic], ..Default::default() }
    }

    fn asked(request: &FetchRequest) -> Vec<(i32, i64)> {
        let partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.map(|one| (one.partition, one.fetch_offset)).collect()
    }

    fn answered(response: &FetchResponse) -> Vec<i32> {
        let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
        partitions.map(|one| one.partition_index).collect()
    }

    #[test]
    fn a_session_asks_for_all_partitions_and_shows_only_news() {
        let sessions = FetchSessions::new(2);
        let first = sessions.open(&mut request(0, 0, &[(0, 5), (1, 6)])).unwrap().expect("a session");
        let mut full = response(&[(0, 5, false), (1, 6, false)]);
        first.finish(&mut full);
        assert_eq!((answered(&full), full.session_id > 0), (vec![0, 1], true), "the first response is complete");
        let id = full.session_id;

        let mut nothing_new = request(id, 1, &[]);
        let session = sessions.open(&mut nothing_new).unwrap().expect("the session");
        assert_eq!(asked(&nothing_new), [(0, 5), (1, 6)]);
        let mut empty = response(&[(0, 5, false), (1, 6, false)]);
        session.finish(&mut empty);
        assert_eq!((answered(&empty), empty.session_id), (vec![], id));

        let mut moved = request(id, 2, &[(1, 7)]);
        let session = sessions.open(&mut moved).unwrap().expect("the session");
        assert_eq!(asked(&moved), [(0, 5), (1, 7)]);
        let mut news = response(&[(0, 8, false), (1, 6, true)]);
        session.finish(&mut news);
        assert_eq!(answered(&news), [0, 1], "a newer high watermark, and records");
    }

    #[test]
    fn each_partition_gets_its_turn() {
        let sessions = FetchSessions::new(1);
        let mut full = response(&[(0, 1, false), (1, 1, false), (2, 1, false)]);
        sessions.open(&mut request(0, 0, &[(0, 0), (1, 0), (2, 0)])).unwrap().expect("new").finish(&mut full);
        let mut order = Vec::new();
        for epoch in 1..=4 {
            let mut next = request(full.session_id, epoch, &[]);
            let session = sessions.open(&mut next).unwrap().expect("the session");
            let first = asked(&next)[0].0;
            order.push(first);
            session.finish(&mut response(&[(first, 1, true)]));
        }
        assert_eq!(order, [0, 1, 2, 0]);
    }

    #[test]
    fn an_error_is_shown_until_it_is_over() {
        let sessions = FetchSessions::new(1);
        let mut full = response(&[(0, 1, false)]);
        sessions.open(&mut request(0, 0, &[(0, 0)])).unwrap().expect("new").finish(&mut full);
        for (epoch, code, shown) in
            [(1, ErrorCode::NOT_LEADER_OR_FOLLOWER, 1), (2, ErrorCode::NONE, 1), (3, ErrorCode::NONE, 0)]
        {
            let session = sessions.open(&mut request(full.session_id, epoch, &[])).unwrap().expect("the session");
            let mut next = response(&[(0, 1, false)]);
            next.responses[0].partitions[0].error_code = code;
            session.finish(&mut next);
            assert_eq!(answered(&next).len(), shown, "epoch {epoch}");
        }
    }

    #[test]
    fn wrong_ids_and_epochs_are_rejected_and_sessions_end() {
        let sessions = FetchSessions::new(1);
        let mut full = response(&[(0, 1, false)]);
        sessions.open(&mut request(0, 0, &[(0, 0)])).unwrap().expect("new").finish(&mut full);
        let id = full.session_id;
        let unknown = sessions.open(&mut request(id ^ 1, 1, &[])).unwrap_err();
        assert_eq!(unknown, ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
        assert_eq!(sessions.open(&mut request(id, 2, &[])).unwrap_err(), ErrorCode::INVALID_FETCH_SESSION_EPOCH);
        // The only slot is taken, and its session is not idle.
        assert!(sessions.open(&mut request(0, 0, &[(9, 0)])).unwrap().is_none());
        // A follower takes it from a consumer.
        let mut follower = FetchRequest { replica_id: 2, ..request(0, 0, &[(9, 0)]) };
        assert!(sessions.open(&mut follower).unwrap().is_some());
        assert_eq!(sessions.open(&mut request(id, 1, &[])).unwrap_err(), ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
    }

    #[test]
    fn a_session_that_forgets_all_partitions_ends() {
        let sessions = FetchSessions::new(1);
        let mut full = response(&[(0, 1, false), (1, 1, false)]);
        sessions.open(&mut request(0, 0, &[(0, 0), (1, 0)])).unwrap().expect("new").finish(&mut full);
        let forget = |epoch, partitions: &[i32]| FetchRequest {
            forgotten_topics_data: vec![ForgottenTopic {
                topic: "t".into(),
                partitions: partitions.to_vec(),
                ..Default::default()
            }],
            topics: Vec::new(),
            ..request(full.session_id, epoch, &[])
        };
        let mut one_left = forget(1, &[0]);
        assert!(sessions.open(&mut one_left).unwrap().is_some());
        assert_eq!(asked(&one_left), [(1, 0)]);
        assert!(sessions.open(&mut forget(2, &[1])).unwrap().is_none());
        assert_eq!(sessions.inner.lock().partitions, 0);
        let again = sessions.open(&mut request(0, 0, &[(0, 0)])).unwrap();
        assert!(again.is_some(), "the slot is free");
        let closing = request(again.expect("a session").id, FINAL_EPOCH, &[(0, 0)]);
        assert!(sessions.open(&mut closing.clone()).unwrap().is_none());
        assert!(sessions.inner.lock().sessions.is_empty());
    }
}
