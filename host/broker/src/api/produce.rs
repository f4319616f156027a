//! Produce: check, patch, append, respond. On the plain path records are never decoded; the stored bytes are those that
//! the client sent, except for base offset and leader epoch.

mod transaction;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millstream_partition::{Acks, Committed, Partition, now_ms};
use millstream_record::{BatchHeader, Codec};
use millstream_wire::messages::{
    BatchIndexAndErrorMessage, PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse,
    TopicProduceData, TopicProduceResponse,
};
use millstream_wire::{ErrorCode, Records, Str, WireError};

use self::transaction::{Beginning, Transaction};
use super::current_leader;
use super::handler::{ENTRY_BYTES, RequestContext, Started, TwoStageHandler};
use crate::broker::Broker;
use crate::config::CompressionType;
use crate::edge::plugins;
use crate::edge::topic_stages::ActiveStages;
use crate::edge::{Admission, Admitted, Edge, PendingAppend, Route, ServedTopic, ServedTopics, admit};
use crate::error::ApiError;
use crate::log_dirs::LogDirs;
use crate::net::send_queue::Outgoing;
use crate::net::types::{Answer, Close};
use crate::produce::append::INLINE_COMPRESSED_BYTES;
use crate::produce::append::{Intake, Stored};
use crate::produce::expected_leadership::{expects_to_lead, wait_to_lead};
use crate::produce::verifier::ADDS_SINCE;
use crate::security::{AclOperation, Permission, ResourceType};
use crate::topics::Topic;

/// The first version that names topics by id.
const TOPIC_IDS_SINCE: i16 = 13;

/// The first version that names the leaders of partitions that this broker does not lead.
const LEADERS_SINCE: i16 = 10;

/// The most bytes of records of one request that stages process on a worker that serves sockets.
const QUICK_BYTES: usize = 1 << 20;

/// A partition whose response waits for stable storage: its index in the response, and the wait.
struct Wait {
    topic: usize,
    partition: usize,
    committed: Committed,
}

/// The result of a whole request.
struct AppendedAll {
    produced: Produced,
    /// Why nothing of it may be appended.
    refusal: Option<ApiError>,
    /// The response before the waits.
    response: ProduceResponse,
    /// Whether this broker does not lead a partition of the request.
    lacks_leader: bool,
    waits: Vec<Wait>,
    /// About the memory for the response.
    response_bytes: usize,
}

/// The thread for a topic's batches. The topic's [`Route`] decides, and for some routes the size of the batches.
enum Work {
    /// On the thread that serves the socket.
    Inline,
    /// On a thread for computing: they are decompressed or recoded.
    Compute,
    /// On a thread for computing, with a permit of the topic: they pass its stages.
    Stages(Arc<ActiveStages>),
    /// As `Stages`, but on the thread that serves the socket if a permit is free: the stages are quick.
    QuickStages(Arc<ActiveStages>),
    /// One request at a time, since they change the plug-ins.
    Registry,
    /// They are not appended.
    Reject(ApiError),
}

/// The batches of a topic, and the thread to append them on.
struct Job {
    /// `None` if the topic is not served.
    topic: Option<Arc<ServedTopic>>,
    data: TopicProduceData,
    work: Work,
}

/// The parts that all batches of a request share.
#[derive(Clone)]
struct Produced {
    version: i16,
    acks: i16,
    /// The most bytes that a batch may decompress to.
    request_bytes_max: usize,
    transaction: Transaction,
    /// The data folders, if the disk of some is full.
    full_disks: Option<Arc<LogDirs>>,
}

pub(super) struct Produce;

