//! Decodes the bytes of a fetched partition into records.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use millstream_record::{BatchError, BatchView, Codec, Record, batches, codec};

use super::record::{ConsumerRecord, RecordHeader};
use crate::edge::{self, ConsumerStages};
use crate::error::Error;

/// The input of a decoding.
pub(crate) struct Fetched {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    /// The requested offset. The first batch may contain earlier records.
    pub(crate) from: i64,
    pub(crate) bytes: Bytes,
    /// With `read_committed`: the aborted transactions, as producer id and first offset.
    pub(crate) aborted: Option<Vec<(i64, i64)>>,
}

/// The configs of the decoding.
#[derive(Clone)]
pub(crate) struct Decoder {
    pub(crate) check_crcs: bool,
    pub(crate) batch_max_bytes: usize,
}

/// A range of a partition that is ready for `poll`.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    pub(crate) records: VecDeque<ConsumerRecord>,
    /// The offset to continue at after these records, past all skipped offsets.
    pub(crate) next_offset: i64,
    /// The leader epoch of the last batch; -1 if there is none.
    pub(crate) leader_epoch: i32,
    /// The error that ended the decoding.
    pub(crate) failure: Option<Error>,
}

/// The aborted transactions around the current offset.
struct Aborted {
    /// The transactions that start later, by first offset.
    ahead: BTreeMap<i64, Vec<i64>>,
    open: HashSet<i64>,
}

impl Aborted {
    fn new(list: &[(i64, i64)]) -> Self {
        let mut ahead: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for (producer_id, first_offset) in list {
            ahead.entry(*first_offset).or_default().push(*producer_id);
        }
        Self { ahead, open: HashSet::new() }
    }

    /// Returns whether the batch belongs to an aborted transaction.
    fn covers(&mut self, batch: &BatchView<'_>) -> bool {
        while let Some(entry) = self.ahead.first_entry() {
            if *entry.key() > batch.last_offset() {
                break;
            }
            self.open.extend(entry.remove());
        }
        batch.is_transactional() && self.open.contains(&batch.producer_id())
    }
}

/// Decodes as much as possible. It ends at the first batch or row that cannot be decoded.
pub(crate) fn decode(decoder: &Decoder, stages: &ConsumerStages, fetched: &Fetched) -> Decoded {
    let mut decoded = Decoded { next_offset: fetched.from, leader_epoch: -1, ..Decoded::default() };
    let mut aborted = fetched.aborted.as_deref().map(Aborted::new);
    let mut records = Vec::new();
    for batch in batches(&fetched.bytes) {
        let batch = match batch {
            Ok(batch) => batch,
            // Brokers cut off a response at its limit.
            Err(BatchError::Truncated { .. }) => break,
            Err(source) => {
                decoded.failure = Some(damaged(fetched, decoded.next_offset, None, source));
                break;
            }
        };
        if batch.last_offset() < decoded.next_offset {
            continue;
        }
        match decode_batch(decoder, stages, fetched, &batch, aborted.as_mut(), &mut records) {
            Ok(()) => {
                decoded.next_offset = batch.next_offset();
                decoded.leader_epoch = batch.leader_epoch();
            }
            Err((offset, error)) => {
                decoded.next_offset = offset.max(decoded.next_offset);
                decoded.failure = Some(error);
                break;
            }
        }
    }
    decoded.records = records.into();
    decoded
}

fn damaged(fetched: &Fetched, offset: i64, next_offset: Option<i64>, source: BatchError) -> Error {
    let next_offset = next_offset.filter(|next| *next > offset);
    Error::Batch { topic: fetched.topic.clone(), partition: fetched.partition, offset, next_offset, source }
}

