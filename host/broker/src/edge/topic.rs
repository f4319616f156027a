//! The edge's state of a topic, beside the core's [`Topic`]. Both are published in one table, so that a request sees
//! both at the same moment.
//!
//! [`Topic`]: crate::topics::Topic

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millstream_partition::Partition;
use millstream_record::HEADER_LEN;
use millstream_wire::ErrorCode;
use tokio::sync::Mutex;

use super::decoders::TopicDecoders;
use super::plugins;
use super::topic_stages::{ActiveStages, TopicStages};
use super::view::link::{Layer, View};
use crate::config::{CompressionType, FailurePolicy, TopicConfig};
use crate::error::ApiError;
use crate::topics::{Served, TopicTable, is_internal};

/// A topic with its state at the edge.
pub(crate) type ServedTopic = Served<EdgeTopic>;

/// All topics with their state at the edge.
pub(crate) type ServedTopics = TopicTable<EdgeTopic>;

/// The edge's state of one topic.
#[derive(Debug)]
pub(crate) struct EdgeTopic {
    pub(crate) stages: TopicStages,
    /// The plug-ins that read batches in private formats; `None` for a topic that never had such batches.
    pub(crate) decoders: Option<Arc<TopicDecoders>>,
    /// Set if the topic is a view.
    pub(crate) view: Option<Arc<View>>,
    /// The handling of a produced batch.
    pub(crate) route: Route,
    /// Whether admission may drop all records of a batch.
    has_admit: bool,
    /// By number. Each is the same object for as long as the partition is open.
    partitions: Vec<Arc<EdgePartition>>,
}

/// The handling of a produced batch. It is decided once, when the topic is published.
#[derive(Debug, Clone)]
pub(crate) enum Route {
    /// It is checked and stored as it was sent.
    Plain,
    /// It may have to be decompressed for its checks, or recoded.
    Recode,
    /// It passes the topic's stages.
    Stages(Arc<ActiveStages>),
    /// It changes the plug-ins.
    Registry,
    /// It is rejected: the topic is a view, belongs to the broker, or its stages cannot be started.
    Reject(ApiError),
}

/// The edge's state of one partition.
#[derive(Debug)]
pub(crate) struct EdgePartition {
    /// Held while dead letters of the partition are being written, and by what would move the end of its log meanwhile;
    /// see [`super::dead_letters`].
    pub(crate) dead_letters: Mutex<()>,
    /// Whether the log may hold batches in a private format.
    private_batches: AtomicBool,
    /// Whether the log may hold batches without records after admission.
    emptied_batches: AtomicBool,
}

impl EdgePartition {
    /// Makes the state of a newly opened partition. A log that is not empty may hold emptied batches of an earlier run.
    fn new(partition: &Partition) -> Self {
        Self {
            dead_letters: Mutex::default(),
            private_batches: AtomicBool::new(false),
            emptied_batches: AtomicBool::new(partition.high_watermark() > 0),
        }
    }

    /// Records that a batch without records is about to be appended.
    pub(crate) fn expect_emptied_batches(&self) {
        self.emptied_batches.store(true, Ordering::Release);
    }
}

impl EdgeTopic {
    /// Makes the state of a topic with its own partitions. It replaces the state `before`.
    pub(crate) fn new(
        name: &str,
        config: &TopicConfig,
        stages: TopicStages,
        decoders: Option<Arc<TopicDecoders>>,
        view: Option<Arc<View>>,
        partitions: &[Arc<Partition>],
        before: Option<&Self>,
    ) -> Self {
        let route = Route::new(name, config, &stages, view.as_deref());
        let known = before.filter(|before| before.view.is_none()).map_or(&[][..], |before| &before.partitions);
        let added = partitions.iter().skip(known.len()).map(|partition| Arc::new(EdgePartition::new(partition)));
        let partitions: Vec<_> = known.iter().take(partitions.len()).cloned().chain(added).collect();
        if decoders.is_some() {
            partitions.iter().for_each(|partition| partition.private_batches.store(true, Ordering::Release));
        }
        Self { stages, decoders, view, route, has_admit: config.stages.admit.is_some(), partitions }
    }

    /// Returns the same state for a view that was linked to its source.
    pub(crate) fn linked(&self, view: Arc<View>, source: Option<&Self>) -> Self {
        Self {
            stages: self.stages.clone(),
            decoders: source.and_then(|source| source.decoders.clone()),
            view: Some(view),
            route: self.route.clone(),
            has_admit: self.has_admit,
            partitions: source.map_or_else(Vec::new, |source| source.partitions.clone()),
        }
    }

    /// Returns the state of a partition.
    pub(crate) fn partition(&self, index: i32) -> Option<&Arc<EdgePartition>> {
        self.partitions.get(usize::try_from(index).ok()?)
    }

