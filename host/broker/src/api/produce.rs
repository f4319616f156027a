//! Produce: check, patch, append, answer. Records are never decoded on the plain path; the bytes that a client sent are those
//! that are stored, but for base offset and leader epoch.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millstream_log::AppendError;
use millstream_record::validate::{ProduceRules, TimestampBounds, check_decoded, check_records, validate_produce};
use millstream_record::{BatchHeader, BatchView, Codec};
use millstream_wire::messages::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceResponse,
};
use millstream_wire::{ErrorCode, Records};

use super::{RequestContext, Started};
use crate::broker::Broker;
use crate::config::{CompressionType, FlushMode};
use crate::connection::Close;
use crate::controller;
use crate::error::ApiError;
use crate::group_commit::Durable;
use crate::outgoing::Outgoing;
use crate::partition::Partition;
use crate::plugins;
use crate::recode::recode;
use crate::time::now_ms;
use crate::topics::Topic;

/// The first version that may carry zstd.
const ZSTD_SINCE: i16 = 7;

/// The first version that names topics by id.
const TOPIC_IDS_SINCE: i16 = 13;

/// A partition whose answer waits for stable storage: its place in the response, and the wait.
struct Wait {
    topic: usize,
    partition: usize,
    durable: Durable,
}

/// What one partition appended.
struct Stored {
    base_offset: i64,
    log_append_time: i64,
    log_start_offset: i64,
    durable: Option<Durable>,
}

/// What a whole request appended.
struct AppendedAll {
    acks: i16,
    /// The answer as far as it is known without waiting.
    response: ProduceResponse,
    waits: Vec<Wait>,
}

pub(super) fn start(broker: &Arc<Broker>, context: RequestContext, request: ProduceRequest) -> Result<Started, Close> {
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    if is_for_plugins(broker, &context, &request) {
        let broker = Arc::clone(broker);
        return Ok(Started::Alone(Box::pin(async move {
            let turn = broker.plugins.turn().await;
            let work = move |broker: &Arc<Broker>| {
                let done = (append_all(broker, &context, request), context);
                drop(turn);
                done
            };
            let done = controller::blocking(&broker, work).await;
            let (appended, context) = done.map_err(|error| Close::Protocol(error.to_string()))?;
            settle_all(context, appended, timeout).await
        })));
    }
    if is_heavy(broker, &context, &request) {
        let broker = Arc::clone(broker);
        return Ok(Started::Alone(Box::pin(async move {
            let work = move |broker: &Arc<Broker>| (append_all(broker, &context, request), context);
            let done = broker.heavy(work).await;
            let (appended, context) = done.map_err(|error| Close::Protocol(error.to_string()))?;
            settle_all(context, appended, timeout).await
        })));
    }
    let appended = append_all(broker, &context, request);
    if appended.acks == 0 {
        return silent(&appended.response).map(|()| Started::Silent);
    }
    if appended.waits.is_empty() {
        return context.respond(&appended.response).map(Started::Ready);
    }
    Ok(Started::Later(Box::pin(settle_all(context, appended, timeout))))
}

/// Whether the request writes to the store of plug-ins: that may compile, and waits for its turn.
fn is_for_plugins(broker: &Broker, context: &RequestContext, request: &ProduceRequest) -> bool {
    let table = broker.topics.load();
    request.topic_data.iter().any(|data| {
        let found = table.resolve(context.version >= TOPIC_IDS_SINCE, &data.name, data.topic_id);
        found.is_ok_and(|topic| topic.name.as_str() == plugins::TOPIC)
    })
}

/// Whether a topic of the request has the broker decompress or recode what was sent: that would hold up a worker.
fn is_heavy(broker: &Broker, context: &RequestContext, request: &ProduceRequest) -> bool {
    let table = broker.topics.load();
    request.topic_data.iter().any(|data| {
        let found = table.resolve(context.version >= TOPIC_IDS_SINCE, &data.name, data.topic_id);
        let Ok(topic) = found else { return false };
        data.partition_data.iter().filter_map(|partition| codec_of(&partition.records)).any(|codec| {
            matches!(topic.config.compression, CompressionType::Codec(stored) if stored != codec)
                || topic.config.compact && codec != Codec::None
        })
    })
}

/// The codec of a batch; none for what is no batch, which is refused without looking into it.
fn codec_of(records: &Records) -> Option<Codec> {
    BatchHeader::parse(records.as_bytes()?).ok()?.codec().ok()
}

