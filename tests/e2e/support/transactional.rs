//! A transactional producer over raw requests, by either protocol, and what a reader of committed records sees.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use millstream_record::{BatchBuilder, EndMarker, batches};
use millstream_tests::wait_until;
use millstream_wire::messages::*;
use millstream_wire::{ErrorCode, Str};

use super::{Raw, Topic, fetch_request, fetched};

const PATIENCE: Duration = Duration::from_secs(60);

/// The key type of a transactional id in FindCoordinator.
const TRANSACTION: i8 = 1;

/// The protocol of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// AddPartitionsToTxn, and one epoch for all transactions.
    Older,
    /// Produce adds partitions, and each transaction has its epoch.
    Newer,
}

impl Protocol {
    pub(crate) const ALL: [Self; 2] = [Self::Older, Self::Newer];

    /// Returns the versions of Produce and EndTxn.
    fn versions(self) -> (i16, i16) {
        match self {
            Self::Older => (11, 4),
            Self::Newer => (12, 5),
        }
    }
}

/// A transactional producer, with a connection to its coordinator.
pub(crate) struct TransactionalProducer {
    coordinator: Raw,
    pub(crate) id: i64,
    pub(crate) epoch: i16,
    transactional_id: Str,
    protocol: Protocol,
    sequences: HashMap<(Str, i32), i32>,
}

/// Returns the node that coordinates a transactional id, once there is one.
pub(crate) fn transaction_coordinator(raw: &mut Raw, transactional_id: &str) -> i32 {
    let coordinator_keys = vec![transactional_id.into()];
    let request = FindCoordinatorRequest { key_type: TRANSACTION, coordinator_keys, ..Default::default() };
    wait_until("a transaction coordinator", PATIENCE, || {
        let found = raw.call(6, &request).coordinators.remove(0);
        assert!(found.error_code.is_ok() || found.error_code.retriable(), "{}", found.error_code);
        found.error_code.is_ok().then_some(found.node_id)
    })
}

impl TransactionalProducer {
    /// Makes a producer, which fences the one before with this id. `coordinator` is a connection to its coordinator.
    pub(crate) fn init(mut coordinator: Raw, transactional_id: &str, protocol: Protocol) -> Self {
        transaction_coordinator(&mut coordinator, transactional_id);
        let request = InitProducerIdRequest {
            transactional_id: Some(transactional_id.into()),
            transaction_timeout_ms: 60_000,
            producer_id: -1,
            producer_epoch: -1,
        };
        let producer = wait_until("a producer id", PATIENCE, || {
            let response = coordinator.call(4, &request);
            assert!(response.error_code.is_ok() || response.error_code.retriable(), "{}", response.error_code);
            response.error_code.is_ok().then_some(response)
        });
        Self {
            coordinator,
            id: producer.producer_id,
            epoch: producer.producer_epoch,
            transactional_id: transactional_id.into(),
            protocol,
            sequences: HashMap::new(),
        }
    }

    /// Returns the next batch of this producer for a partition.
    pub(crate) fn batch(&self, topic: &Topic, partition: i32, mut records: BatchBuilder) -> Vec<u8> {
        let sequence = self.sequences.get(&(topic.name.clone(), partition)).copied().unwrap_or_default();
        records.producer(self.id, self.epoch, sequence).transactional(true);
        records.build().expect("a batch")
    }

    /// Adds a partition to the transaction by the older protocol.
    fn add(&mut self, topic: &Topic, partition: i32) {
        let code = self.try_add(topic, partition, None);
        assert!(code.is_ok(), "{code}");
    }

