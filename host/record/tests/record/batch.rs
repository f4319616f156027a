//! Batches from the outside: what is built is read back, and every patch does what it says.

use crate::support::*;
use millstream_record::validate::{ProduceRules, check_records, validate_produce};
use millstream_record::*;

const NO_RULES: ProduceRules = ProduceRules { batch_bytes_max: usize::MAX, timestamps: None };

fn read_all(batch: &BatchView<'_>) -> Vec<OwnedRecord> {
    batch
        .records(1 << 24)
        .unwrap()
        .iter()
        .map(|record| {
            let record = record.unwrap();
            OwnedRecord {
                timestamp: record.timestamp,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: record
                    .headers
                    .map(|header| (header.name_lossy().into_owned(), header.value.map(<[u8]>::to_vec)))
                    .collect(),
            }
        })
        .collect()
}

#[test]
fn random_records_come_back_under_every_codec() {
    let mut random = Random(1);
    for round in 0..60 {
        let value_max = [10, 1_000, 100_000][round % 3];
        let records = random_records(&mut random, 30, value_max);
        for codec in Codec::ALL {
            let bytes = batch_of(codec, &records);
            let batch = validate_produce(&bytes, &NO_RULES).unwrap();
            assert_eq!(batch.codec(), Ok(codec));
            assert_eq!(batch.count() as usize, records.len());
            assert_eq!(batch.base_timestamp(), records[0].timestamp);
            let max_timestamp = records.iter().map(|record| record.timestamp).max().unwrap();
            assert_eq!(batch.max_timestamp(), max_timestamp);
            assert_eq!(read_all(&batch), records);
            let summary = check_records(&batch, 1 << 24, None).unwrap();
            assert_eq!(summary.count as usize, records.len());
            assert_eq!(summary.max_timestamp, max_timestamp);
            assert_eq!(summary.null_keys as usize, records.iter().filter(|record| record.key.is_none()).count());
            assert_eq!(
                summary.first_null_key.map(|index| index as usize),
                records.iter().position(|record| record.key.is_none())
            );
        }
    }
}