impl TwoStageHandler for Produce {
    type Request = ProduceRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=13;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Write, ResourceType::Topic));

    fn start(
        broker: &Arc<Broker>,
        mut context: RequestContext,
        body: Result<ProduceRequest, WireError>,
    ) -> Result<Started, Close> {
        let request = body.map_err(|error| context.undecodable(error))?;
        let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
        let mut appended = AppendedAll::new(broker, context.version, &request);
        let beginning = match request.transactional_id {
            Some(id) => appended.begin_transaction(broker, id, &request.topic_data).err(),
            None => None,
        };
        if beginning.is_some() || !context.try_expect(&broker.message_memory, appended.response_bytes) {
            let rest =
                append_after_waits(Arc::clone(broker), context, appended, beginning, request.topic_data, timeout);
            return Ok(Started::Alone(Box::pin(rest)));
        }
        let mut topics = request.topic_data.into_iter();
        let table = broker.topics.load();
        while let Some(data) = topics.next() {
            let topic = appended.resolve(&table, &data);
            match Work::of(&topic, &data) {
                Work::Inline if !topic.as_ref().is_ok_and(|topic| expects_to_lead(topic, &data)) => {
                    appended.append(topic, data);
                }
                work => {
                    let job = Job { topic: topic.ok().cloned(), data, work };
                    drop(table);
                    let rest = append_apart(Arc::clone(broker), context, appended, Some(job), topics, timeout);
                    return Ok(Started::Alone(Box::pin(rest)));
                }
            }
        }
        drop(table);
        if appended.produced.acks == 0 {
            return silent(&context, &appended.response).map(|()| Started::Silent);
        }
        if appended.waits.is_empty() {
            return context.respond(&appended.with_leaders(broker, &context)).map(Started::Ready);
        }
        Ok(Started::Later(Box::pin(settle_all(Arc::clone(broker), context, appended, timeout))))
    }
}

/// Waits for the memory of the response, asks the coordinator of the request's transaction if it begins somewhere, then
/// appends topic after topic.
async fn append_after_waits(
    broker: Arc<Broker>,
    mut context: RequestContext,
    mut appended: AppendedAll,
    beginning: Option<Box<Beginning>>,
    topics: Vec<TopicProduceData>,
    timeout: Duration,
) -> Result<Answer, Close> {
    context.expect(&broker.message_memory, appended.response_bytes).await;
    if let Some(beginning) = beginning {
        appended.produced.transaction = beginning.verify(&broker).await;
    }
    let mut topics = topics.into_iter();
    let first = topics.next().map(|data| appended.job(&broker, data));
    append_apart(broker, context, appended, first, topics, timeout).await
}

/// Appends topic after topic, each where its work does not delay other connections.
async fn append_apart(
    broker: Arc<Broker>,
    context: RequestContext,
    mut appended: AppendedAll,
    mut next: Option<Job>,
    mut others: std::vec::IntoIter<TopicProduceData>,
    timeout: Duration,
) -> Result<Answer, Close> {
    while let Some(job) = next {
        if let Some(topic) = job.topic.as_ref().filter(|topic| expects_to_lead(topic, &job.data)) {
            wait_to_lead(topic, &job.data, broker.roles.clone()).await;
        }
        let done = appended.run(&broker, job).await;
        appended = done.map_err(|error| Close::Protocol(error.to_string()))?;
        next = others.next().map(|data| appended.job(&broker, data));
    }
    Ok(Box::pin(settle_all(broker, context, appended, timeout)))
}