/// Decodes one batch and appends its records. The error has the offset of the batch or row that failed.
fn decode_batch(
    decoder: &Decoder,
    stages: &ConsumerStages,
    fetched: &Fetched,
    batch: &BatchView<'_>,
    aborted: Option<&mut Aborted>,
    records: &mut Vec<ConsumerRecord>,
) -> Result<(), (i64, Error)> {
    let at = batch.base_offset().max(fetched.from);
    let bad = |source| (at, damaged(fetched, at, Some(batch.next_offset()), source));
    if decoder.check_crcs {
        batch.verify_crc().map_err(bad)?;
    }
    if let Some(aborted) = aborted {
        if batch.is_control() {
            // Ends the producer's transaction, aborted or not.
            aborted.covers(batch);
            aborted.open.remove(&batch.producer_id());
        } else if aborted.covers(batch) {
            return Ok(());
        }
    }
    if batch.is_control() {
        return Ok(());
    }
    let payload = payload(decoder, stages, fetched, batch).map_err(|error| (at, error))?;
    let timestamp_type = batch.timestamp_type();
    let start = records.len();
    for record in &batch.records_in(&payload) {
        let record = record.map_err(bad)?;
        if record.offset >= fetched.from {
            records.push(owned(fetched, &payload, &record, timestamp_type));
        }
    }
    if stages.see_rows() && records.len() > start {
        let rows = records.split_off(start);
        let (rows, failure) = edge::refine(stages, &fetched.topic, rows);
        records.extend(rows);
        if let Some(failure) = failure {
            return Err(failure);
        }
    }
    Ok(())
}

fn payload(
    decoder: &Decoder,
    stages: &ConsumerStages,
    fetched: &Fetched,
    batch: &BatchView<'_>,
) -> Result<Bytes, Error> {
    let at = batch.base_offset().max(fetched.from);
    let bad = |error: codec::CodecError| damaged(fetched, at, Some(batch.next_offset()), error.into());
    let codec = batch.codec().map_err(bad)?;
    if codec == Codec::None || batch.payload().is_empty() {
        return Ok(fetched.bytes.slice_ref(batch.payload()));
    }
    if let Some(decompressed) = edge::decompress(stages, batch, codec, decoder.batch_max_bytes) {
        return decompressed.map(Bytes::from).map_err(|error| Error::Record {
            topic: fetched.topic.clone(),
            partition: fetched.partition,
            offset: at,
            next_offset: batch.next_offset().max(at + 1),
            source: Box::new(error),
        });
    }
    codec::decompress(codec, batch.payload(), decoder.batch_max_bytes).map(Bytes::from).map_err(bad)
}

fn owned(
    fetched: &Fetched,
    payload: &Bytes,
    record: &Record<'_>,
    timestamp_type: millstream_record::TimestampType,
) -> ConsumerRecord {
    let slice = |bytes: &[u8]| payload.slice_ref(bytes);
    let header = |header: millstream_record::Header<'_>| RecordHeader {
        name: slice(header.name),
        value: header.value.map(slice),
    };
    ConsumerRecord {
        topic: fetched.topic.clone(),
        partition: fetched.partition,
        offset: record.offset,
        timestamp: record.timestamp,
        timestamp_type,
        key: record.key.map(slice),
        value: record.value.map(slice),
        headers: record.headers.map(header).collect(),
    }
}

#[cfg(test)]
mod tests {
    use millstream_record::{BatchBuilder, Header, TimestampType};

    use super::*;

    fn batch(base_offset: i64, codec: Codec, change: impl FnOnce(&mut BatchBuilder)) -> Vec<u8> {
        let mut builder = BatchBuilder::new(codec, TimestampType::CreateTime);
        builder.base_offset(base_offset);
        for row in 0..3_i64 {
            let value = format!("value {}", base_offset + row);
            let headers = [Header::new("h", Some(b"1")), Header::new("h", None)];
            builder.append(100 + row, Some(b"k"), Some(value.as_bytes()), headers).unwrap();
        }
        change(&mut builder);
        builder.build().unwrap()
    }

    fn decoder() -> Decoder {
        Decoder { check_crcs: true, batch_max_bytes: 1 << 20 }
    }

