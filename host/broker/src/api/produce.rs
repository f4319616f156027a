//! Produce: check, patch, append, answer. Records are never decoded on the plain path; the bytes that a client sent are those
//! that are stored, but for base offset and leader epoch.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millstream_partition::{Acks, Committed, now_ms};
use millstream_record::{BatchHeader, Codec};
use millstream_wire::messages::{
    BatchIndexAndErrorMessage, PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse,
    TopicProduceData, TopicProduceResponse,
};
use millstream_wire::{ErrorCode, Records, Str, WireError};

use super::handler::{RequestContext, Started, TwoStageHandler};
use crate::blocking::blocking;
use crate::broker::Broker;
use crate::config::CompressionType;
use crate::edge::plugins;
use crate::edge::topic_stages::ActiveStages;
use crate::edge::{self, Route, ServedTopic, ServedTopics};
use crate::error::ApiError;
use crate::net::send_queue::Outgoing;
use crate::net::types::{Answer, Close};
use crate::produce::append::INLINE_COMPRESSED_BYTES;
use crate::produce::append::{Intake, Stored};
use crate::security::{AclOperation, Permission, ResourceType};
use crate::topics::Topic;

/// The first version that names topics by id.
const TOPIC_IDS_SINCE: i16 = 13;

/// The most bytes of records of one request that stages see on a worker that serves sockets.
const QUICK_BYTES: usize = 1 << 20;

/// A partition whose answer waits for stable storage: its place in the response, and the wait.
struct Wait {
    topic: usize,
    partition: usize,
    committed: Committed,
}

/// What a whole request appended.
struct AppendedAll {
    acks: i16,
    /// Why nothing of it may be appended.
    refusal: Option<ApiError>,
    /// The answer as far as it is known without waiting.
    response: ProduceResponse,
    waits: Vec<Wait>,
}

/// Where the batches of a topic are appended. The topic's [`Route`] decides, and for some routes the size of the batches.
enum Work {
    /// On the thread that serves the socket.
    Inline,
    /// On a thread for computing: they are decompressed or recoded.
    Compute,
    /// On a thread for computing, with a permit of the topic: they pass its stages.
    Stages(Arc<ActiveStages>),
    /// As those, but on the thread that serves the socket if a permit is free: the stages are quick.
    QuickStages(Arc<ActiveStages>),
    /// On a blocking thread, one request at a time: they change the plug-ins.
    Registry,
}

pub(super) struct Produce;

impl TwoStageHandler for Produce {
    type Request = ProduceRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=13;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Write, ResourceType::Topic));

    fn start(
        broker: &Arc<Broker>,
        context: RequestContext,
        body: Result<ProduceRequest, WireError>,
    ) -> Result<Started, Close> {
        let request = body.map_err(|error| context.undecodable(error))?;
        let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
        let mut appended = AppendedAll::new(&request);
        let mut topics = request.topic_data.into_iter();
        let table = broker.topics.load();
        while let Some(data) = topics.next() {
            let topic = appended.resolve(&table, context.version, &data);
            let work = topic.as_ref().map_or(Work::Inline, |topic| Work::of(topic, &data));
            if matches!(work, Work::Inline) {
                appended.append(broker, context.version, topic, data);
                continue;
            }
            let first = (topic.cloned(), data, work);
            drop(table);
            let rest = append_apart(Arc::clone(broker), context, appended, first, topics, timeout);
            return Ok(Started::Alone(Box::pin(rest)));
        }
        drop(table);
        if appended.acks == 0 {
            return silent(&context, &appended.response).map(|()| Started::Silent);
        }
        if appended.waits.is_empty() {
            return context.respond(&appended.response).map(Started::Ready);
        }
        Ok(Started::Later(Box::pin(settle_all(context, appended, timeout))))
    }
}

