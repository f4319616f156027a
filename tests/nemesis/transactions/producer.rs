//! A transactional producer over raw requests, with either protocol. Some of its requests are held, and come late.

use std::collections::HashMap;
use std::time::Duration;

use millstream_record::{BatchBuilder, Codec, TimestampType};
use millstream_wire::messages::*;
use millstream_wire::{ErrorCode, Records, Request, Str};
use tokio::time::sleep;

use super::connection::{Key, Nodes};

/// The pause before a request is sent again.
const PAUSE: Duration = Duration::from_millis(20);

/// How often a request is sent.
const ATTEMPTS_MAX: usize = 300;

/// One in this number of requests is held.
const HELD: u32 = 60;

/// The instance cannot go on: another one has fenced it, or its transaction has to be aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Over(pub(super) ErrorCode);

/// What a request leads to.
type Outcome<T> = Result<T, ErrorCode>;

/// The protocol of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// AddPartitionsToTxn, and one epoch for all transactions.
    Older,
    /// Produce adds partitions, and each transaction has its epoch.
    Newer,
}

/// An instance of a transactional producer.
pub(super) struct TransactionalProducer {
    pub(super) nodes: Nodes,
    id: Str,
    protocol: Protocol,
    producer: (i64, i16),
    sequences: HashMap<i32, i32>,
    /// Where requests are sent to. Forgotten after an error.
    addresses: HashMap<String, String>,
    /// How long requests are held, and how many were.
    hold: Duration,
    pub(super) held: usize,
    /// A held request of the older protocol may still come, so that only a new epoch keeps it out.
    has_held: bool,
    random: fastrand::Rng,
}

impl TransactionalProducer {
    pub(super) fn new(bootstrap: &str, id: &str, protocol: Protocol, hold: Duration) -> Self {
        Self {
            nodes: Nodes::new(bootstrap),
            id: id.into(),
            protocol,
            producer: (-1, -1),
            sequences: HashMap::new(),
            addresses: HashMap::new(),
            hold,
            held: 0,
            has_held: false,
            random: fastrand::Rng::new(),
        }
    }

    /// Sends a request to the coordinator of a name until it is handled. `read` finds the error in its response.
    async fn ask_coordinator<R: Request, T>(
        &mut self,
        (name, key): (&str, Key),
        (version, may_be_held): (i16, bool),
        request: &R,
        read: impl Fn(R::Response) -> Outcome<T>,
    ) -> Result<T, Over> {
        for _ in 0..ATTEMPTS_MAX {
            let known = self.addresses.get(name).cloned();
            let address = match known {
                Some(address) => Some(address),
                None => self.nodes.coordinator(name, key).await,
            };
            if let Some(address) = address {
                if may_be_held && self.random.u32(0..HELD) == 0 {
                    self.nodes.hold(&address, version, request, self.hold);
                    (self.held, self.has_held) = (self.held + 1, true);
                }
                match self.nodes.call(&address, version, request).await.map(&read) {
                    Some(Ok(done)) => {
                        self.addresses.insert(name.to_owned(), address);
                        return Ok(done);
                    }
                    Some(Err(error)) if !error.retriable() => return Err(Over(error)),
                    Some(Err(ErrorCode::CONCURRENT_TRANSACTIONS)) => {}
                    Some(Err(_)) => drop(self.addresses.remove(name)),
                    None => {
                        // A paused node may still process it, as late as a request that is held.
                        self.has_held = true;
                        self.addresses.remove(name);
                    }
                }
            }
            sleep(PAUSE).await;
        }
        Err(Over(ErrorCode::REQUEST_TIMED_OUT))
    }

    /// Gets a producer id and epoch, which fences the instances before.
    pub(super) async fn init(&mut self) -> Result<(), Over> {
        self.next_epoch((-1, -1)).await
    }

    /// Gets the epoch after this one. An instance that is fenced gets none (KIP-360).
    async fn bump(&mut self) -> Result<(), Over> {
        self.next_epoch(self.producer).await
    }

    async fn next_epoch(&mut self, (producer_id, producer_epoch): (i64, i16)) -> Result<(), Over> {
        let id = self.id.clone();
        let transactional_id = Some(id.clone());
        let request =
            InitProducerIdRequest { transactional_id, transaction_timeout_ms: 10_000, producer_id, producer_epoch };
        let read = |response: InitProducerIdResponse| match response.error_code {
            ErrorCode::NONE => Ok((response.producer_id, response.producer_epoch)),
            error => Err(error),
        };
        self.producer = self.ask_coordinator((&id, Key::Transaction), (4, false), &request, read).await?;
        self.sequences.clear();
        Ok(())
    }