/// Waits for stable storage where the answer asks for it, then answers.
async fn settle_all(
    context: RequestContext,
    appended: AppendedAll,
    timeout: Duration,
) -> Result<Option<Outgoing>, Close> {
    let AppendedAll { acks, mut response, waits } = appended;
    if acks == 0 {
        return silent(&response).map(|()| None);
    }
    let deadline = tokio::time::Instant::now() + timeout;
    for Wait { topic, partition, durable } in waits {
        if let Err(error) = settle(durable, deadline).await {
            let index = response.responses[topic].partition_responses[partition].index;
            response.responses[topic].partition_responses[partition] = refused(index, &error);
        }
    }
    context.respond(&response).map(Some)
}

/// There is no answer to acks=0; a client learns of an error by losing its connection, as with Kafka.
fn silent(response: &ProduceResponse) -> Result<(), Close> {
    let mut partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    match partitions.find(|partition| partition.error_code.is_err()) {
        None => Ok(()),
        Some(failed) => {
            let words = failed.error_message.as_deref().unwrap_or_default();
            Err(Close::Protocol(format!("a produce with acks=0 failed: {words}")))
        }
    }
}

async fn settle(durable: Durable, deadline: tokio::time::Instant) -> Result<(), ApiError> {
    let Ok(done) = tokio::time::timeout_at(deadline, durable).await else {
        return Err(ApiError::new(ErrorCode::REQUEST_TIMED_OUT, "the batch did not reach stable storage in time"));
    };
    done.unwrap_or_else(|_| Err(ApiError::new(ErrorCode::NOT_LEADER_OR_FOLLOWER, "the broker stops")))
}

fn append_all(broker: &Arc<Broker>, context: &RequestContext, request: ProduceRequest) -> AppendedAll {
    let refusal = refuse_all(&request);
    let table = broker.topics.load();
    let mut waits = Vec::new();
    let mut responses = Vec::with_capacity(request.topic_data.len());
    for data in request.topic_data {
        let topic = match &refusal {
            Some(refusal) => Err(refusal.clone()),
            None => table.resolve(context.version >= TOPIC_IDS_SINCE, &data.name, data.topic_id),
        };
        let mut partition_responses = Vec::with_capacity(data.partition_data.len());
        for partition in data.partition_data {
            let stored = match &topic {
                Ok(topic) => append(broker, context.version, request.acks, topic, partition.index, &partition.records),
                Err(error) => Err(error.clone()),
            };
            let (place, index) = (partition_responses.len(), partition.index);
            partition_responses.push(match stored {
                Ok(stored) => {
                    let wait = |durable| Wait { topic: responses.len(), partition: place, durable };
                    waits.extend(stored.durable.map(wait));
                    PartitionProduceResponse {
                        index,
                        base_offset: stored.base_offset,
                        log_append_time_ms: stored.log_append_time,
                        log_start_offset: stored.log_start_offset,
                        ..Default::default()
                    }
                }
                Err(error) => refused(index, &error),
            });
        }
        // The table's own name, so that an answer that waits does not keep the request's bytes.
        let name = topic.map_or(data.name, |topic| topic.name.clone());
        responses.push(TopicProduceResponse { name, topic_id: data.topic_id, partition_responses });
    }
    AppendedAll { acks: request.acks, response: ProduceResponse { responses, ..Default::default() }, waits }
}

/// What is wrong with the request as a whole.
fn refuse_all(request: &ProduceRequest) -> Option<ApiError> {
    if !matches!(request.acks, -1..=1) {
        let message = format!("acks={} is none of -1, 0, 1", request.acks);
        return Some(ApiError::new(ErrorCode::INVALID_REQUIRED_ACKS, message));
    }
    None
}

fn refused(index: i32, error: &ApiError) -> PartitionProduceResponse {
    let record_errors = error.record.map(|record| BatchIndexAndErrorMessage {
        batch_index: i32::try_from(record).unwrap_or(i32::MAX),
        batch_index_error_message: error.text(),
    });
    PartitionProduceResponse {
        index,
        error_code: error.code,
        base_offset: -1,
        record_errors: record_errors.into_iter().collect(),
        error_message: error.text(),
        ..Default::default()
    }
}

