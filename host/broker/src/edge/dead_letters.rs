//! Dead letters: records that were dropped at the edge, kept in a topic of their own with the reason and their place.
//!
//! # No loss, and the right offset
//!
//! An acknowledged record must be in one of the two topics, whatever happens. If the source were written first, a stop in
//! between would lose the letter for good: the producer's retry is then known as a repeat, and acknowledged. So the letters
//! go first, and are as durable as acks=all promises before a byte of the source is written. A stop in between leaves
//! letters of a batch that was not acknowledged; the retry writes them once more.
//!
//! A letter names the offset that its record would have had, which is known only when the source is appended. Whoever
//! appends under this policy therefore holds the partition's `dead_letters` lock, and who has letters holds it from the look
//! at the log's end to the append, over the wait for the disk. Only what comes under other options (they were just changed,
//! or the source is a dead letter topic itself) can move the end meanwhile: the append then notices, and the letters are
//! written again with their new offsets.

use std::collections::BTreeSet;
use std::sync::Arc;

use millstream_record::{BatchBuilder, CheckedBatch, Codec, Header, Record, TimestampType};
use millstream_stage::EMBEDDED_NUMBER;
use millstream_wire::ErrorCode;
use parking_lot::Mutex;

use super::stages::Verdict;
use crate::broker::Broker;
use crate::clock::now_ms;
use crate::config::FlushMode;
use crate::controller;
use crate::edge::topic_stages::Attachments;
use crate::error::ApiError;
use crate::partition::Partition;
use crate::produce::append::{Intake, Stored};
use crate::topics::is_internal;
use millstream_metadata::check_name;

/// How often letters are written before a producer has to come again, with an end of the log that never stands still.
const TRIES: usize = 16;

/// How many letters a view remembers to have written.
const WRITTEN_MAX: usize = 100_000;

/// What the records of a batch that go to the dead letter topic are.
pub(crate) struct DeadLetters<'a> {
    pub(crate) rows: &'a [Record<'a>],
    pub(crate) verdict: &'a Verdict,
}

/// Where a record would have been.
struct Source<'a> {
    topic: &'a str,
    partition: i32,
    base_offset: i64,
}

/// Whether a topic's dead letters may go to another one. The text of an error says why not.
pub(crate) fn check_topic(broker: &Broker, source: &str, target: &str) -> Result<(), String> {
    if target == source {
        return Err("it names the topic itself".to_owned());
    }
    check_name(target).map_err(|error| format!("{target:?} is no topic: {error}"))?;
    if is_internal(target) {
        return Err(format!("{target} belongs to the broker"));
    }
    match broker.metadata.image().topic(target) {
        Some(topic) if topic.configs.contains_key("view.of") => {
            Err(format!("{target} is a view, which stores nothing"))
        }
        _ => Ok(()),
    }
}

/// Stores `batch`, which is `sent` without its bad records, once these are safe in the dead letter topic.
pub(crate) fn store(
    intake: &Intake<'_>,
    stages: &Attachments,
    sent: &CheckedBatch<'_>,
    batch: &CheckedBatch<'_>,
    letters: &DeadLetters<'_>,
) -> Result<Stored, ApiError> {
    let partition = intake.partition;
    let target = target(intake.broker, stages, &intake.topic.name, partition.index)?;
    let _alone = partition.dead_letters.lock();
    for _ in 0..TRIES {
        // The same batch may have come by another connection while this one was with the stages.
        if let Some(stored) = partition.check_producer(sent)? {
            return intake.stored(stored);
        }
        let base_offset = partition.reader()?.log_end_offset();
        let source = Source { topic: &intake.topic.name, partition: partition.index, base_offset };
        let words = |place| Words::new(&source, letters.verdict, place);
        let written = letters.verdict.bad().map(|place| (&letters.rows[place], words(place)));
        write(intake.broker, &target, intake.now_ms, written)?;
        if let Some(appended) = partition.append_at(base_offset, batch, intake.now_ms)? {
            return intake.stored(appended.batch());
        }
    }
    Err(ApiError::new(ErrorCode::REQUEST_TIMED_OUT, "others write to the partition too fast for dead letters of it"))
}

/// The partition of the dead letter topic, which is made if it is not there. One partition's letters keep their order.
fn target(
    broker: &Arc<Broker>,
    stages: &Attachments,
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
    check_topic(broker, source, name).map_err(|problem| failed(&problem))?;
    let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX).max(1);
    topic.partition(partition % count).cloned().ok_or_else(ApiError::unknown_topic)
}