    /// Returns whether records are not served as they are stored: those of a view pass its filters, and batches in a
    /// private format are decoded.
    pub(crate) fn reads_records(&self) -> bool {
        self.view.is_some() || self.decoders.is_some()
    }

    /// Returns whether followers serve the topic too. That needs batches that are sent as they are stored, or a view
    /// without dead letters: the leader remembers which of them are written.
    pub(crate) fn is_served_by_followers(&self) -> bool {
        let has_letters = |stages: &ActiveStages| stages.filter_policy == FailurePolicy::DeadLetter;
        let is_plain = |layer: &Layer| layer.stages.as_ref().is_ok_and(|stages| !has_letters(stages));
        self.decoders.is_none()
            && match &self.view {
                Some(view) => view.layers.iter().all(is_plain),
                None => matches!(self.stages, TopicStages::None),
            }
    }

    /// Returns whether a partition may hold batches in a private format, which no client reads as they are. Call it
    /// after a read: the flag is set before the first of them is appended.
    pub(crate) fn has_private_batches(&self, index: i32) -> bool {
        self.partition(index).is_some_and(|partition| partition.private_batches.load(Ordering::Acquire))
    }

    /// Returns whether a read from `offset` begins with a batch without records after admission. KafkaJS requests the
    /// same offset for ever if a response has only such batches.
    pub(crate) fn begins_empty(&self, partition: &Partition, offset: i64) -> bool {
        let may_hold = |known: &Arc<EdgePartition>| known.emptied_batches.load(Ordering::Acquire);
        if !self.has_admit || !self.partition(partition.index()).is_some_and(may_hold) {
            return false;
        }
        let first = partition.read(offset, 1, true).ok().and_then(|read| read.slice);
        first.is_some_and(|batch| batch.len == HEADER_LEN)
    }
}

impl Route {
    fn new(name: &str, config: &TopicConfig, stages: &TopicStages, view: Option<&View>) -> Self {
        if let Some(view) = view {
            let of = view.of.as_str();
            let message = format!("{name} is a view of {of} and takes no records: produce to {of}");
            return Self::Reject(ApiError::new(ErrorCode::INVALID_TOPIC_EXCEPTION, message));
        }
        if name == plugins::TOPIC {
            return Self::Registry;
        }
        if is_internal(name) {
            let message = format!("{name} belongs to the broker");
            return Self::Reject(ApiError::new(ErrorCode::INVALID_TOPIC_EXCEPTION, message));
        }
        match stages {
            // The error was logged when the topic was opened.
            TopicStages::Broken(error) => Self::Reject(error.clone()),
            TopicStages::Ready(stages) if stages.see_produce() => Self::Stages(Arc::clone(stages)),
            // No header has to be read before the checks: any codec is stored, and nothing is decompressed.
            _ if config.compression == CompressionType::Producer && !config.decompresses() => Self::Plain,
            _ => Self::Recode,
        }
    }
}

#[cfg(test)]
mod tests {
    use millstream_partition::replica::LeaderView;
    use millstream_partition::{Assignment, FlushMode, FsyncQueue, PartitionConfig, PartitionSpec};
    use millstream_record::{BatchBuilder, BatchView, CheckedBatch, Codec, TimestampType, retain};

    use super::*;

    fn config(pairs: &[(&str, &str)]) -> TopicConfig {
        let overrides = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        TopicConfig::resolve(&|_| None, &overrides).expect("valid configs")
    }

    fn route(name: &str, pairs: &[(&str, &str)], stages: TopicStages, view: Option<View>) -> Route {
        EdgeTopic::new(name, &config(pairs), stages, None, view.map(Arc::new), &[], None).route
    }

    fn rejected(route: &Route) -> (ErrorCode, &str) {
        match route {
            Route::Reject(error) => (error.code, &error.message),
            other => panic!("not rejected: {other:?}"),
        }
    }

    #[test]
    fn each_kind_of_topic_has_its_route() {
        let none = || TopicStages::None;
        assert!(matches!(route("a", &[], none(), None), Route::Plain));
        assert!(matches!(route("a", &[("compression.type", "zstd")], none(), None), Route::Recode));
        assert!(matches!(route("a", &[("cleanup.policy", "compact")], none(), None), Route::Recode));
        assert!(matches!(route("a", &[("compressed.records.validation", "full")], none(), None), Route::Recode));
        assert!(matches!(route(plugins::TOPIC, &[], none(), None), Route::Registry));
        let view = route("v", &[], none(), Some(View::of("a")));
        assert_eq!(rejected(&view).0, ErrorCode::INVALID_TOPIC_EXCEPTION);
        assert!(rejected(&view).1.contains("produce to a"));
        let internal = route("__consumer_offsets", &[], none(), None);
        assert_eq!(rejected(&internal).0, ErrorCode::INVALID_TOPIC_EXCEPTION);
        let broken = TopicStages::Broken(ApiError::new(ErrorCode::KAFKA_STORAGE_ERROR, "no such plug-in"));
        assert_eq!(rejected(&route("a", &[], broken, None)), (ErrorCode::KAFKA_STORAGE_ERROR, "no such plug-in"));
    }