/// Appends topic after topic, each where its work does not hold up other connections.
async fn append_apart(
    broker: Arc<Broker>,
    context: RequestContext,
    mut appended: AppendedAll,
    first: (Result<Arc<ServedTopic>, ApiError>, TopicProduceData, Work),
    mut others: std::vec::IntoIter<TopicProduceData>,
    timeout: Duration,
) -> Result<Answer, Close> {
    let version = context.version;
    let mut next = Some(first);
    while let Some((topic, data, work)) = next {
        let owner = Arc::clone(&broker);
        let append = move || {
            appended.append(&owner, version, topic.as_ref().map_err(Clone::clone), data);
            appended
        };
        let done = match work {
            Work::Inline => Ok(append()),
            Work::Compute => broker.compute.run(append).await,
            Work::Stages(stages) => stages.permits.run(append).await,
            Work::QuickStages(stages) => stages.permits.run_quick(append).await,
            Work::Registry => {
                let turn = broker.plugins.turn().await;
                let append = move || {
                    let done = append();
                    drop(turn);
                    done
                };
                blocking(append).await
            }
        };
        appended = done.map_err(|error| Close::Protocol(error.to_string()))?;
        next = others.next().map(|data| {
            let topic = appended.resolve(&broker.topics.load(), version, &data).cloned();
            let work = topic.as_ref().map_or(Work::Inline, |topic| Work::of(topic, &data));
            (topic, data, work)
        });
    }
    Ok(Box::pin(settle_all(context, appended, timeout)))
}

impl Work {
    fn of(topic: &ServedTopic, data: &TopicProduceData) -> Self {
        match &topic.edge.route {
            Route::Plain | Route::Reject(_) => Self::Inline,
            Route::Registry => Self::Registry,
            Route::Recode => {
                let decompresses = topic.config.decompresses() && records_bytes(data) > INLINE_COMPRESSED_BYTES;
                let is_heavy = |codec| is_recoded(topic, codec) || decompresses && codec != Codec::None;
                if codecs(data).any(is_heavy) { Self::Compute } else { Self::Inline }
            }
            Route::Stages(stages) => {
                // A compressor takes longer than all else that is done for a batch.
                let is_quick = stages.pace.is_quick()
                    && stages.compressor.is_none()
                    && records_bytes(data) <= QUICK_BYTES
                    && codecs(data).all(|codec| codec == Codec::None && !is_recoded(topic, codec));
                let stages = Arc::clone(stages);
                if is_quick { Self::QuickStages(stages) } else { Self::Stages(stages) }
            }
        }
    }
}

/// Returns whether a batch in this codec is stored in another one.
fn is_recoded(topic: &Topic, codec: Codec) -> bool {
    matches!(topic.config.compression, CompressionType::Codec(stored) if stored != codec)
}

fn records_bytes(data: &TopicProduceData) -> usize {
    let bytes = |partition: &PartitionProduceData| partition.records.as_bytes().map_or(0, Bytes::len);
    data.partition_data.iter().map(bytes).sum()
}

fn codecs(data: &TopicProduceData) -> impl Iterator<Item = Codec> {
    data.partition_data.iter().filter_map(|partition| codec_of(&partition.records))
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
    let AppendedAll { acks, mut response, waits, .. } = appended;
    if acks == 0 {
        return silent(&context, &response).map(|()| None);
    }
    let deadline = tokio::time::Instant::now() + timeout;
    for Wait { topic, partition, committed } in waits {
        if let Err(error) = settle(committed, deadline).await {
            let index = response.responses[topic].partition_responses[partition].index;
            response.responses[topic].partition_responses[partition] = refused(index, error);
        }
    }
    context.respond(&response).map(Some)
}

/// Ends a produce with acks=0, which has no response: an error closes the connection, as with Kafka.
fn silent(context: &RequestContext, response: &ProduceResponse) -> Result<(), Close> {
    let mut partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    match partitions.find(|partition| partition.error_code.is_err()) {
        None => Ok(()),
        Some(failed) => {
            let words = failed.error_message.as_deref().unwrap_or_default();
            Err(context.close(format!("a produce with acks=0 failed: {words}")))
        }
    }
}

async fn settle(committed: Committed, deadline: tokio::time::Instant) -> Result<(), ApiError> {
    let Ok(outcome) = tokio::time::timeout_at(deadline, committed).await else {
        return Err(ApiError::new(
            ErrorCode::REQUEST_TIMED_OUT,
            "the batch was not committed within the request's timeout",
        ));
    };
    Ok(outcome?)
}

impl AppendedAll {
    fn new(request: &ProduceRequest) -> Self {
        let responses = Vec::with_capacity(request.topic_data.len());
        let response = ProduceResponse { responses, ..Default::default() };
        Self { acks: request.acks, refusal: refuse_all(request), response, waits: Vec::new() }
    }