/// Copies the records on which the filters of a view failed, as durable as acks=all promises: they stay where they are, and are
/// not shown. A view is read often, and by many; the letters that it has written are not written again.
pub(crate) fn copy(
    broker: &Arc<Broker>,
    stages: &Attachments,
    source: &Partition,
    letters: &DeadLetters<'_>,
    written: &Written,
) -> Result<(), ApiError> {
    let place = |row: usize| (source.index, letters.rows[row].offset);
    // Held over the wait for the disk: who comes to the same records meanwhile finds them written.
    let mut written = written.0.lock();
    let failed: Vec<usize> = letters.verdict.failed().iter().map(|failed| failed.row).collect();
    let new = || failed.iter().copied().filter(|row| !written.contains(&place(*row)));
    if new().next().is_none() {
        return Ok(());
    }
    let target = target(broker, stages, &source.topic, source.index)?;
    let words = |row: usize| {
        let base_offset = letters.rows[row].offset - row as i64;
        let source = Source { topic: &source.topic, partition: source.index, base_offset };
        Words::new(&source, letters.verdict, row)
    };
    write(broker, &target, now_ms(), new().map(|row| (&letters.rows[row], words(row))))?;
    written.extend(failed.into_iter().map(place));
    while written.len() > WRITTEN_MAX {
        written.pop_first();
    }
    Ok(())
}

/// The letters that a view has written since the start: partition and offset of each. Above a bound the lowest are forgotten,
/// and written once more if they are read once more.
#[derive(Debug, Default)]
pub(crate) struct Written(Mutex<BTreeSet<(i32, i64)>>);

/// Writes letters, as durable as acks=all promises.
fn write<'a>(
    broker: &Broker,
    target: &Arc<Partition>,
    now_ms: i64,
    letters: impl Iterator<Item = (&'a Record<'a>, Words)>,
) -> Result<(), ApiError> {
    let bytes_max = target.with_log(|log| log.config().max_message_bytes as usize)?;
    let empty = || BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    let mut end = None;
    let mut builder = empty();
    for (row, words) in letters {
        let headers = || row.headers.chain(words.headers());
        let size = BatchBuilder::record_size_max(row.key, row.value, headers());
        if !builder.is_empty() && builder.size() + size > bytes_max {
            end = Some(append(target, std::mem::replace(&mut builder, empty()), now_ms)?);
        }
        let appended = builder.append(row.timestamp, row.key, row.value, headers());
        appended.map_err(|error| failed(&error.to_string()))?;
    }
    if !builder.is_empty() {
        end = Some(append(target, builder, now_ms)?);
    }
    match end {
        Some(end) => durable(broker, target, end),
        None => Ok(()),
    }
}

/// Appends a batch of letters; the offset after them.
fn append(target: &Partition, builder: BatchBuilder, now_ms: i64) -> Result<i64, ApiError> {
    let batch = builder.build().map_err(|error| failed(&error.to_string()))?;
    let appended = CheckedBatch::of_own(&batch).map_err(ApiError::from).and_then(|batch| target.append(&batch, now_ms));
    Ok(appended.map_err(|error| failed(&error.to_string()))?.batch().last_offset + 1)
}

/// What the headers of a letter say.
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
        [
            ("millstream.plugin", &self.plugin),
            ("millstream.version", &self.version),
            ("millstream.error", &self.error),
            ("millstream.source.topic", &self.topic),
            ("millstream.source.partition", &self.partition),
            ("millstream.source.offset", &self.offset),
        ]
        .map(|(name, value)| Header::new(name, Some(value.as_bytes())))
    }
}

/// Waits until the letters are as safe as acks=all promises. Blocks.
fn durable(broker: &Broker, target: &Arc<Partition>, end: i64) -> Result<(), ApiError> {
    if broker.config.flush_mode == FlushMode::PageCache {
        return Ok(());
    }
    let synced = broker.syncer.wait(target, end).blocking_recv();
    synced.unwrap_or_else(|_| Err(ApiError::new(ErrorCode::NOT_LEADER_OR_FOLLOWER, "the broker stops")))
}

/// The policy cannot be followed: the batch is refused, and nothing is lost.
fn failed(problem: &str) -> ApiError {
    ApiError::new(ErrorCode::INVALID_RECORD, format!("a record cannot be kept as a dead letter: {problem}"))
}