impl Work {
    fn of(topic: &Result<&Arc<ServedTopic>, ApiError>, data: &TopicProduceData) -> Self {
        let topic = match topic {
            Ok(topic) => topic,
            Err(error) => return Self::Reject(error.clone()),
        };
        match &topic.edge.route {
            Route::Plain => Self::Inline,
            Route::Reject(error) => Self::Reject(error.clone()),
            Route::Registry => Self::Registry,
            Route::Recode => {
                let decompresses = topic.config.decompresses() && records_bytes(data) > INLINE_COMPRESSED_BYTES;
                let is_heavy = |codec| is_recoded(topic, codec) || decompresses && codec != Codec::None;
                if codecs(data).any(is_heavy) { Self::Compute } else { Self::Inline }
            }
            Route::Stages(stages) => {
                // A compressor takes longer than all other work on a batch.
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

/// Returns the codec of a batch; `None` for bytes that are not a batch, which are rejected unread.
fn codec_of(records: &Records) -> Option<Codec> {
    BatchHeader::parse(records.as_bytes()?).ok()?.codec().ok()
}

/// Waits for stable storage if needed, then responds.
async fn settle_all(
    broker: Arc<Broker>,
    mut context: RequestContext,
    mut appended: AppendedAll,
    timeout: Duration,
) -> Result<Option<Outgoing>, Close> {
    context.release_frame(appended.response_bytes);
    if appended.produced.acks == 0 {
        return silent(&context, &appended.response).map(|()| None);
    }
    let deadline = tokio::time::Instant::now() + timeout;
    for Wait { topic, partition, committed } in std::mem::take(&mut appended.waits) {
        if let Err(error) = settle(committed, deadline).await {
            let index = appended.response.responses[topic].partition_responses[partition].index;
            appended.response.responses[topic].partition_responses[partition] = appended.refused(index, error);
        }
    }
    context.respond(&appended.with_leaders(&broker, &context)).map(Some)
}

/// Ends a produce with acks=0, which has no response: an error closes the connection, as in Kafka.
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
    fn new(broker: &Broker, version: i16, request: &ProduceRequest) -> Self {
        let responses = Vec::with_capacity(request.topic_data.len());
        let response = ProduceResponse { responses, ..Default::default() };
        let request_bytes_max = broker.config.request_max_bytes;
        let transaction = Transaction::None;
        let full_disks = broker.dirs.is_any_full().then(|| Arc::clone(&broker.dirs));
        let produced = Produced { version, acks: request.acks, request_bytes_max, transaction, full_disks };
        let partitions: usize = request.topic_data.iter().map(|topic| topic.partition_data.len()).sum();
        Self {
            produced,
            refusal: refuse_all(request),
            response,
            lacks_leader: false,
            waits: Vec::new(),
            response_bytes: ENTRY_BYTES * partitions,
        }
    }

    /// Returns the topic of the next batches.
    fn resolve<'t>(&self, table: &'t ServedTopics, data: &TopicProduceData) -> Result<&'t Arc<ServedTopic>, ApiError> {
        match &self.refusal {
            Some(refusal) => Err(refusal.clone()),
            None => self.produced.topic(table, data),
        }
    }

    /// Returns the next batches with their work.
    fn job(&self, broker: &Broker, data: TopicProduceData) -> Job {
        let table = broker.topics.load();
        let topic = self.resolve(&table, &data);
        let work = Work::of(&topic, &data);
        Job { topic: topic.ok().cloned(), data, work }
    }

    /// Notes the transaction of the request. Returns the partitions in which it begins, where the coordinator has to
    /// be asked.
    fn begin_transaction(
        &mut self,
        broker: &Broker,
        transactional_id: Str,
        topics: &[TopicProduceData],
    ) -> Result<(), Box<Beginning>> {
        if self.refusal.is_some() {
            return Ok(());
        }
        // A copy: the id outlives the request's frame.
        let id = transactional_id.copied();
        if !broker.config.verifies_transactions && self.produced.version < ADDS_SINCE {
            self.produced.transaction = Transaction::Trusted(id);
            return Ok(());
        }
        match Beginning::of(id, &self.produced, &broker.topics.load(), topics).map(Beginning::known) {
            Ok(Ok(transaction)) => self.produced.transaction = transaction,
            Ok(Err(beginning)) => return Err(beginning),
            Err(error) => self.refusal = Some(error),
        }
        Ok(())
    }

    /// Appends the batches of one topic.
    async fn run(mut self, broker: &Arc<Broker>, job: Job) -> Result<Self, ApiError> {
        let Job { topic, data, work } = job;
        let Some(topic) = topic else {
            let error = if let Work::Reject(error) = work { error } else { ApiError::unknown_topic() };
            self.append(Err(error), data);
            return Ok(self);
        };
        match work {
            Work::Inline => self.append(Ok(&topic), data),
            Work::Reject(error) => self.append(Err(error), data),
            Work::Compute => {
                let append = move || {
                    self.append(Ok(&topic), data);
                    self
                };
                return broker.compute.run(append).await;
            }
            Work::Stages(stages) => return self.append_staged(broker, topic, stages, data, false).await,
            Work::QuickStages(stages) => return self.append_staged(broker, topic, stages, data, true).await,
            Work::Registry => self.append_registry(broker, &topic, data).await,
        }
        Ok(self)
    }

    /// Appends the batches of one topic unchanged, or recoded.
    fn append(&mut self, topic: Result<&Arc<ServedTopic>, ApiError>, data: TopicProduceData) {
        self.begin_topic(topic.as_ref().ok().copied(), &data);
        for PartitionProduceData { index, records } in data.partition_data {
            let stored = match &topic {
                Ok(topic) => self.produced.intake(topic, index).and_then(|intake| {
                    let sent = records.as_bytes().map_or(&[][..], Bytes::as_ref);
                    report_fault(intake.partition, intake.append(sent))
                }),
                Err(error) => Err(error.clone()),
            };
            self.add(index, stored);
        }
    }

    /// Passes the batches of one topic through its stages, and appends them.
    async fn append_staged(
        mut self,
        broker: &Arc<Broker>,
        topic: Arc<ServedTopic>,
        stages: Arc<ActiveStages>,
        data: TopicProduceData,
        is_quick: bool,
    ) -> Result<Self, ApiError> {
        self.begin_topic(Some(&topic), &data);
        let permits = stages.permits.clone();
        let batches = data.partition_data.into_iter();
        let mut staged = Staged { edge: Arc::clone(&broker.edge), topic, stages, batches, appended: self };
        loop {
            let work = move || {
                let pending = staged.run();
                (staged, pending)
            };
            let done = if is_quick { permits.run_quick(work).await } else { permits.run(work).await };
            let pending;
            (staged, pending) = done?;
            let Some((index, pending)) = pending else { return Ok(staged.appended) };
            let partition = pending.partition();
            let stored = pending.finish(&broker.edge, &broker.changes).await;
            staged.appended.add(index, report_fault(&partition, stored));
        }
    }

    /// Appends batches that change the plug-ins.
    async fn append_registry(&mut self, broker: &Broker, topic: &Arc<ServedTopic>, data: TopicProduceData) {
        self.begin_topic(Some(topic), &data);
        for PartitionProduceData { index, records } in data.partition_data {
            let sent = records.as_bytes().cloned().unwrap_or_default();
            let stored = self.produced.clone().append_registry(broker, topic, index, sent).await;
            self.add(index, stored);
        }
    }

    /// Begins the response for the batches of one topic.
    fn begin_topic(&mut self, topic: Option<&Arc<ServedTopic>>, data: &TopicProduceData) {
        // Uses the table's own name, so that a response that waits does not keep the request's bytes.
        let name = topic.map_or_else(|| data.name.copied(), |topic| topic.name.clone());
        let partition_responses = Vec::with_capacity(data.partition_data.len());
        self.response.responses.push(TopicProduceResponse { name, topic_id: data.topic_id, partition_responses });
    }

    /// Adds the result for a batch to the response for its topic.
    fn add(&mut self, index: i32, stored: Result<Stored, ApiError>) {
        let Some(topic) = self.response.responses.len().checked_sub(1) else { return };
        let partition = self.response.responses[topic].partition_responses.len();
        let response = match stored {
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
            Err(error) => self.refused(index, error),
        };
        self.response.responses[topic].partition_responses.push(response);
    }

    fn refused(&mut self, index: i32, error: ApiError) -> PartitionProduceResponse {
        self.lacks_leader |= error.code == ErrorCode::NOT_LEADER_OR_FOLLOWER;
        refused(index, error)
    }

    /// Returns the response. It names the leaders of the partitions that this broker does not lead.
    fn with_leaders(mut self, broker: &Broker, context: &RequestContext) -> ProduceResponse {
        if !self.lacks_leader || context.version < LEADERS_SINCE {
            return self.response;
        }
        let table = broker.topics.load();
        for response in &mut self.response.responses {
            let by_id = context.version >= TOPIC_IDS_SINCE;
            let Ok(topic) = table.resolve(by_id, &response.name, response.topic_id) else { continue };
            let refused = response.partition_responses.iter_mut();
            for refused in refused.filter(|refused| refused.error_code == ErrorCode::NOT_LEADER_OR_FOLLOWER) {
                let Some(partition) = topic.partition(refused.index) else { continue };
                refused.current_leader = current_leader::current_leader(partition);
            }
        }
        let refused = self.response.responses.iter().flat_map(|topic| &topic.partition_responses);
        let leaders = refused.map(|refused| &refused.current_leader);
        self.response.node_endpoints = current_leader::endpoints(broker, &context.connection, leaders);
        self.response
    }
}

impl Produced {
    /// Checks that a partition may be written, and returns what its batches need.
    fn intake<'a>(&'a self, topic: &'a ServedTopic, index: i32) -> Result<Intake<'a>, ApiError> {
        let partition = topic.partition(index).ok_or_else(ApiError::unknown_topic)?;
        // Before its stages run.
        partition.check_leader(-1)?;
        if self.acks == -1 && topic.config.min_insync_replicas > 1 {
            let (in_sync, replicas_min) = partition.isr_sizes()?;
            if in_sync < replicas_min {
                let message = format!(
                    "The size of the current ISR : {in_sync} is insufficient to satisfy the min.isr requirement of \
                     {replicas_min} for partition {}-{index}",
                    topic.name.as_str()
                );
                return Err(ApiError::new(ErrorCode::NOT_ENOUGH_REPLICAS, message));
            }
        }
        if let Some(dirs) = &self.full_disks
            && let Some(dir) = partition.data_dir().and_then(|path| dirs.find(path))
            && dir.is_full()
        {
            let message = format!("the disk of the data folder {} is full", dir.path().display());
            return Err(ApiError::new(ErrorCode::KAFKA_STORAGE_ERROR, message));
        }
        let (version, request_bytes_max) = (self.version, self.request_bytes_max);
        Ok(Intake {
            request_bytes_max,
            version,
            acks: Acks::from_wire(self.acks).unwrap_or(Acks::All),
            topic,
            partition,
            now_ms: now_ms(),
            transactional_id: self.transaction.id(),
            verification: self.transaction.of(topic.id, index)?,
        })
    }