    fn open(folder: &std::path::Path, partitions: i32) -> Vec<Arc<Partition>> {
        let queue = FsyncQueue::start(FlushMode::PageCache, folder).expect("threads start");
        let config = config(&[]);
        let config = PartitionConfig {
            log: Arc::new(config.log_config(0)),
            flush_messages: config.flush_messages,
            flush_ms: config.flush_ms,
        };
        let spec = |index| PartitionSpec {
            topic: Arc::from("a"),
            topic_id: uuid::Uuid::from_u128(1),
            index,
            node_id: 1,
            data_dir: Some(Arc::from(folder)),
            assignment: Assignment::Leader(LeaderView::alone(1, 0)),
            high_watermark: 0,
            recovery_point: 0,
            log_start_offset: 0,
            log_start_is_lost: false,
            first_dirty_offset: 0,
            clean_shutdown: false,
        };
        Partition::open_all(&queue, (0..partitions).map(|index| (spec(index), config.clone())).collect())
    }

    fn topic(pairs: &[(&str, &str)], partitions: &[Arc<Partition>], before: Option<&EdgeTopic>) -> EdgeTopic {
        EdgeTopic::new("a", &config(pairs), TopicStages::None, None, None, partitions, before)
    }

    /// Appends a batch of one record, or the batch that admission leaves if it drops the record.
    fn append(partition: &Partition, drops: bool) {
        let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
        builder.append(0, None, Some(b"v"), []).expect("a small record fits");
        let sent = builder.build().expect("a small batch fits");
        let sent = BatchView::parse(&sent).expect("a batch");
        let records = sent.records(1 << 20).expect("records");
        let stored = retain(&sent, &records, Codec::None, None, |_, _| !drops).expect("rewritten");
        partition.append(&CheckedBatch::of_own(&stored).expect("a batch"), 0).expect("appended");
    }

    const ADMIT: &[(&str, &str)] = &[("stage.admit", "some-filter")];

    #[test]
    fn emptied_batches_are_searched_only_where_they_may_exist() {
        let folder = tempfile::tempdir().expect("a folder");
        let partitions = open(folder.path(), 1);
        let admitted = topic(ADMIT, &partitions, None);
        append(&partitions[0], true);
        append(&partitions[0], false);
        assert!(!admitted.begins_empty(&partitions[0], 0), "nothing said that there are any");
        admitted.partition(0).expect("a partition").expect_emptied_batches();
        assert!(admitted.begins_empty(&partitions[0], 0) && !admitted.begins_empty(&partitions[0], 1));
        assert!(
            !topic(&[], &partitions, Some(&admitted)).begins_empty(&partitions[0], 0),
            "no filter may drop records"
        );
        drop(partitions);
        // After a start, a log that is not empty may hold some.
        let partitions = open(folder.path(), 1);
        let admitted = topic(ADMIT, &partitions, None);
        assert!(admitted.begins_empty(&partitions[0], 0) && !admitted.begins_empty(&partitions[0], 1));
    }

    #[test]
    fn the_state_of_a_partition_outlives_changes_of_its_topic() {
        let folder = tempfile::tempdir().expect("a folder");
        let partitions = open(folder.path(), 2);
        let first = topic(&[], &partitions[..1], None);
        let grown = topic(ADMIT, &partitions, Some(&first));
        let state = |topic: &EdgeTopic, index| Arc::clone(topic.partition(index).expect("a partition"));
        assert!(Arc::ptr_eq(&state(&first, 0), &state(&grown, 0)));
        assert!(!Arc::ptr_eq(&state(&grown, 0), &state(&grown, 1)));
        assert!(grown.partition(2).is_none() && grown.partition(-1).is_none());
        let decoders = TopicDecoders::new(&["00".repeat(32)].into());
        assert!(!first.has_private_batches(0));
        let packed = EdgeTopic::new("a", &config(&[]), TopicStages::None, decoders, None, &partitions, Some(&grown));
        // A waiting fetch has the earlier table.
        assert!(packed.has_private_batches(1) && first.has_private_batches(0));
        let view = topic(&[], &[], None).linked(Arc::new(View::of("a")), Some(&packed));
        assert!(view.reads_records() && Arc::ptr_eq(&state(&view, 1), &state(&packed, 1)));
    }
}