    /// Returns the topic of the next batches.
    fn resolve<'t>(
        &self,
        table: &'t ServedTopics,
        version: i16,
        data: &TopicProduceData,
    ) -> Result<&'t Arc<ServedTopic>, ApiError> {
        match &self.refusal {
            Some(refusal) => Err(refusal.clone()),
            None => table.resolve(version >= TOPIC_IDS_SINCE, &data.name, data.topic_id),
        }
    }

    /// Appends the batches of one topic.
    fn append(
        &mut self,
        broker: &Arc<Broker>,
        version: i16,
        topic: Result<&Arc<ServedTopic>, ApiError>,
        data: TopicProduceData,
    ) {
        let mut partition_responses = Vec::with_capacity(data.partition_data.len());
        for PartitionProduceData { index, records } in data.partition_data {
            let stored = match &topic {
                Ok(topic) => append(broker, version, self.acks, topic, index, &records),
                Err(error) => Err(error.clone()),
            };
            let (topic, partition) = (self.response.responses.len(), partition_responses.len());
            partition_responses.push(match stored {
                Ok(stored) => {
                    if !stored.committed.is_now() {
                        self.waits.push(Wait { topic, partition, committed: stored.committed });
                    }
                    PartitionProduceResponse {
                        index,
                        base_offset: stored.base_offset,
                        log_append_time_ms: stored.log_append_time,
                        log_start_offset: stored.log_start_offset,
                        ..Default::default()
                    }
                }
                Err(error) => refused(index, error),
            });
        }
        // The table's own name, so that an answer that waits does not keep the request's bytes.
        let name = topic.map_or(data.name, |topic| topic.name.clone());
        self.response.responses.push(TopicProduceResponse { name, topic_id: data.topic_id, partition_responses });
    }
}

/// What is wrong with the request as a whole.
fn refuse_all(request: &ProduceRequest) -> Option<ApiError> {
    if !matches!(request.acks, -1..=1) {
        let message = format!("acks={} is not one of -1, 0, 1", request.acks);
        return Some(ApiError::new(ErrorCode::INVALID_REQUIRED_ACKS, message));
    }
    None
}

fn refused(index: i32, error: ApiError) -> PartitionProduceResponse {
    let record_errors = error.records.iter().map(|(record, message)| BatchIndexAndErrorMessage {
        batch_index: i32::try_from(*record).unwrap_or(i32::MAX),
        batch_index_error_message: Some(Str::from(message.as_str())).filter(|message| !message.is_empty()),
    });
    PartitionProduceResponse {
        index,
        error_code: error.code,
        base_offset: -1,
        record_errors: record_errors.collect(),
        error_message: error.text(),
        ..Default::default()
    }
}

fn append(
    broker: &Arc<Broker>,
    version: i16,
    acks: i16,
    topic: &ServedTopic,
    index: i32,
    records: &Records,
) -> Result<Stored, ApiError> {
    let partition = topic.partition(index).ok_or_else(ApiError::unknown_topic)?;
    if let Route::Reject(error) = &topic.edge.route {
        return Err(error.clone());
    }
    if acks == -1 && topic.config.min_insync_replicas > 1 {
        let message =
            format!("1 replica is in sync, min.insync.replicas asks for {}", topic.config.min_insync_replicas);
        return Err(ApiError::new(ErrorCode::NOT_ENOUGH_REPLICAS, message));
    }
    let acks = Acks::from_wire(acks).unwrap_or(Acks::All);
    let intake = Intake { broker, version, acks, topic, partition, now_ms: now_ms() };
    let sent = records.as_bytes().map_or(&[][..], Bytes::as_ref);
    let stored = match &topic.edge.route {
        Route::Plain | Route::Recode => intake.append(sent),
        Route::Stages(stages) => edge::admit(&intake, topic, stages, sent),
        Route::Registry => {
            let batch = intake.check(sent)?;
            plugins::write(broker, partition, &batch, || intake.append_checked(&batch))
        }
        Route::Reject(error) => return Err(error.clone()),
    };
    if let Err(error) = &stored
        && error.is_storage_fault()
    {
        partition.report("a produce failed", error);
    }
    stored
}
