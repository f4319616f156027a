//! Generated record batches, and what a reader finds in one.

use bolero::{TypeGenerator, produce};
use millstream_record::{BatchBuilder, BatchError, BatchView, Codec, Header, Records, TimestampType};

/// A time that the broker's limits allow, in milliseconds since 1970.
pub(crate) const NOW: i64 = 1_700_000_000_000;

/// A valid record batch.
#[derive(Clone, Debug, TypeGenerator)]
pub(crate) struct Batch {
    #[generator(0..5usize)]
    codec: usize,
    is_log_append_time: bool,
    producer: Option<Producer>,
    /// Whether offsets are missing, as after compaction.
    has_gaps: bool,
    #[generator(produce::<Vec<Row>>().with().len(1..8usize))]
    rows: Vec<Row>,
}

#[derive(Clone, Debug, TypeGenerator)]
struct Producer {
    id: i32,
    epoch: i16,
    sequence: i32,
    is_transactional: bool,
}

#[derive(Clone, Debug, TypeGenerator)]
struct Row {
    #[generator(-1000..1000i64)]
    time: i64,
    #[generator(0..3i32)]
    gap: i32,
    key: Option<Bytes>,
    value: Option<Bytes>,
    /// How many times the value is repeated, so that records span the pieces of a decompression.
    #[generator(0..400usize)]
    times: usize,
    #[generator(produce::<Vec<(Bytes, Option<Bytes>)>>().with().len(0..3usize))]
    headers: Vec<(Bytes, Option<Bytes>)>,
}

/// Bytes that repeat, so that a part of them compresses.
#[derive(Clone, Debug, TypeGenerator)]
pub(crate) struct Bytes {
    #[generator(produce::<Vec<u8>>().with().len(0..24usize))]
    part: Vec<u8>,
    #[generator(0..4usize)]
    times: usize,
}

impl Bytes {
    pub(crate) fn repeated(&self, times: usize) -> Vec<u8> {
        self.part.repeat(self.times * times)
    }
}

impl Batch {
    /// Returns its bytes.
    pub(crate) fn build(&self) -> Vec<u8> {
        let timestamp_type = match self.is_log_append_time {
            true => TimestampType::LogAppendTime,
            false => TimestampType::CreateTime,
        };
        let mut builder = BatchBuilder::new(Codec::ALL[self.codec], timestamp_type);
        if let Some(Producer { id, epoch, sequence, is_transactional }) = &self.producer {
            builder.producer((*id).into(), *epoch, *sequence).transactional(*is_transactional);
        }
        let mut delta = -1;
        for row in &self.rows {
            delta += 1 + if self.has_gaps { row.gap } else { 0 };
            let headers: Vec<_> = row
                .headers
                .iter()
                .map(|(name, value)| (name.repeated(1), value.as_ref().map(|v| v.repeated(1))))
                .collect();
            let headers = headers.iter().map(|(name, value)| Header { name, value: value.as_deref() });
            let (key, value) = (
                row.key.as_ref().map(|key| key.repeated(1)),
                row.value.as_ref().map(|value| value.repeated(row.times)),
            );
            builder.append_at(delta, NOW + row.time, key.as_deref(), value.as_deref(), headers).expect("it fits");
        }
        builder.build().expect("it fits")
    }
}

/// A header of a record that owns its bytes.
type OwnedHeader = (Vec<u8>, Option<Vec<u8>>);

/// A record that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnedRecord {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<OwnedHeader>,
}

/// Returns the records in order.
///
/// # Errors
/// One of them cannot be read.
pub(crate) fn owned(records: &Records<'_>) -> Result<Vec<OwnedRecord>, BatchError> {
    let copy = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    let record = |record: millstream_record::Record<'_>| OwnedRecord {
        offset: record.offset,
        timestamp: record.timestamp,
        key: copy(record.key),
        value: copy(record.value),
        headers: record.headers.map(|header| (header.name.to_vec(), copy(header.value))).collect(),
    };
    records.iter().map(|next| next.map(record)).collect()
}

/// Returns the records of a batch, decompressed to at most `bytes_max`.
///
/// # Errors
/// It cannot be decompressed or read.
pub(crate) fn read(batch: &BatchView<'_>, bytes_max: usize) -> Result<Vec<OwnedRecord>, BatchError> {
    owned(&batch.records(bytes_max)?)
}
