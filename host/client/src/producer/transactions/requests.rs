//! The requests of a transaction to its coordinator and to that of a group.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_wire::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, AddPartitionsToTxnTopic, EndTxnRequest, InitProducerIdRequest,
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use millstream_wire::{ErrorCode, Str};

use super::{MARKERS_WAIT, Transactions};
use crate::consumer::group::ConsumerGroupMetadata;
use crate::consumer::record::{CommittedOffset, TopicPartition};
use crate::error::Error;
use crate::net::{Coordinator, CoordinatorOf, Lane, Retry};
use crate::producer::inner::Inner;
use crate::producer::sequence::Identity;

/// The last version of AddPartitionsToTxn that producers send.
const ADD_PARTITIONS_LAST: i16 = 3;
/// The last versions of the older protocol.
const OLDER_ADD_OFFSETS_LAST: i16 = 3;
const OLDER_TXN_OFFSET_COMMIT_LAST: i16 = 4;
const OLDER_END_TXN_LAST: i16 = 4;
/// The last version of TxnOffsetCommit with topic names; later ones have topic ids.
const TXN_OFFSET_COMMIT_LAST_WITH_NAMES: i16 = 5;

/// How often a request is repeated at once while the markers of the last transaction are being written. After that
/// the backoff grows.
const MARKERS_WAITS: u32 = 10;

/// The attempts of a request, until one succeeds, or fails with an error that is not retriable, or `max.block.ms` has
/// passed.
struct Attempts<'a> {
    retry: Retry<'a>,
    /// The waits for markers so far.
    waits: u32,
}

impl<'a> Attempts<'a> {
    fn new(inner: &'a Inner, what: &'a str) -> Self {
        Self { retry: inner.cluster.retry(inner.config.max_block, what), waits: 0 }
    }

    /// Runs one attempt. Returns `None` if it failed and the next one may succeed.
    async fn run<T>(&mut self, attempt: impl Future<Output = Result<T, Error>>) -> Result<Option<T>, Error> {
        let is_quick = self.waits < MARKERS_WAITS;
        let attempt = async {
            match attempt.await {
                Err(error) if is_quick && error.code() == Some(ErrorCode::CONCURRENT_TRANSACTIONS) => {
                    tokio::time::sleep(MARKERS_WAIT).await;
                    Ok(None)
                }
                outcome => outcome.map(Some),
            }
        };
        let outcome = self.retry.attempt(attempt).await?;
        self.waits += u32::from(matches!(outcome, Some(None)));
        Ok(outcome.flatten())
    }
}

/// Requests a producer id, or a higher epoch of `current`. Earlier producers with the transactional id are fenced.
/// Returns it, and whether the cluster uses the newer protocol.
pub(super) async fn init(
    inner: &Inner,
    transactions: &Transactions,
    current: Identity,
) -> Result<(Identity, bool), Error> {
    let request = InitProducerIdRequest {
        transactional_id: Some(transactions.id.clone()),
        transaction_timeout_ms: transactions.timeout_ms,
        producer_id: current.producer_id,
        producer_epoch: current.epoch,
    };
    let coordinator = &transactions.coordinator;
    let mut attempts = Attempts::new(inner, "the producer id of a transactional producer");
    loop {
        let attempt = async {
            let connection = coordinator.connect(&inner.cluster, Lane::Main).await?;
            let newer = connection.transaction_version() >= 2;
            let response = coordinator
                .watch(async { connection.send(&request)?.wait(coordinator.request_timeout).await }.await)?;
            let what = || format!("get the producer id of transactional id {}", &*transactions.id);
            coordinator.check(what, response.error_code, None)?;
            Ok((Identity { producer_id: response.producer_id, epoch: response.producer_epoch }, newer))
        };
        if let Some(done) = attempts.run(attempt).await? {
            return Ok(done);
        }
    }
}

/// Adds partitions to the transaction, with the older protocol.
pub(super) async fn add_partitions(
    inner: &Inner,
    transactions: &Transactions,
    partitions: &[TopicPartition],
) -> Result<(), Error> {
    let identity = inner.known_identity()?;
    let mut topics: BTreeMap<&Arc<str>, Vec<i32>> = BTreeMap::new();
    for TopicPartition { topic, partition } in partitions {
        topics.entry(topic).or_default().push(*partition);
    }
    let topic = |(name, partitions): (&Arc<str>, _)| AddPartitionsToTxnTopic { name: Str::from(&**name), partitions };
    let request = AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: transactions.id.clone(),
        v3_and_below_producer_id: identity.producer_id,
        v3_and_below_producer_epoch: identity.epoch,
        v3_and_below_topics: topics.into_iter().map(topic).collect(),
        ..AddPartitionsToTxnRequest::default()
    };
    let coordinator = &transactions.coordinator;
    let mut attempts = Attempts::new(inner, "the partitions of a transaction");
    loop {
        let attempt = async {
            // An abort does not wait for all attempts.
            transactions.doom().map_or(Ok(()), Err)?;
            let response = coordinator.ask_up_to(&inner.cluster, Lane::Main, &request, ADD_PARTITIONS_LAST).await?;
            let topics = response.results_by_topic_v3_and_below.iter();
            let parts = topics.flat_map(|topic| topic.results_by_partition.iter().map(move |part| (&topic.name, part)));
            // One bad partition keeps the others from being attempted: report the bad one.
            let worst = parts
                .filter(|(_, part)| part.partition_error_code.is_err())
                .min_by_key(|(_, part)| part.partition_error_code == ErrorCode::OPERATION_NOT_ATTEMPTED);
            match worst {
                None => Ok(()),
                Some((topic, part)) => {
                    let what = || format!("add {}-{} to the transaction", &**topic, part.partition_index);
                    coordinator.check(what, part.partition_error_code, None)
                }
            }
        };
        if let Some(done) = attempts.run(attempt).await? {
            return Ok(done);
        }
    }
}

