//! Dead letters as records: copies of records that a stage did not keep, with headers for the reason and the place.

use bytes::Bytes;
use millstream_log::seeded_bug::{self, Bug};
use millstream_record::layout::NO_SEQUENCE;
use millstream_record::{BatchBuilder, Codec, Header, Record, TimestampType};
use millstream_stage::EMBEDDED_NUMBER;
use millstream_wire::Str;

use super::dead_letter_topic::{Target, failed};
use super::stages::Verdict;
use crate::error::ApiError;

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

/// Copies of records of one partition.
#[derive(Debug)]
pub(super) struct DeadLetters {
    source: Str,
    partition: i32,
    /// The codec of the records' batch. The dead letters use it too, so that they are not much larger.
    codec: Codec,
    /// The producer's id and epoch, if the records are part of a transaction. The dead letters then are too.
    producer: Option<(i64, i16)>,
    letters: Vec<DeadLetter>,
}

/// A copy of one record.
#[derive(Debug)]
struct DeadLetter {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<OwnHeader>,
    /// The offset of the record, or its index in a batch without offsets.
    offset: i64,
    plugin: String,
    /// The version as users know it, as in `NAME@3`.
    version: String,
    error: String,
}

#[derive(Debug)]
struct OwnHeader {
    name: Vec<u8>,
    value: Option<Vec<u8>>,
}

impl DeadLetters {
    pub(super) fn new(source: Str, partition: i32, codec: Codec) -> Self {
        Self { source, partition, codec, producer: None, letters: Vec::new() }
    }

    /// Makes the dead letters part of a producer's transaction.
    pub(super) fn in_transaction(&mut self, producer_id: i64, producer_epoch: i16) {
        if !seeded_bug::is(Bug::LettersByThemselves) {
            self.producer = Some((producer_id, producer_epoch));
        }
    }

    /// Returns whether the dead letters are part of a transaction.
    pub(super) fn is_transactional(&self) -> bool {
        self.producer.is_some()
    }

    /// Copies a record that the verdict does not keep. `row` is its index in the verdict.
    pub(super) fn push(&mut self, record: &Record<'_>, offset: i64, verdict: &Verdict, row: usize) {
        let own = record.headers.filter(|header| !HEADERS.iter().any(|name| name.as_bytes() == header.name));
        let headers =
            own.map(|header| OwnHeader { name: header.name.to_vec(), value: header.value.map(<[u8]>::to_vec) });
        let plugin = verdict.plugin(row);
        self.letters.push(DeadLetter {
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: headers.collect(),
            offset,
            plugin: plugin.map_or_else(String::new, |plugin| plugin.name().to_owned()),
            version: plugin.map_or_else(String::new, |plugin| plugin.number().unwrap_or(EMBEDDED_NUMBER).to_string()),
            error: verdict.reason(row),
        });
    }

    pub(super) fn source(&self) -> &Str {
        &self.source
    }

    pub(super) fn partition(&self) -> i32 {
        self.partition
    }

    pub(super) fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    pub(super) fn offsets(&self) -> impl Iterator<Item = i64> {
        self.letters.iter().map(|letter| letter.offset)
    }

    /// Removes the records for whose offset `keep` returns `false`.
    pub(super) fn retain(&mut self, keep: impl Fn(i64) -> bool) {
        self.letters.retain(|letter| keep(letter.offset));
    }

    /// Returns the records as few batches for a partition. `base_offset` is added to their offsets. Computes if the
    /// codec compresses.
    ///
    /// # Errors
    /// A record does not fit.
    pub(super) fn batches(&self, target: &Target, base_offset: i64) -> Result<Vec<Bytes>, ApiError> {
        let bytes_max = target.batch_bytes_max;
        let empty = || {
            let mut builder = BatchBuilder::new(self.codec, TimestampType::CreateTime);
            if let Some((id, epoch)) = self.producer {
                builder.producer(id, epoch, NO_SEQUENCE).transactional(true);
            }
            builder
        };
        let (mut builder, mut batches) = (empty(), Vec::new());
        for letter in &self.letters {
            let texts = self.texts(letter, base_offset);
            let own = letter.headers.iter().map(|header| Header { name: &header.name, value: header.value.as_deref() });
            let added = HEADERS.iter().zip(&texts).map(|(name, text)| Header::new(name, Some(text.as_bytes())));
            let headers = || own.clone().chain(added.clone());
            let (key, value) = (letter.key.as_deref(), letter.value.as_deref());
            let size = BatchBuilder::record_size_max(key, value, headers());
            if !builder.is_empty() && builder.size() + size > bytes_max {
                let full = std::mem::replace(&mut builder, empty());
                batches.push(batch(full, target)?);
            }
            builder.append(letter.timestamp, key, value, headers()).map_err(failed)?;
        }
        if !builder.is_empty() {
            batches.push(batch(builder, target)?);
        }
        Ok(batches)
    }

    /// Returns the values of a dead letter's headers.
    fn texts(&self, letter: &DeadLetter, base_offset: i64) -> [String; 6] {
        [
            letter.plugin.clone(),
            letter.version.clone(),
            letter.error.clone(),
            self.source.as_str().to_owned(),
            self.partition.to_string(),
            (base_offset + letter.offset).to_string(),
        ]
    }
}

/// Returns whether a record is a dead letter of another topic. A dead letter that a client sent back to its source does
/// not count.
pub(super) fn is_dead_letter_of_another(record: &Record<'_>, topic: &str) -> bool {
    let source = record.headers.last_header(SOURCE_TOPIC).and_then(|header| header.value);
    source.is_some_and(|source| source != topic.as_bytes())
}

/// Builds a batch of dead letters.
fn batch(builder: BatchBuilder, target: &Target) -> Result<Bytes, ApiError> {
    let batch = builder.build().map_err(failed)?;
    if batch.len() > target.batch_bytes_max {
        let topic = target.topic.as_str();
        return Err(failed(format!("it has {} bytes, raise max.message.bytes of topic {topic}", batch.len())));
    }
    Ok(batch.into())
}