    /// Adds a partition to the transaction by the older protocol, as a broker does if partition 0 of another topic is
    /// required to be in the transaction already.
    pub(crate) fn try_add(&mut self, topic: &Topic, partition: i32, required: Option<&Topic>) -> ErrorCode {
        let place =
            |topic: &Topic, index| AddPartitionsToTxnTopic { name: topic.name.clone(), partitions: vec![index] };
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: self.transactional_id.clone(),
            v3_and_below_producer_id: self.id,
            v3_and_below_producer_epoch: self.epoch,
            v3_and_below_topics: vec![place(topic, partition)],
            v3_required_topics: required.map(|topic| place(topic, 0)).into_iter().collect(),
            ..Default::default()
        };
        wait_until("an added partition", PATIENCE, || {
            let response = self.coordinator.call(3, &request);
            let code = response.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code;
            (!code.retriable()).then_some(code)
        })
    }

    /// Sends a batch to the leader of a partition, also one that was sent before.
    pub(crate) fn send(
        &mut self,
        leader: &mut Raw,
        topic: &Topic,
        partition: i32,
        batch: Vec<u8>,
    ) -> PartitionProduceResponse {
        if self.protocol == Protocol::Older {
            self.add(topic, partition);
        }
        let (version, _) = self.protocol.versions();
        let transactional_id = Some(self.transactional_id.clone());
        let request = ProduceRequest { transactional_id, ..topic.produce_request(version, -1, partition, batch) };
        leader.call(version, &request).responses.remove(0).partition_responses.remove(0)
    }

    /// Produces a batch to partition 0. A batch that is rejected takes no sequences.
    pub(crate) fn try_produce(
        &mut self,
        leader: &mut Raw,
        topic: &Topic,
        records: BatchBuilder,
    ) -> PartitionProduceResponse {
        let count = i32::try_from(records.count()).expect("a small batch");
        let batch = self.batch(topic, 0, records);
        let response = self.send(leader, topic, 0, batch);
        if response.error_code.is_ok() {
            self.took(topic, count);
        }
        response
    }

    /// Produces a batch to partition 0, which must succeed sooner or later. Returns the base offset.
    pub(crate) fn produce(&mut self, leader: &mut Raw, topic: &Topic, records: BatchBuilder) -> i64 {
        let count = i32::try_from(records.count()).expect("a small batch");
        let batch = self.batch(topic, 0, records);
        let response = wait_until("a stored batch", PATIENCE, || {
            let response = self.send(leader, topic, 0, batch.clone());
            let code = response.error_code;
            assert!(code.is_ok() || code.retriable(), "{code}: {:?}", response.error_message);
            code.is_ok().then_some(response)
        });
        self.took(topic, count);
        response.base_offset
    }

    /// Notes that partition 0 has this number of records more.
    pub(crate) fn took(&mut self, topic: &Topic, count: i32) {
        *self.sequences.entry((topic.name.clone(), 0)).or_default() += count;
    }

    /// Ends the transaction, and waits until all of its markers are written.
    pub(crate) fn end(&mut self, committed: bool) {
        let (transactional_id, producer_id, producer_epoch) = (self.transactional_id.clone(), self.id, self.epoch);
        let request = EndTxnRequest { transactional_id, producer_id, producer_epoch, committed };
        let (_, version) = self.protocol.versions();
        let response = self.coordinator.call(version, &request);
        assert_eq!(response.error_code, ErrorCode::NONE);
        if self.protocol == Protocol::Newer {
            (self.id, self.epoch) = (response.producer_id, response.producer_epoch);
            self.sequences.clear();
        }
        let wanted = if committed { "CompleteCommit" } else { "CompleteAbort" };
        wait_until("the markers", PATIENCE, || (self.describe().transaction_state.as_str() == wanted).then_some(()));
    }

    /// Goes on with another connection, once the coordinator has loaded the transaction.
    pub(crate) fn reconnect(&mut self, coordinator: Raw) {
        self.coordinator = coordinator;
        wait_until("a coordinator", PATIENCE, || self.try_describe());
    }

    /// Describes the transaction.
    fn describe(&mut self) -> DescribedTransaction {
        self.try_describe().expect("a loaded coordinator")
    }

    fn try_describe(&mut self) -> Option<DescribedTransaction> {
        let request = DescribeTransactionsRequest { transactional_ids: vec![self.transactional_id.clone()] };
        let described = self.coordinator.call(0, &request).transaction_states.remove(0);
        described.error_code.is_ok().then_some(described)
    }

    /// Returns the partitions of the transaction, as `TOPIC-NUMBER`.
    pub(crate) fn partitions(&mut self) -> BTreeSet<String> {
        let topics = self.describe().topics;
        let of = |topic: &DescribedTransactionTopic| {
            let name = topic.topic.clone();
            topic.partitions.iter().map(move |index| format!("{}-{index}", name.as_str())).collect::<Vec<_>>()
        };
        topics.iter().flat_map(of).collect()
    }
}

/// What a reader of committed records sees of a partition.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    /// The offsets and values.
    pub(crate) records: Vec<(i64, String)>,
    /// The offset at which it waits for more.
    pub(crate) end: i64,
}

/// Reads partition 0 from its start with `isolation.level=read_committed`, as Kafka's consumer does.
pub(crate) fn read_committed(raw: &mut Raw, topic: &Topic) -> Committed {
    let mut seen = Committed { records: Vec::new(), end: topic.start(raw) };
    loop {
        let request = fetch_request(12, &[(topic, 0, seen.end, 1 << 20)], 0, 0);
        let data = fetched(raw.call(12, &FetchRequest { isolation_level: 1, ..request }));
        assert_eq!(data.error_code, ErrorCode::NONE);
        let bytes = data.records.as_bytes().cloned().unwrap_or_default();
        let begun = seen.end;
        let mut aborted = data.aborted_transactions.unwrap_or_default();
        let mut active = BTreeSet::new();
        for batch in batches(&bytes) {
            let batch = batch.expect("a sound batch");
            batch.verify_crc().expect("the right CRC");
            aborted.retain(|one| {
                let begins = one.first_offset <= batch.last_offset();
                if begins {
                    active.insert(one.producer_id);
                }
                !begins
            });
            assert!(batch.next_offset() <= data.last_stable_offset, "a batch beyond the last stable offset");
            seen.end = batch.next_offset();
            if let Some(marker) = EndMarker::of(&batch) {
                if !marker.is_commit {
                    active.remove(&batch.producer_id());
                }
                continue;
            }
            if batch.is_control() || batch.is_transactional() && active.contains(&batch.producer_id()) {
                continue;
            }
            for record in &batch.records(64 << 20).expect("records") {
                let record = record.expect("a sound record");
                if record.offset >= begun {
                    let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
                    seen.records.push((record.offset, value));
                }
            }
        }
        if bytes.is_empty() {
            return seen;
        }
    }
}
