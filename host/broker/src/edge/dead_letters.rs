//! Dead letters: records that were dropped at the edge, kept in a topic of their own with the reason and their place.
//!
//! # No loss, and the right offset
//!
//! An acknowledged record must be in one of the two topics, whatever happens. If the source were written first, a stop in
//! between would lose the letter for good: the producer's retry is then known as a repeat, and acknowledged. So the letters
//! go first, and are as durable as acks=all promises before a byte of the source is written. A stop in between leaves
//! letters of a batch that was not acknowledged; the retry writes them once more.
//!
//! A dead letter names the offset that its record would have had, which is known only when the source is appended. So
//! an append under this policy holds the partition's `dead_letters` lock. With dead letters it holds the lock from
//! reading the log's end to the append, over the wait for the disk. Only an append under other configs can move the end
//! meanwhile: they were just changed, or the source is itself a dead letter topic. The append then notices, and the dead
//! letters are written again with their new offsets.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;

use millstream_partition::{Acks, Partition, now_ms};
use millstream_record::{BatchBuilder, CheckedBatch, Codec, Header, Record, TimestampType};
use millstream_stage::EMBEDDED_NUMBER;
use millstream_stage::spec::CHAIN_MAX;
use millstream_wire::ErrorCode;
use parking_lot::Mutex;

use super::stages::Verdict;
use crate::broker::Broker;
use crate::config::TopicConfig;
use crate::controller;
use crate::edge::EdgePartition;
use crate::edge::topic_stages::ActiveStages;
use crate::error::ApiError;
use crate::produce::append::{Intake, Stored};
use crate::topics::is_internal;
use millstream_metadata::check_name;

/// The attempts to write dead letters before the producer has to retry, while the end of the log keeps moving.
const TRIES: usize = 16;

/// How many letters a view remembers to have written.
const WRITTEN_MAX: usize = 100_000;

/// The headers that a dead letter adds to its record. A record that becomes a dead letter again has them once.
const HEADERS: [&str; 6] = [
    "millstream.plugin",
    "millstream.version",
    "millstream.error",
    SOURCE_TOPIC,
    "millstream.source.partition",
    "millstream.source.offset",
];

const SOURCE_TOPIC: &str = "millstream.source.topic";

/// The records of a batch that go to the dead letter topic.
pub(crate) struct DeadLetters<'a> {
    pub(crate) rows: &'a [Record<'a>],
    pub(crate) verdict: &'a Verdict,
    /// The codec of the batch. Its dead letters have the same one, so that they are not much larger than the batch.
    pub(crate) codec: Codec,
}

/// Why a topic cannot take the dead letters of another one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeadLetterTopicError {
    /// It is the topic itself.
    #[error("it names the topic itself")]
    Itself,
    /// No topic can have that name.
    #[error("{name:?} is not a topic name: {error}")]
    Name { name: String, error: ApiError },
    /// It is a topic of the broker.
    #[error("{0} belongs to the broker")]
    Internal(String),
    /// It stores nothing.
    #[error("{0} is a view, which stores nothing")]
    View(String),
    /// Records of the source would not fit.
    #[error(
        "max.message.bytes of {topic} is {limit}, and records of up to {source_limit} bytes may become dead letters: \
         {remedy}"
    )]
    TooSmall { topic: String, limit: i32, source_limit: i32, remedy: &'static str },
}

/// Where a record would have been.
struct Source<'a> {
    topic: &'a str,
    partition: i32,
    base_offset: i64,
}

/// Checks that a topic's dead letters may go to another one.
///
/// # Errors
/// They may not.
pub(crate) fn check_topic(broker: &Broker, source: &str, target: &str) -> Result<(), DeadLetterTopicError> {
    if target == source {
        return Err(DeadLetterTopicError::Itself);
    }
    check_name(target).map_err(|error| DeadLetterTopicError::Name { name: target.to_owned(), error: error.into() })?;
    if is_internal(target) {
        return Err(DeadLetterTopicError::Internal(target.to_owned()));
    }
    match broker.metadata.image().topic(target) {
        Some(topic) if topic.configs.contains_key("view.of") => Err(DeadLetterTopicError::View(target.to_owned())),
        _ => Ok(()),
    }
}

