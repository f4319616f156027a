//! Whole batches, cut at every byte and with every bit flipped: an error, never a panic or a large allocation.

use millstream_record::validate::{RecordRules, TimestampBounds, check_records_up_to, validate_produce};
use millstream_record::*;

use crate::allocations::watch;
use crate::support::*;

const BOUNDS: TimestampBounds =
    TimestampBounds { now_ms: 1_700_000_000_000, before_ms_max: i64::MAX, after_ms_max: 3_600_000 };
const BATCH_BYTES_MAX: usize = 1 << 20;
const RULES: RecordRules = RecordRules { timestamps: Some(BOUNDS), ..RecordRules::NONE };
const RECORDS_MAX: usize = 1 << 16;
/// The largest allocation for a damaged batch of a few hundred bytes: the limit and a vector's growth.
const ALLOCATION_MAX: usize = 3 * RECORDS_MAX;

fn small(codec: Codec) -> Vec<u8> {
    batch_of(codec, &random_records(&mut Random(31), 4, 40))
}

/// Runs every function that a reader may call on bytes that claim to be batches. Returns the validation's result.
fn exercise(bytes: &[u8]) -> Result<(), BatchError> {
    let (result, seen) = watch(|| {
        for batch in batches(bytes) {
            let Ok(batch) = batch else { break };
            let header = batch.header();
            let _ = (header.last_offset(), header.next_offset(), header.last_sequence(), header.codec());
            let Ok(records) = batch.records(RECORDS_MAX) else { continue };
            let found = records.iter().take_while(Result::is_ok).count();
            assert!(found <= records.payload().len());
            for record in records.iter().flatten() {
                assert_eq!(record.headers.len(), record.headers.count());
            }
        }
        let batch = validate_produce(bytes, BATCH_BYTES_MAX)?;
        check_records_up_to(&batch, &RULES, RECORDS_MAX).map(drop)
    });
    assert!(seen.largest <= ALLOCATION_MAX, "{seen:?}");
    result
}

#[test]
fn a_cut_at_every_byte_is_corrupt() {
    for codec in Codec::ALL {
        let batch = small(codec);
        exercise(&batch).unwrap();
        for cut in 0..batch.len() {
            assert!(matches!(BatchView::parse(&batch[..cut]), Err(BatchError::Truncated { .. })));
            let error = exercise(&batch[..cut]).unwrap_err();
            let expected = if cut == 0 { ErrorKind::InvalidRecord } else { ErrorKind::Corrupt };
            assert_eq!(error.kind(), expected, "{codec} cut at {cut}");
        }
    }
}

#[test]
fn a_flipped_bit_is_seen_wherever_it_is() {
    for codec in Codec::ALL {
        let batch = small(codec);
        for at in 0..batch.len() {
            for bit in 0..8 {
                let mut flipped = batch.clone();
                flipped[at] ^= 1 << bit;
                let result = exercise(&flipped).map_err(|error| error.kind());
                let expected = match at {
                    // The base offset must be 0; the CRC does not cover it.
                    0..8 => Err(ErrorKind::InvalidRecord),
                    // The broker sets the leader epoch.
                    12..16 => Ok(()),
                    16 => Err(ErrorKind::UnsupportedMagic),
                    _ => Err(ErrorKind::Corrupt),
                };
                assert_eq!(result, expected, "{codec} byte {at} bit {bit}");
            }
        }
    }
}

/// A client can compute the right CRC for any bytes.
#[test]
fn a_flipped_bit_under_a_right_crc_never_panics() {
    for codec in Codec::ALL {
        let batch = small(codec);
        for at in 16..batch.len() {
            for bit in 0..8 {
                let mut flipped = batch.clone();
                flipped[at] ^= 1 << bit;
                patch::refresh_crc(&mut flipped);
                let _ = exercise(&flipped);
            }
        }
    }
}

#[test]
fn random_damage_under_a_right_crc_never_panics() {
    let mut random = Random(32);
    for round in 0..10_000 {
        let codec = Codec::ALL[round % 5];
        let mut batch = batch_of(codec, &random_records(&mut random, 6, 60));
        for _ in 0..1 + random.below(8) {
            let at = random.below(batch.len());
            batch[at] = match random.below(3) {
                0 => random.next() as u8,
                1 => 0xFF,
                _ => 0x80,
            };
        }
        patch::refresh_crc(&mut batch);
        let _ = exercise(&batch);
    }
}

#[test]
fn noise_never_panics() {
    let mut random = Random(33);
    for _ in 0..20_000 {
        let mut noise = random.bytes(200);
        let _ = exercise(&noise);
        // The same with a header that gets past the first checks.
        if noise.len() >= HEADER_LEN {
            let length = (noise.len() - LOG_OVERHEAD) as i32;
            noise[..8].fill(0);
            noise[8..12].copy_from_slice(&length.to_be_bytes());
            noise[16] = MAGIC as u8;
            patch::refresh_crc(&mut noise);
            let _ = exercise(&noise);
        }
    }
}

#[test]
fn a_bomb_is_appended_unread_and_rejected_when_read() {
    for codec in Codec::ALL.into_iter().filter(|codec| *codec != Codec::None) {
        let mut builder = BatchBuilder::new(codec, TimestampType::CreateTime);
        builder.append(BOUNDS.now_ms, None, Some(&vec![0; 16 << 20]), []).unwrap();
        let bytes = builder.build().unwrap();
        let batch = validate_produce(&bytes, BATCH_BYTES_MAX).unwrap();
        let error = check_records_up_to(&batch, &RULES, RECORDS_MAX).unwrap_err();
        assert_eq!(error, BatchError::Codec(CodecError::TooLarge { max: RECORDS_MAX }));
        assert_eq!(error.kind(), ErrorKind::TooLarge);
    }
}

#[test]
fn an_iterator_ends_after_its_first_error() {
    let mut bytes = small(Codec::None);
    // The first record's length.
    bytes[HEADER_LEN] = 0xFF;
    let batch = BatchView::parse(&bytes).unwrap();
    let records = batch.records(0).unwrap();
    let mut iter = records.iter();
    assert!(iter.next().unwrap().is_err());
    assert!(iter.next().is_none() && iter.next().is_none());

    let bad = [&*small(Codec::None), &[0xFF; 70], &small(Codec::None)].concat();
    let found: Vec<_> = batches(&bad).map(|batch| batch.is_ok()).collect();
    assert_eq!(found, [true, false]);
}

#[test]
fn counts_in_a_header_are_not_believed() {
    for count in [i32::MIN, -1, i32::MAX] {
        let mut bytes = small(Codec::None);
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        let batch = BatchView::parse(&bytes).unwrap();
        let records = batch.records(0).unwrap();
        let (all, seen) = watch(|| records.iter().collect::<Result<Vec<_>, _>>());
        assert_eq!(all.unwrap_err().kind(), ErrorKind::InvalidRecord);
        assert!(seen.largest < 10_000, "{seen:?}");
    }
}