fn append(
    broker: &Arc<Broker>,
    version: i16,
    acks: i16,
    topic: &Topic,
    index: i32,
    records: &Records,
) -> Result<Stored, ApiError> {
    let partition = topic.partition(index).ok_or_else(ApiError::unknown_topic)?;
    topic.check_takes_records()?;
    let is_for_plugins = topic.name.as_str() == plugins::TOPIC;
    if topic.is_internal() && !is_for_plugins {
        let message = format!("{} belongs to the broker", topic.name.as_str());
        return Err(ApiError::new(ErrorCode::INVALID_TOPIC_EXCEPTION, message));
    }
    if acks == -1 && topic.config.min_insync_replicas > 1 {
        let message =
            format!("1 replica is in sync, min.insync.replicas asks for {}", topic.config.min_insync_replicas);
        return Err(ApiError::new(ErrorCode::NOT_ENOUGH_REPLICAS, message));
    }
    let now = now_ms();
    let sent = records.as_bytes().map_or(&[][..], Bytes::as_ref);
    let timestamps = bounds(topic, now);
    let batch = check(broker, topic, version, timestamps, sent)?;
    if is_for_plugins {
        return plugins::write(broker, partition, &batch, || store(broker, acks, topic, partition, sent, now));
    }
    let recoded = match topic.config.compression {
        CompressionType::Codec(codec) if batch.codec() != Ok(codec) => {
            let records = batch.records(broker.config.request_max_bytes)?;
            check_decoded(&batch, &records, timestamps)?;
            Some(recode(&batch, &records, codec, &topic.config)?)
        }
        _ => None,
    };
    store(broker, acks, topic, partition, recoded.as_deref().unwrap_or(sent), now)
}

/// What timestamps a producer may send; any, where the broker stamps its own.
fn bounds(topic: &Topic, now_ms: i64) -> Option<TimestampBounds> {
    (!topic.config.log_append_time).then_some(TimestampBounds {
        now_ms,
        before_ms_max: topic.config.timestamp_before_max_ms,
        after_ms_max: topic.config.timestamp_after_max_ms,
    })
}

/// The checks before the append. What a plain topic needs, the batch's header and its CRC tell; the records themselves are
/// walked, without decoding, where that costs no decompression, so that no malformed record lies in wait for a consumer.
fn check<'a>(
    broker: &Broker,
    topic: &Topic,
    version: i16,
    timestamps: Option<TimestampBounds>,
    sent: &'a [u8],
) -> Result<BatchView<'a>, ApiError> {
    let config = &topic.config;
    let rules = ProduceRules { batch_bytes_max: usize::try_from(config.max_message_bytes).unwrap_or(0), timestamps };
    let batch = validate_produce(sent, &rules)?;
    let codec = batch.codec().map_err(millstream_record::BatchError::from)?;
    if codec == Codec::Zstd && version < ZSTD_SINCE {
        let message = format!("zstd needs Produce v{ZSTD_SINCE}, and this is v{version}");
        return Err(ApiError::new(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE, message));
    }
    if batch.is_transactional() {
        return Err(ApiError::new(ErrorCode::INVALID_TXN_STATE, "transactions are not supported by this broker"));
    }
    if codec == Codec::None || config.compact {
        let summary = check_records(&batch, broker.config.request_max_bytes, timestamps)?;
        if config.compact && summary.null_keys > 0 {
            let message = "Compacted topic cannot accept message without key";
            let error = ApiError::new(ErrorCode::INVALID_RECORD, format!("{message} in topic {}", topic.name.as_str()));
            return Err(ApiError { record: summary.first_null_key, ..error });
        }
    }
    Ok(batch)
}

fn store(
    broker: &Arc<Broker>,
    acks: i16,
    topic: &Topic,
    partition: &Arc<Partition>,
    batch: &[u8],
    now: i64,
) -> Result<Stored, ApiError> {
    let (base_offset, last_offset, log_append_time) = match partition.append(batch, now)? {
        Ok(appended) => (appended.base_offset, appended.last_offset, appended.log_append_time),
        // The producer did not get the first answer: it gets the same one again.
        Err(AppendError::Duplicate { base_offset, last_offset, timestamp }) => {
            (base_offset, last_offset, if topic.config.log_append_time { timestamp } else { -1 })
        }
        Err(error) => return Err(error.into()),
    };
    let waits = acks == -1 && broker.config.flush_mode == FlushMode::Fsync || must_flush(topic, partition)?;
    Ok(Stored {
        base_offset,
        log_append_time,
        log_start_offset: partition.reader()?.log_start_offset(),
        durable: waits.then(|| broker.syncer.wait(partition, last_offset + 1)),
    })
}

/// Whether `flush.messages` asks for a sync now, whatever the producer's acks say.
fn must_flush(topic: &Topic, partition: &Partition) -> Result<bool, ApiError> {
    let most = topic.config.flush_messages;
    if most == i64::MAX {
        return Ok(false);
    }
    partition.with_log(|log| log.log_end_offset() - log.recovery_point() >= most)
}