    /// Returns the topic of batches.
    fn topic<'t>(&self, table: &'t ServedTopics, data: &TopicProduceData) -> Result<&'t Arc<ServedTopic>, ApiError> {
        table.resolve(self.version >= TOPIC_IDS_SINCE, &data.name, data.topic_id)
    }

    async fn append_registry(
        self,
        broker: &Broker,
        topic: &Arc<ServedTopic>,
        index: i32,
        sent: Bytes,
    ) -> Result<Stored, ApiError> {
        let intake = self.intake(topic, index)?;
        intake.check(&sent)?;
        let partition = &Arc::clone(intake.partition);
        let (topic, batch) = (Arc::clone(topic), sent.clone());
        let append = move || self.intake(&topic, index)?.append(&sent);
        report_fault(partition, plugins::produce(&broker.edge, &broker.changes, partition, batch, append).await)
    }
}

/// The batches of one topic that pass through its stages.
struct Staged {
    edge: Arc<Edge>,
    topic: Arc<ServedTopic>,
    stages: Arc<ActiveStages>,
    batches: std::vec::IntoIter<PartitionProduceData>,
    appended: AppendedAll,
}

impl Staged {
    /// Appends batch after batch. Returns the first one that has to wait, for the caller to finish. Blocks while the
    /// stages compute.
    fn run(&mut self) -> Option<(i32, Box<PendingAppend>)> {
        let at = Admission { edge: &self.edge, topic: &self.topic, stages: &self.stages };
        for PartitionProduceData { index, records } in self.batches.by_ref() {
            let sent = records.as_bytes().cloned().unwrap_or_default();
            let admitted = self
                .appended
                .produced
                .intake(&self.topic, index)
                .and_then(|intake| report_fault(intake.partition, admit(&at, &intake, &sent)));
            match admitted {
                Ok(Admitted::Pending(pending)) => return Some((index, pending)),
                Ok(Admitted::Stored(stored)) => self.appended.add(index, Ok(stored)),
                Err(error) => self.appended.add(index, Err(error)),
            }
        }
        None
    }
}

