//! A record on its way out.

use millstream_record::{BatchBuilder, Header};

/// A record to send. Its bytes are borrowed: `send` copies them once, into the columns of a batch.
///
/// ```
/// use millstream_client::ProducerRecord;
///
/// let record = ProducerRecord::new("quakes").key(b"us7000").value(b"{}").header("source", Some(b"usgs"));
/// assert_eq!(record.topic, "quakes");
/// ```
#[derive(Debug, Clone, Default)]
pub struct ProducerRecord<'a> {
    /// Where it goes.
    pub topic: &'a str,
    /// The partition; `None` lets the partitioner choose.
    pub partition: Option<i32>,
    /// Milliseconds since the epoch; `None` is the time of `send`.
    pub timestamp: Option<i64>,
    /// The key, if any.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names and values in order; a name may repeat.
    pub headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

impl<'a> ProducerRecord<'a> {
    /// A record without key and value.
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

    /// Adds a header after those that are there.
    #[must_use]
    pub fn header(mut self, name: &'a str, value: Option<&'a [u8]>) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The most that it takes in a batch, in bytes.
    pub(crate) fn size(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| Header::new(name, *value));
        BatchBuilder::record_size_max(self.key, self.value, headers)
    }
}
