//! A record to send.

use millstream_record::{BatchBuilder, Header};

/// A record to send. It borrows its bytes; `send` copies them once, into the columns of a chunk.
///
/// ```
/// use millstream_client::ProducerRecord;
///
/// let record = ProducerRecord::new("quakes").key(b"us7000").value(b"{}").header("source", Some(b"usgs"));
/// assert_eq!(record.topic, "quakes");
/// ```
#[derive(Debug, Clone, Default)]
pub struct ProducerRecord<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition; with `None` the partitioner chooses.
    pub partition: Option<i32>,
    /// Milliseconds since the epoch; with `None` it is the time of `send`.
    pub timestamp: Option<i64>,
    /// The key, if any.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names and values in order; a name may repeat.
    pub headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

impl<'a> ProducerRecord<'a> {
    /// Creates a record without key and value.
    pub fn new(topic: &'a str) -> Self {
        Self { topic, ..Self::default() }
    }

    /// Sets the key.
    #[must_use]
    pub fn key(self, key: &'a [u8]) -> Self {
        Self { key: Some(key), ..self }
    }

    /// Sets the value.
    #[must_use]
    pub fn value(self, value: &'a [u8]) -> Self {
        Self { value: Some(value), ..self }
    }

    /// Sets the partition.
    #[must_use]
    pub fn partition(self, partition: i32) -> Self {
        Self { partition: Some(partition), ..self }
    }

    /// Sets the timestamp, in milliseconds since the epoch.
    #[must_use]
    pub fn timestamp(self, timestamp_ms: i64) -> Self {
        Self { timestamp: Some(timestamp_ms), ..self }
    }

    /// Appends a header.
    #[must_use]
    pub fn header(mut self, name: &'a str, value: Option<&'a [u8]>) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Returns the upper bound of its size in a batch, in bytes.
    pub(crate) fn size(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| Header::new(name, *value));
        BatchBuilder::record_size_max(self.key, self.value, headers)
    }
}