/// Logs that a disk failed.
fn report_fault<T>(partition: &Partition, stored: Result<T, ApiError>) -> Result<T, ApiError> {
    if let Err(error) = &stored
        && error.is_storage_fault()
    {
        partition.report("a produce failed", error);
    }
    stored
}

/// Returns the error for the request as a whole.
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

#[cfg(test)]
mod tests {
    use millstream_record::{BatchBuilder, TimestampType};
    use uuid::Uuid;

    use super::*;
    use crate::config::TopicConfig;
    use crate::edge::EdgeTopic;
    use crate::edge::topic_stages::TopicStages;
    use crate::topics::Topic;

    fn table(name: &str, pairs: &[(&str, &str)]) -> ServedTopics {
        let overrides = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let config = TopicConfig::resolve(&|_| None, &overrides).expect("valid configs");
        let edge = EdgeTopic::new(name, &config, TopicStages::None, None, None, &[], None);
        let (id, partitions) = (Uuid::from_u128(1), Vec::new());
        let mut table = ServedTopics::default();
        table.insert(Topic { name: name.into(), id, config, partitions, shared_from: None }, edge);
        table.complete();
        table
    }

    /// Returns one batch with a record of random bytes, which do not compress.
    fn data(name: &str, codec: Codec, bytes: usize) -> TopicProduceData {
        let value: Vec<u8> = (0..bytes).map(|_| fastrand::u8(..)).collect();
        let mut builder = BatchBuilder::new(codec, TimestampType::CreateTime);
        builder.append(0, None, Some(&value), []).expect("a small record fits");
        let records = Records::Bytes(Bytes::from(builder.build().expect("a small batch fits")));
        let partition_data = vec![PartitionProduceData { index: 0, records }];
        TopicProduceData { name: name.into(), partition_data, ..Default::default() }
    }