    fn fetched(bytes: Vec<u8>, from: i64) -> Fetched {
        Fetched { topic: "t".into(), partition: 1, from, bytes: bytes.into(), aborted: None }
    }

    fn offsets(decoded: &Decoded) -> Vec<i64> {
        decoded.records.iter().map(|record| record.offset).collect()
    }

    #[test]
    fn records_start_in_the_middle_of_a_batch_in_every_codec() {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let mut bytes = batch(10, codec, |_| {});
            bytes.extend(batch(13, codec, |_| {}));
            let decoded = decode(&decoder(), &ConsumerStages::default(), &fetched(bytes, 11));
            assert_eq!(offsets(&decoded), [11, 12, 13, 14, 15]);
            assert_eq!((decoded.next_offset, decoded.failure.is_none()), (16, true));
            let record = &decoded.records[0];
            assert_eq!((record.value.as_deref(), record.timestamp), (Some(&b"value 11"[..]), 101));
            assert_eq!(record.headers.len(), 2);
            assert_eq!(record.headers[1], RecordHeader { name: "h".into(), value: None });
        }
    }

    #[test]
    fn a_batch_cut_off_at_the_end_is_not_an_error() {
        let mut bytes = batch(0, Codec::None, |_| {});
        bytes.extend(&batch(3, Codec::None, |_| {})[..40]);
        let decoded = decode(&decoder(), &ConsumerStages::default(), &fetched(bytes, 0));
        assert_eq!((offsets(&decoded), decoded.next_offset), (vec![0, 1, 2], 3));
        assert!(decoded.failure.is_none());
        let decoded = decode(&decoder(), &ConsumerStages::default(), &fetched(Vec::new(), 7));
        assert_eq!((decoded.next_offset, decoded.records.len()), (7, 0));
    }

    #[test]
    fn a_flipped_bit_ends_the_decoding_after_the_good_batches() {
        let mut bytes = batch(0, Codec::None, |_| {});
        let mut bad = batch(3, Codec::None, |_| {});
        *bad.last_mut().unwrap() ^= 1;
        bytes.extend(bad);
        let decoded = decode(&decoder(), &ConsumerStages::default(), &fetched(bytes, 0));
        assert_eq!((offsets(&decoded), decoded.next_offset), (vec![0, 1, 2], 3));
        assert!(
            matches!(decoded.failure, Some(Error::Batch { offset: 3, next_offset: Some(6), .. })),
            "{:?}",
            decoded.failure
        );
    }

    #[test]
    fn decompression_stops_at_the_limit() {
        let mut builder = BatchBuilder::new(Codec::Gzip, TimestampType::CreateTime);
        builder.append(0, None, Some(&vec![0; 4 << 20]), []).unwrap();
        let decoded = decode(&decoder(), &ConsumerStages::default(), &fetched(builder.build().unwrap(), 0));
        assert!(decoded.records.is_empty());
        assert!(decoded.failure.unwrap().to_string().contains("1048576"));
    }

    #[test]
    fn control_batches_and_aborted_transactions_are_skipped() {
        let of = |producer: i64, control: bool| {
            move |builder: &mut BatchBuilder| {
                builder.producer(producer, 0, 0).transactional(true).control(control);
            }
        };
        let mut bytes = batch(0, Codec::None, of(1, false));
        bytes.extend(batch(3, Codec::None, of(2, false)));
        bytes.extend(batch(6, Codec::None, of(1, true)));
        bytes.extend(batch(9, Codec::None, of(1, false)));
        let mut fetched = fetched(bytes, 0);
        assert_eq!(offsets(&decode(&decoder(), &ConsumerStages::default(), &fetched)), [0, 1, 2, 3, 4, 5, 9, 10, 11]);
        fetched.aborted = Some(vec![(1, 0)]);
        let decoded = decode(&decoder(), &ConsumerStages::default(), &fetched);
        assert_eq!((offsets(&decoded), decoded.next_offset), (vec![3, 4, 5, 9, 10, 11], 12));
    }
}