/// Adds the offsets of a group to the transaction.
pub(super) async fn add_offsets(
    inner: &Inner,
    transactions: &Transactions,
    offsets: &BTreeMap<TopicPartition, CommittedOffset>,
    group: &ConsumerGroupMetadata,
) -> Result<(), Error> {
    let identity = inner.known_identity()?;
    let newer = transactions.newer();
    if !newer {
        let request = AddOffsetsToTxnRequest {
            transactional_id: transactions.id.clone(),
            producer_id: identity.producer_id,
            producer_epoch: identity.epoch,
            group_id: Str::from(group.group_id.as_str()),
        };
        let coordinator = &transactions.coordinator;
        let mut attempts = Attempts::new(inner, "the group of a transaction");
        loop {
            let attempt = async {
                let sent = coordinator.ask_up_to(&inner.cluster, Lane::Main, &request, OLDER_ADD_OFFSETS_LAST);
                let what = || format!("add group {} to the transaction", group.group_id);
                coordinator.check(what, sent.await?.error_code, None)
            };
            if attempts.run(attempt).await?.is_some() {
                break;
            }
        }
    }
    let request = txn_offset_commit(transactions, identity, offsets, group);
    let last = if newer { TXN_OFFSET_COMMIT_LAST_WITH_NAMES } else { OLDER_TXN_OFFSET_COMMIT_LAST };
    let timeout = inner.config.client.request_timeout;
    let coordinator = Coordinator::new(CoordinatorOf::Group, &group.group_id, timeout);
    let mut attempts = Attempts::new(inner, "the offsets of a transaction");
    loop {
        let attempt = async {
            let response = coordinator.ask_up_to(&inner.cluster, Lane::Main, &request, last).await?;
            for topic in &response.topics {
                for part in &topic.partitions {
                    let what =
                        || format!("add the offset of {}-{} to the transaction", &*topic.name, part.partition_index);
                    coordinator.check(what, part.error_code, None)?;
                }
            }
            Ok(())
        };
        if attempts.run(attempt).await?.is_some() {
            break;
        }
    }
    transactions.state.lock().offsets_added();
    Ok(())
}

fn txn_offset_commit(
    transactions: &Transactions,
    identity: Identity,
    offsets: &BTreeMap<TopicPartition, CommittedOffset>,
    group: &ConsumerGroupMetadata,
) -> TxnOffsetCommitRequest {
    let mut topics: BTreeMap<&Arc<str>, Vec<TxnOffsetCommitRequestPartition>> = BTreeMap::new();
    for (TopicPartition { topic, partition }, committed) in offsets {
        topics.entry(topic).or_default().push(TxnOffsetCommitRequestPartition {
            partition_index: *partition,
            committed_offset: committed.offset,
            committed_leader_epoch: committed.leader_epoch,
            committed_metadata: Some(Str::from(committed.metadata.as_str())),
        });
    }
    let topics = topics.into_iter().map(|(name, partitions)| TxnOffsetCommitRequestTopic {
        name: Str::from(&**name),
        partitions,
        ..TxnOffsetCommitRequestTopic::default()
    });
    TxnOffsetCommitRequest {
        transactional_id: transactions.id.clone(),
        group_id: Str::from(group.group_id.as_str()),
        producer_id: identity.producer_id,
        producer_epoch: identity.epoch,
        generation_id_or_member_epoch: group.generation_id,
        member_id: Str::from(group.member_id.as_str()),
        group_instance_id: group.group_instance_id.as_deref().map(Str::from),
        topics: topics.collect(),
    }
}

/// Ends the transaction. Returns the producer's next identity, and whether the newer protocol is used
/// from now on.
pub(super) async fn end(
    inner: &Inner,
    transactions: &Transactions,
    committed: bool,
) -> Result<(Identity, bool), Error> {
    let identity = inner.known_identity()?;
    let request = EndTxnRequest {
        transactional_id: transactions.id.clone(),
        producer_id: identity.producer_id,
        producer_epoch: identity.epoch,
        committed,
    };
    let (newer, confirmed) = {
        let state = transactions.state.lock();
        (state.newer(), state.confirmed())
    };
    let last = if newer { i16::MAX } else { OLDER_END_TXN_LAST };
    let coordinator = &transactions.coordinator;
    let decision = if committed { "commit" } else { "abort" };
    let mut attempts = Attempts::new(inner, "the end of a transaction");
    loop {
        let attempt = async {
            let connection = coordinator.connect(&inner.cluster, Lane::Main).await?;
            let response = async { connection.send_up_to(&request, last)?.wait(coordinator.request_timeout).await };
            let response = coordinator.watch(response.await)?;
            let is_unknown = response.error_code == ErrorCode::INVALID_TXN_STATE;
            if !newer && !committed && !confirmed && is_unknown {
                // No request that adds something has reached the coordinator.
                return Ok((identity, connection.transaction_version() >= 2));
            }
            let what = || format!("{decision} the transaction of {}", &*transactions.id);
            coordinator.check(what, response.error_code, None)?;
            let next = match response.producer_id {
                ..0 => identity,
                producer_id => Identity { producer_id, epoch: response.producer_epoch },
            };
            Ok((next, connection.transaction_version() >= 2))
        };
        if let Some(done) = attempts.run(attempt).await? {
            return Ok(done);
        }
    }
}