/// Checks that every record of a topic with these configs fits into its dead letter topic. The log leaves room for the
/// headers, see [`TopicConfig::DEAD_LETTER_OVERHEAD_MAX`].
///
/// # Errors
/// `max.message.bytes` of the dead letter topic is too low.
pub(crate) fn check_size(broker: &Broker, config: &TopicConfig, target: &str) -> Result<(), DeadLetterTopicError> {
    let image = broker.metadata.image();
    let limit_of = |topic: &str| {
        let configs = image.topic(topic).and_then(|topic| broker.config.topic_config(&topic.configs).ok());
        configs.map(|config| config.max_message_bytes)
    };
    // The records of a view are those of the first topic on the way that is not a view.
    let mut stored_in = config.view_of.clone();
    for _ in 0..CHAIN_MAX {
        let next = stored_in.as_deref().and_then(|of| image.topic(of)).and_then(|of| of.configs.get("view.of"));
        match next {
            Some(of) => stored_in = Some(of.clone()),
            None => break,
        }
    }
    let source_limit = stored_in.as_deref().and_then(limit_of).unwrap_or(config.max_message_bytes);
    let (limit, remedy) = match limit_of(target) {
        Some(limit) => (limit, "raise it"),
        None => (broker.config.topic_defaults.max_message_bytes, "create the topic first, with a higher value"),
    };
    if limit < source_limit {
        return Err(DeadLetterTopicError::TooSmall { topic: target.to_owned(), limit, source_limit, remedy });
    }
    Ok(())
}

/// Returns whether a record is a dead letter of another topic. A dead letter that a client sent back to its source is not.
fn is_letter_of_another(record: &Record<'_>, topic: &str) -> bool {
    let source = record.headers.last_header(SOURCE_TOPIC).and_then(|header| header.value);
    source.is_some_and(|source| source != topic.as_bytes())
}

/// Stores `batch`, which is `sent` without its bad records, once these are safe in the dead letter topic.
pub(crate) fn store(
    intake: &Intake<'_>,
    edge: &EdgePartition,
    stages: &ActiveStages,
    sent: &CheckedBatch<'_>,
    batch: &CheckedBatch<'_>,
    letters: &DeadLetters<'_>,
) -> Result<Stored, ApiError> {
    let partition = intake.partition;
    let target = target(intake.broker, stages, &intake.topic.name, partition.index())?;
    let _alone = edge.dead_letters.lock();
    for _ in 0..TRIES {
        // The same batch may have come by another connection while this one was with the stages.
        if let Some(stored) = partition.check_producer(sent)? {
            return intake.stored(stored);
        }
        let base_offset = partition.log_end_offset()?;
        let source = Source { topic: &intake.topic.name, partition: partition.index(), base_offset };
        let words = |place| Words::new(&source, letters.verdict, place);
        let written = letters.verdict.bad().map(|place| (&letters.rows[place], words(place)));
        write(&target, letters.codec, intake.now_ms, written)?;
        if let Some(appended) = partition.append_at(base_offset, batch, intake.now_ms)? {
            return intake.stored(appended.batch());
        }
    }
    Err(ApiError::new(
        ErrorCode::REQUEST_TIMED_OUT,
        "other producers write to the partition too fast for its dead letters",
    ))
}

/// The partition of the dead letter topic, which is made if it is not there. One partition's letters keep their order.
fn target(
    broker: &Arc<Broker>,
    stages: &ActiveStages,
    source: &str,
    partition: i32,
) -> Result<Arc<Partition>, ApiError> {
    let Some(name) = &stages.dead_letter_topic else {
        return Err(failed("stage.dead.letter.topic is not set"));
    };
    if broker.topics.load().by_name(name).is_none() {
        tokio::runtime::Handle::current().block_on(controller::ensure_topic(broker, name))?;
    }
    let topics = broker.topics.load();
    let topic = topics.by_name(name).ok_or_else(ApiError::unknown_topic)?;
    // It may have become what the options would not be taken for.
    check_topic(broker, source, name).map_err(failed)?;
    let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX).max(1);
    topic.partition(partition % count).cloned().ok_or_else(ApiError::unknown_topic)
}