    /// Adds a partition to the transaction, with the older protocol.
    async fn add(&mut self, topic: &str, partition: i32) -> Result<(), Over> {
        if self.protocol == Protocol::Newer {
            return Ok(());
        }
        let id = self.id.clone();
        let (producer_id, producer_epoch) = self.producer;
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: id.clone(),
            v3_and_below_producer_id: producer_id,
            v3_and_below_producer_epoch: producer_epoch,
            v3_and_below_topics: vec![AddPartitionsToTxnTopic { name: topic.into(), partitions: vec![partition] }],
            ..Default::default()
        };
        let read = |response: AddPartitionsToTxnResponse| {
            let topic = response.results_by_topic_v3_and_below.first();
            let result = topic.and_then(|topic| topic.results_by_partition.first()).expect("a result");
            if result.partition_error_code.is_ok() { Ok(()) } else { Err(result.partition_error_code) }
        };
        self.ask_coordinator((&id, Key::Transaction), (3, true), &request, read).await
    }

    /// Writes one batch of records in the transaction. Returns once it is acknowledged.
    pub(super) async fn produce(&mut self, topic: &str, partition: i32, values: &[String]) -> Result<(), Over> {
        self.add(topic, partition).await?;
        let version = if self.protocol == Protocol::Newer { 13 } else { 11 };
        let (id, epoch) = self.producer;
        let sequence = self.sequences.get(&partition).copied().unwrap_or_default();
        let mut batch = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
        batch.producer(id, epoch, sequence).transactional(true);
        for value in values {
            batch.append(0, None, Some(value.as_bytes()), []).expect("a small record");
        }
        let batch = bytes::Bytes::from(batch.build().expect("a small batch"));
        for _ in 0..ATTEMPTS_MAX {
            if let Some((leader, topic_id)) = self.nodes.leader(topic, partition).await {
                let records = Records::Bytes(batch.clone());
                let partition_data = vec![PartitionProduceData { index: partition, records }];
                let topic_data = vec![TopicProduceData { name: topic.into(), topic_id, partition_data }];
                let transactional_id = Some(self.id.clone());
                let request = ProduceRequest { transactional_id, acks: -1, timeout_ms: 3_000, topic_data };
                if self.random.u32(0..HELD) == 0 {
                    self.nodes.hold(&leader, version, &request, self.hold);
                    (self.held, self.has_held) = (self.held + 1, true);
                }
                let response = self.nodes.call(&leader, version, &request).await;
                let error = response.map(|response| response.responses[0].partition_responses[0].error_code);
                match error {
                    Some(ErrorCode::NONE) => {
                        let count = i32::try_from(values.len()).expect("a small batch");
                        self.sequences.insert(partition, sequence + count);
                        return Ok(());
                    }
                    Some(error) if !error.retriable() => return Err(Over(error)),
                    Some(_) => {}
                    None => self.has_held = true,
                }
            }
            sleep(PAUSE).await;
        }
        Err(Over(ErrorCode::REQUEST_TIMED_OUT))
    }

    /// Commits the offset of a group in the transaction. Returns once that is acknowledged.
    pub(super) async fn commit_offset(
        &mut self,
        group: &str,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<(), Over> {
        let id = self.id.clone();
        let (producer_id, producer_epoch) = self.producer;
        let is_older = self.protocol == Protocol::Older;
        if is_older {
            let (transactional_id, group_id) = (id.clone(), group.into());
            let request = AddOffsetsToTxnRequest { transactional_id, producer_id, producer_epoch, group_id };
            let read = |response: AddOffsetsToTxnResponse| match response.error_code {
                ErrorCode::NONE => Ok(()),
                error => Err(error),
            };
            self.ask_coordinator((&id, Key::Transaction), (3, true), &request, read).await?;
        }
        let partitions = vec![TxnOffsetCommitRequestPartition {
            partition_index: partition,
            committed_offset: offset,
            ..Default::default()
        }];
        let request = TxnOffsetCommitRequest {
            transactional_id: id,
            group_id: group.into(),
            producer_id,
            producer_epoch,
            topics: vec![TxnOffsetCommitRequestTopic { name: topic.into(), partitions, ..Default::default() }],
            ..Default::default()
        };
        let read = |response: TxnOffsetCommitResponse| match response.topics[0].partitions[0].error_code {
            ErrorCode::NONE => Ok(()),
            error => Err(error),
        };
        self.ask_coordinator((group, Key::Group), (if is_older { 3 } else { 5 }, true), &request, read).await
    }

    /// Ends the transaction. Returns once the outcome is acknowledged.
    pub(super) async fn end(&mut self, commits: bool) -> Result<(), Over> {
        let id = self.id.clone();
        let (producer_id, producer_epoch) = self.producer;
        let request = EndTxnRequest { transactional_id: id.clone(), producer_id, producer_epoch, committed: commits };
        // Nothing keeps the late end of a transaction of the older protocol out of the next one.
        let (version, may_be_held) = if self.protocol == Protocol::Newer { (5, true) } else { (3, false) };
        let read = |response: EndTxnResponse| match response.error_code {
            ErrorCode::NONE => Ok((response.producer_id, response.producer_epoch)),
            error => Err(error),
        };
        let next = self.ask_coordinator((&id, Key::Transaction), (version, may_be_held), &request, read).await?;
        if self.protocol == Protocol::Newer {
            self.producer = next;
            self.sequences.clear();
        } else if std::mem::take(&mut self.has_held) {
            self.bump().await?;
        }
        Ok(())
    }
}