    fn work(name: &str, pairs: &[(&str, &str)], codec: Codec, bytes: usize) -> Work {
        let (table, data) = (table(name, pairs), data(name, codec, bytes));
        Work::of(&table.resolve(false, name, Uuid::nil()), &data)
    }

    #[test]
    fn batches_that_are_stored_as_they_came_are_appended_inline() {
        assert!(matches!(work("a", &[], Codec::None, 10), Work::Inline));
        assert!(matches!(work("a", &[], Codec::Zstd, 100_000), Work::Inline));
        assert!(matches!(work("a", &[("compression.type", "zstd")], Codec::Zstd, 100_000), Work::Inline));
        assert!(matches!(work("a", &[("compression.type", "zstd")], Codec::None, 10), Work::Compute));
    }

    #[test]
    fn only_small_batches_are_decompressed_inline() {
        let full = &[("compressed.records.validation", "full")];
        assert!(matches!(work("a", full, Codec::Gzip, 10), Work::Inline));
        assert!(matches!(work("a", full, Codec::None, 100_000), Work::Inline));
        assert!(matches!(work("a", full, Codec::Gzip, 100_000), Work::Compute));
    }

    #[test]
    fn of_the_brokers_topics_only_that_of_the_plugins_takes_batches() {
        assert!(matches!(work(plugins::TOPIC, &[], Codec::None, 10), Work::Registry));
        let rejected = work("__consumer_offsets", &[], Codec::None, 10);
        assert!(matches!(rejected, Work::Reject(error) if error.code == ErrorCode::INVALID_TOPIC_EXCEPTION));
        let unknown = Work::of(&table("a", &[]).resolve(false, "b", Uuid::nil()), &data("b", Codec::None, 10));
        assert!(matches!(unknown, Work::Reject(error) if error.code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    }
}