/// Copies the records on which the filters of a view failed to the dead letter topic, with the durability of acks=all. They
/// stay in the source, and the view does not show them. A view is read often: it writes each dead letter once.
///
/// A dead letter of another topic does not become a dead letter again. Without this rule, configs that an older version
/// accepted could make dead letters without end.
pub(crate) fn copy(
    broker: &Arc<Broker>,
    stages: &ActiveStages,
    source: &Partition,
    letters: &DeadLetters<'_>,
    written: &Written,
) -> Result<(), ApiError> {
    let place = |row: usize| (source.index(), letters.rows[row].offset);
    // Held over the wait for the disk: who comes to the same records meanwhile finds them written.
    let mut written = written.0.lock();
    let failed = letters.verdict.failed().iter().map(|failed| failed.row);
    let failed: Vec<usize> = failed.filter(|row| !is_letter_of_another(&letters.rows[*row], source.topic())).collect();
    let new = || failed.iter().copied().filter(|row| !written.contains(&place(*row)));
    if new().next().is_none() {
        return Ok(());
    }
    let target = target(broker, stages, source.topic(), source.index())?;
    let words = |row: usize| {
        let base_offset = letters.rows[row].offset - row as i64;
        let source = Source { topic: source.topic(), partition: source.index(), base_offset };
        Words::new(&source, letters.verdict, row)
    };
    write(&target, letters.codec, now_ms(), new().map(|row| (&letters.rows[row], words(row))))?;
    written.extend(failed.into_iter().map(place));
    while written.len() > WRITTEN_MAX {
        written.pop_first();
    }
    Ok(())
}

/// The dead letters that a view has written since the start: partition and offset of each. Above a bound the lowest are forgotten,
/// and written once more if they are read once more.
#[derive(Debug, Default)]
pub(crate) struct Written(Mutex<BTreeSet<(i32, i64)>>);

/// Writes letters with the durability of acks=all.
fn write<'a>(
    target: &Arc<Partition>,
    codec: Codec,
    now_ms: i64,
    letters: impl Iterator<Item = (&'a Record<'a>, Words)>,
) -> Result<(), ApiError> {
    let bytes_max = target.with_log(|log| log.config().max_message_bytes as usize)?;
    let empty = || BatchBuilder::new(codec, TimestampType::CreateTime);
    let mut end = None;
    let mut builder = empty();
    for (row, words) in letters {
        let own = row.headers.filter(|header| !HEADERS.iter().any(|name| name.as_bytes() == header.name));
        let headers = || own.clone().chain(words.headers());
        let size = BatchBuilder::record_size_max(row.key, row.value, headers());
        if !builder.is_empty() && builder.size() + size > bytes_max {
            end = Some(append(target, std::mem::replace(&mut builder, empty()), bytes_max, now_ms)?);
        }
        builder.append(row.timestamp, row.key, row.value, headers()).map_err(failed)?;
    }
    if !builder.is_empty() {
        end = Some(append(target, builder, bytes_max, now_ms)?);
    }
    match end {
        Some(end) => Ok(target.committed(end, Acks::All).wait_blocking()?),
        None => Ok(()),
    }
}

/// Appends a batch of letters. Returns the offset after it.
fn append(target: &Partition, builder: BatchBuilder, bytes_max: usize, now_ms: i64) -> Result<i64, ApiError> {
    let batch = builder.build().map_err(failed)?;
    if batch.len() > bytes_max {
        let topic = target.topic();
        return Err(failed(format!("it has {} bytes, raise max.message.bytes of topic {topic}", batch.len())));
    }
    let appended =
        CheckedBatch::of_own(&batch).map_err(ApiError::from).and_then(|batch| Ok(target.append(&batch, now_ms)?));
    Ok(appended.map_err(failed)?.batch().last_offset + 1)
}

/// The values of a letter's headers.
struct Words {
    plugin: String,
    /// The number that its users know, as in `NAME@3`.
    version: String,
    error: String,
    topic: String,
    partition: String,
    offset: String,
}

impl Words {
    fn new(source: &Source<'_>, verdict: &Verdict, place: usize) -> Self {
        let plugin = verdict.plugin(place);
        Self {
            plugin: plugin.map_or_else(String::new, |plugin| plugin.name().to_owned()),
            version: plugin.map_or_else(String::new, |plugin| plugin.number().unwrap_or(EMBEDDED_NUMBER).to_string()),
            error: verdict.reason(place),
            topic: source.topic.to_owned(),
            partition: source.partition.to_string(),
            // A produced batch has offset deltas 0, 1, 2 ...
            offset: (source.base_offset + place as i64).to_string(),
        }
    }

    fn headers(&self) -> [Header<'_>; 6] {
        let values = [&self.plugin, &self.version, &self.error, &self.topic, &self.partition, &self.offset];
        std::array::from_fn(|index| Header::new(HEADERS[index], Some(values[index].as_bytes())))
    }
}

/// Returns the error of a batch that is rejected because a record of it cannot become a dead letter. Nothing is lost.
fn failed(problem: impl Display) -> ApiError {
    ApiError::new(ErrorCode::INVALID_RECORD, format!("a record cannot be kept as a dead letter: {problem}"))
}
