//! The sender of one broker. It takes ready batches of the partitions that the broker leads, at most one per partition
//! and request. It keeps several requests in flight and completes them in order.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use millstream_record::{Codec, patch};
use millstream_wire::messages::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData,
};
use millstream_wire::{ErrorCode, Records};
use uuid::Uuid;

use super::Inner;
use super::accumulator::{Batch, TopicAccumulator};
use super::completion::{Outcome, complete};
use super::config::Acks;
use crate::edge::{self, ProducerStages};
use crate::error::Error;
use crate::net::{Connection, LATE_AFTER, Lane, Metadata, NewLeader};

/// The last version of Produce with topic names; later ones have topic ids.
const LAST_WITH_NAMES: i16 = 12;

/// The last version of Produce that does not add partitions to a transaction.
const LAST_OLDER_TRANSACTIONS: i16 = 11;

/// A batch that was taken from its partition's queue.
pub(crate) struct Taken {
    pub(crate) topic: Arc<TopicAccumulator>,
    pub(crate) partition: usize,
    pub(crate) batch: Batch,
}

struct InFlight {
    sent: Instant,
    /// Resolves to `None` with `acks=0`.
    response: Pin<Box<dyn Future<Output = Result<Option<ProduceResponse>, Error>> + Send>>,
    taken: Vec<Taken>,
}

/// Runs until the producer is closed and every record has its result.
pub(crate) async fn run(inner: Arc<Inner>, node: i32) {
    let mut changes = inner.changes.subscribe();
    let mut in_flight: VecDeque<InFlight> = VecDeque::new();
    let mut metadata = inner.cluster.metadata();
    let mut next_refresh = Instant::now();
    loop {
        changes.borrow_and_update();
        if inner.cluster.renew(&mut metadata) {
            if inner.config.idempotent() {
                reclaim_moved(&inner, &metadata, node, &mut in_flight);
            }
            hurry_moved(&inner, &metadata, node);
        }
        let room = in_flight.len() < inner.config.max_in_flight_requests;
        let mut wake = match room {
            true => ready(&inner, node),
            false => Err(None),
        };
        if wake.is_ok() {
            match inner.cluster.broker(node, Lane::Main).await {
                Ok(connection) => {
                    in_flight.extend(send(&inner, &connection, take(&inner, node)).await);
                    continue;
                }
                Err(error) => {
                    tracing::debug!(node, %error, "cannot reach the leader");
                    inner.unreachable(error);
                    wake = Err(Some(Instant::now() + inner.cluster.config().retry_backoff));
                }
            }
        }
        if in_flight.is_empty() && inner.finished() {
            return;
        }
        let stalled = in_flight.front().map(|request| next_refresh.max(request.sent + LATE_AFTER));
        tokio::select! {
            // Responses first: they free a slot.
            biased;
            response = front(&mut in_flight) => {
                let taken = in_flight.pop_front().map(|request| request.taken).unwrap_or_default();
                complete_all(&inner, node, taken, response);
            }
            changed = changes.changed() => if changed.is_err() { return },
            () = sleep_until(wake.err().flatten()) => {}
            () = sleep_until(stalled) => {
                next_refresh = Instant::now() + LATE_AFTER;
                inner.want_refresh();
            }
        }
    }
}

/// Reclaims the batches whose partitions have another leader now. That one stores them, or recognizes them. The old one
/// can no longer commit them, and if it hangs, its response is not worth the wait.
fn reclaim_moved(inner: &Arc<Inner>, metadata: &Metadata, node: i32, in_flight: &mut VecDeque<InFlight>) {
    let has_moved = |taken: &mut Taken| {
        let leader = metadata.leader(&taken.topic.name, taken.partition as i32);
        leader.is_some_and(|(leader, _)| leader != node)
    };
    for request in in_flight.iter_mut() {
        request.taken.extract_if(.., has_moved).for_each(|taken| complete(inner, taken, Outcome::LeaderMoved));
    }
    in_flight.retain(|request| !request.taken.is_empty());
}

/// Lets the batches that failed at an earlier leader of this node's partitions be sent at once.
fn hurry_moved(inner: &Inner, metadata: &Metadata, node: i32) {
    for topic in inner.topics() {
        for (index, queue) in topic.partitions.lock().iter_mut().enumerate() {
            if let Some(leader) = metadata.leader(&topic.name, index as i32).filter(|(leader, _)| *leader == node) {
                queue.set_leader(leader);
            }
        }
    }
}

