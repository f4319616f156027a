//! The views and checks of record batches, which read what clients send and what disks return.

use bolero::{TypeGenerator, produce};
use millstream_record::validate::{RecordRules, TimestampBounds, check_framing, check_records_up_to, validate_produce};
use millstream_record::{
    BatchBuilder, BatchView, Codec, EndMarker, HEADER_LEN, Header, LOG_OVERHEAD, MAGIC, TimestampType, batches,
    compacted, emptied, patch, retain,
};

use crate::TEST_TIME;
use crate::allocations::peak;
use crate::damage::{Damage, damaged};
use crate::records::{Batch, NOW, OwnedRecord, read};

/// The most bytes that records may decompress to.
const BYTES_MAX: usize = 64 << 10;
/// What a check may hold beside what the input's own bytes can make: buffers of the decoders, and rejected records.
const FIXED: usize = 2 << 20;
/// The most that one byte of input may cost: a block of LZ4 expands by this.
const EXPANSION_MAX: usize = 2 * 256;

const RULES: RecordRules = RecordRules {
    timestamps: Some(TimestampBounds { now_ms: NOW, before_ms_max: i64::MAX, after_ms_max: 3_600_000 }),
    keys: true,
    record_bytes_max: 1 << 20,
};

#[test]
fn bytes_that_are_no_batches_are_rejected() {
    bolero::check!().with_test_time(TEST_TIME).for_each(|bytes: &[u8]| {
        check(bytes);
        check(&dressed(bytes));
    });
}

/// Returns the bytes with what a header needs to get past the first checks.
fn dressed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().max(HEADER_LEN), 0);
    let length = (bytes.len() - LOG_OVERHEAD) as i32;
    bytes[..8].fill(0);
    bytes[8..LOG_OVERHEAD].copy_from_slice(&length.to_be_bytes());
    bytes[16] = MAGIC as u8;
    patch::refresh_crc(&mut bytes);
    bytes
}

#[derive(Clone, Debug, TypeGenerator)]
struct Damaged {
    #[generator(produce::<Vec<Batch>>().with().len(1..3usize))]
    batches: Vec<Batch>,
    #[generator(produce::<Vec<Damage>>().with().len(0..5usize))]
    damages: Vec<Damage>,
    /// Whether the sender computes the right CRC for what it sends.
    has_right_crc: bool,
}

#[test]
fn damaged_batches_are_rejected_or_read_the_same_everywhere() {
    bolero::check!().with_test_time(TEST_TIME).with_type().for_each(|input: &Damaged| {
        let whole: Vec<Vec<u8>> = input.batches.iter().map(Batch::build).collect();
        let mut bytes = damaged(&whole.concat(), &input.damages);
        if input.has_right_crc && bytes.len() >= HEADER_LEN {
            let size = BatchView::parse(&bytes).map_or(bytes.len(), |batch| batch.size());
            patch::refresh_crc(&mut bytes[..size]);
        }
        check(&bytes);
        if input.damages.is_empty() {
            let found: Vec<_> = batches(&bytes).map(|batch| batch.expect("it is undamaged").bytes().to_vec()).collect();
            assert_eq!(found, whole);
        }
    });
}

/// Calls every function that reads bytes which claim to be batches, and compares what they find.
fn check(bytes: &[u8]) {
    let (held, ()) = peak(|| {
        for batch in batches(bytes).map_while(Result::ok) {
            let header = batch.header();
            let _ = (header.last_offset(), header.next_offset(), header.last_sequence(), format!("{header:?}"));
            let _ = (check_framing(&batch), EndMarker::of(&batch));
            let _ = check_records_up_to(&batch, &RULES, BYTES_MAX);
            if batch.verify_crc().is_ok() {
                rewrite(&batch);
            }
        }
        validate(bytes);
    });
    let allowed = bytes.len() * EXPANSION_MAX + 8 * BYTES_MAX + FIXED;
    assert!(held <= allowed, "{held} bytes were held for an input of {}", bytes.len());
}

/// Checks that a produced batch is accepted by the walk over its pieces exactly if its decompressed records are good.
fn validate(bytes: &[u8]) {
    let Ok(batch) = validate_produce(bytes, 1 << 20) else { return };
    let walked = check_records_up_to(&batch, &RecordRules::NONE, BYTES_MAX);
    let records = read(&batch, BYTES_MAX)
        .ok()
        .filter(|records| records.iter().zip(batch.base_offset()..).all(|(record, offset)| record.offset == offset));
    assert_eq!(walked.is_ok(), records.is_some(), "{walked:?} and {records:?}");
    if let (Ok(summary), Some(records)) = (walked, records) {
        assert_eq!((summary.count as usize, batch.count() as usize), (records.len(), records.len()));
        let newest = records.iter().map(|record| record.timestamp).max();
        assert_eq!(Some(summary.max_timestamp), newest.map(|newest| newest.max(-1)));
        assert!(check_framing(&batch).is_ok(), "a good batch has a good framing");
    }
}

/// Checks that the records of a batch are the same after each way to write it again.
fn rewrite(batch: &BatchView<'_>) {
    let Ok(records) = batch.records(BYTES_MAX) else { return };
    let Ok(found) = read(batch, BYTES_MAX) else { return };
    let same = |bytes: &[u8]| {
        let copy = BatchView::parse(bytes).expect("it was just written");
        copy.verify_crc().expect("it was just written");
        assert_eq!(read(&copy, usize::MAX).as_ref(), Ok(&found));
    };
    for codec in [Codec::None, Codec::Lz4] {
        same(&retain(batch, &records, codec, None, |_, _| true).expect("its records are good"));
    }
    let emptied = emptied(batch);
    assert_eq!(BatchView::parse(&emptied).expect("it was just written").last_offset(), batch.last_offset());
    let is_ordered = found.windows(2).all(|pair| pair[0].offset < pair[1].offset);
    if is_ordered && !found.is_empty() && batch.timestamp_type() == TimestampType::CreateTime {
        same(&compacted(batch, &records, Codec::None, None, |_, _| true).expect("its records are good"));
        same(&built(batch, &found));
    }
}

/// Builds a batch with the same records.
fn built(batch: &BatchView<'_>, records: &[OwnedRecord]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None, batch.timestamp_type());
    builder.base_offset(batch.base_offset());
    for record in records {
        let delta = (record.offset - batch.base_offset()) as i32;
        let headers = record.headers.iter().map(|(name, value)| Header { name, value: value.as_deref() });
        builder
            .append_at(delta, record.timestamp, record.key.as_deref(), record.value.as_deref(), headers)
            .expect("it fits");
    }
    builder.last_offset_delta(batch.last_offset_delta());
    builder.build().expect("it fits")
}