async fn front(in_flight: &mut VecDeque<InFlight>) -> Result<Option<ProduceResponse>, Error> {
    match in_flight.front_mut() {
        Some(request) => request.response.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}

/// Checks whether a batch can be sent to `node` now. The error is the time to check again.
fn ready(inner: &Inner, node: i32) -> Result<(), Option<Instant>> {
    let (rules, now, metadata) = (inner.rules(), Instant::now(), inner.cluster.metadata());
    let mut wake: Option<Instant> = None;
    for topic in inner.topics() {
        let Some(known) = metadata.topic(&topic.name) else { continue };
        for (index, queue) in topic.partitions.lock().iter_mut().enumerate() {
            if queue.batches.is_empty() || !known.is_led_by(node, index) || !inner.admits(&topic, index, queue) {
                continue;
            }
            match queue.ready(&rules, now) {
                Ok(()) => return Ok(()),
                Err(at) => wake = wake.into_iter().chain(at).min(),
            }
        }
    }
    Err(wake)
}

/// Takes one batch of each ready partition, up to `max.request.size`.
fn take(inner: &Inner, node: i32) -> Vec<Taken> {
    let (rules, now, metadata) = (inner.rules(), Instant::now(), inner.cluster.metadata());
    let (mut taken, mut bytes) = (Vec::new(), 0);
    let mut topics = inner.topics();
    // Starts with another topic and partition each time, so that a full request starves none of them.
    let turn = inner.next_turn();
    let length = topics.len().max(1);
    topics.rotate_left(turn % length);
    for topic in topics {
        let Some(known) = metadata.topic(&topic.name) else { continue };
        let mut partitions = topic.partitions.lock();
        let length = partitions.len();
        for index in (turn..turn + length).map(|index| index % length) {
            let queue = &mut partitions[index];
            if queue.batches.is_empty() || !known.is_led_by(node, index) || !inner.admits(&topic, index, queue) {
                continue;
            }
            if queue.ready(&rules, now).is_err() {
                continue;
            }
            let size = queue.batches.front().map_or(0, Batch::size);
            if bytes > 0 && bytes + size > inner.config.max_request_size {
                return taken;
            }
            bytes += size;
            if let Some(batch) = queue.take(rules.idempotent) {
                taken.push(Taken { topic: topic.clone(), partition: index, batch });
            }
        }
    }
    taken
}

/// Encodes the batches and sends them. Returns `None` if every batch failed and was completed.
async fn send(inner: &Arc<Inner>, connection: &Arc<Connection>, taken: Vec<Taken>) -> Option<InFlight> {
    let stages = inner.stages.current();
    let taken = match (inner.batch_settings.codec, &stages.compressor) {
        // Only a header and its CRC: cheaper than a switch to another thread.
        (Codec::None, None) => build_all(&stages, taken),
        _ => edge::run(move || build_all(&stages, taken)).await,
    };
    let mut sent = Vec::with_capacity(taken.len());
    for (mut taken, failure) in taken {
        match failure {
            None => {
                taken.batch.attempts += 1;
                sent.push(taken);
            }
            Some(error) => complete(inner, taken, Outcome::NotSent(error)),
        }
    }
    if sent.is_empty() {
        return None;
    }
    let (request, last_version) = request(inner, &sent);
    let timeout = inner.cluster.config().request_timeout;
    let acknowledged = inner.config.acks != Acks::None;
    let now = Instant::now();
    let reply = match acknowledged {
        true => connection.send_up_to(&request, last_version),
        false => connection.send_one_way(&request, last_version),
    };
    match reply {
        Ok(reply) if acknowledged => {
            let response = Box::pin(async move { reply.wait(timeout).await.map(Some) });
            Some(InFlight { sent: now, response, taken: sent })
        }
        Ok(reply) => Some(InFlight {
            sent: now,
            response: Box::pin(async move { reply.written(timeout).await.map(|()| None) }),
            taken: sent,
        }),
        Err(error) => {
            sent.into_iter().for_each(|taken| complete(inner, taken, Outcome::NotSent(error.clone())));
            None
        }
    }
}

fn build_all(stages: &ProducerStages, taken: Vec<Taken>) -> Vec<(Taken, Option<Error>)> {
    let build = |mut taken: Taken| {
        let failure = build(stages, &mut taken.batch).err();
        (taken, failure)
    };
    taken.into_iter().map(build).collect()
}

/// Encodes the batch with its sequence, or patches the sequence of a batch that is already encoded.
fn build(stages: &ProducerStages, batch: &mut Batch) -> Result<(), Error> {
    let sequence = batch.sequence;
    let bytes = match (batch.built.take(), batch.builder.take()) {
        (Some((bytes, written)), _) if written == sequence => bytes,
        (Some((bytes, _)), _) => {
            // The earlier request, the other owner, is usually gone by now.
            let mut bytes = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
            let identity = sequence.identity;
            patch::set_producer(&mut bytes, identity.producer_id, identity.epoch, sequence.base);
            bytes.freeze()
        }
        (None, Some(mut builder)) => {
            builder.producer(sequence.identity.producer_id, sequence.identity.epoch, sequence.base);
            Bytes::from(edge::build(stages, builder)?)
        }
        (None, None) => return Err(Error::State("the batch was lost because a stage failed")),
    };
    batch.built = Some((bytes, sequence));
    Ok(())
}

fn request(inner: &Inner, sent: &[Taken]) -> (ProduceRequest, i16) {
    let metadata = inner.cluster.metadata();
    let mut last_version = i16::MAX;
    let mut topics: Vec<TopicProduceData> = Vec::new();
    for taken in sent {
        if topics.last().is_none_or(|last| last.name != taken.topic.wire_name) {
            let topic_id = metadata.topic(&taken.topic.name).map_or(Uuid::nil(), |topic| topic.id);
            if topic_id.is_nil() {
                last_version = LAST_WITH_NAMES;
            }
            topics.push(TopicProduceData {
                name: taken.topic.wire_name.clone(),
                topic_id,
                ..TopicProduceData::default()
            });
        }
        let records = taken.batch.built.as_ref().map_or(Records::Null, |(bytes, _)| Records::Bytes(bytes.clone()));
        let data = PartitionProduceData { index: taken.partition as i32, records };
        topics.last_mut().expect("one was pushed if there was none").partition_data.push(data);
    }
    if inner.transactions.as_ref().is_some_and(|transactions| !transactions.newer()) {
        last_version = LAST_OLDER_TRANSACTIONS;
    }
    let request = ProduceRequest {
        transactional_id: inner.transactions.as_ref().map(|transactions| transactions.id().clone()),
        acks: inner.config.acks.wire(),
        timeout_ms: i32::try_from(inner.cluster.config().request_timeout.as_millis()).unwrap_or(i32::MAX),
        topic_data: topics,
    };
    (request, last_version)
}

fn complete_all(inner: &Arc<Inner>, node: i32, taken: Vec<Taken>, response: Result<Option<ProduceResponse>, Error>) {
    let response = match response {
        Ok(Some(response)) => response,
        Ok(None) => {
            return taken.into_iter().for_each(|taken| complete(inner, taken, Outcome::Unacknowledged));
        }
        Err(error) => {
            tracing::debug!(%error, batches = taken.len(), "a produce request failed");
            inner.cluster.has_broken(node);
            inner.want_refresh();
            return taken.into_iter().for_each(|taken| complete(inner, taken, Outcome::Lost(error.clone())));
        }
    };
    let metadata = inner.cluster.metadata();
    let find = |taken: &Taken| {
        let id = metadata.topic(&taken.topic.name).map_or(Uuid::nil(), |topic| topic.id);
        let topic = response.responses.iter().find(|topic| {
            if topic.topic_id.is_nil() { topic.name == taken.topic.wire_name } else { topic.topic_id == id }
        });
        topic.and_then(|topic| {
            topic.partition_responses.iter().find(|partition| partition.index == taken.partition as i32)
        })
    };
    let knows_leaders = learn_leaders(inner, &taken, &find, &response);
    for taken in taken {
        let outcome = match find(&taken) {
            Some(partition) => outcome(partition, knows_leaders),
            // The response lacks this partition: the topic id may have changed meanwhile.
            None => Outcome::Rejected {
                code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                message: Some("the response lacks the partition".into()),
                rows: Vec::new(),
                knows_leader: false,
            },
        };
        complete(inner, taken, outcome);
    }
}

/// Takes over the leaders that the response names. Returns whether that helps.
fn learn_leaders<'a>(
    inner: &Arc<Inner>,
    taken: &[Taken],
    find: &impl Fn(&Taken) -> Option<&'a PartitionProduceResponse>,
    response: &ProduceResponse,
) -> bool {
    let named = taken.iter().filter_map(|taken| {
        let leader = &find(taken)?.current_leader;
        let (topic, partition) = (&*taken.topic.name, taken.partition as i32);
        (leader.leader_id >= 0).then_some(NewLeader {
            topic,
            partition,
            id: leader.leader_id,
            epoch: leader.leader_epoch,
        })
    });
    let named: Vec<NewLeader<'_>> = named.collect();
    let learned = inner.cluster.learn_leaders(&named, &response.node_endpoints);
    if learned {
        taken.iter().for_each(|taken| inner.dispatch(&taken.topic));
    }
    learned
}

fn outcome(response: &PartitionProduceResponse, knows_leaders: bool) -> Outcome {
    match response.error_code {
        ErrorCode::NONE => {
            Outcome::Stored { base_offset: response.base_offset, log_append_time: response.log_append_time_ms }
        }
        code => Outcome::Rejected {
            code,
            knows_leader: knows_leaders && response.current_leader.leader_id >= 0,
            message: response.error_message.as_deref().map(Into::into),
            rows: response
                .record_errors
                .iter()
                .map(|row| (row.batch_index, row.batch_index_error_message.as_deref().unwrap_or_default().into()))
                .collect(),
        },
    }
}
