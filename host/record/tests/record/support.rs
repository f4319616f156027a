//! Shared helpers of this crate's tests: a small deterministic generator, and random records.

use millstream_record::{BatchBuilder, BatchView, Codec, Header, TimestampType};

/// The generator of Steele, Lea and Flood's SplitMix64: the same numbers on every run.
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Returns up to `max` bytes with few, one, or all values, so that some of it compresses.
    pub(crate) fn bytes(&mut self, max: usize) -> Vec<u8> {
        let len = self.below(max + 1);
        let alphabet = [1, 4, 256][self.below(3)];
        (0..len).map(|_| self.below(alphabet) as u8).collect()
    }

    fn nullable(&mut self, max: usize) -> Option<Vec<u8>> {
        (self.below(4) != 0).then(|| self.bytes(max))
    }
}

/// A record that owns its bytes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OwnedRecord {
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl OwnedRecord {
    pub(crate) fn random(random: &mut Random, value_max: usize) -> Self {
        let headers = (0..random.below(4))
            // Few names, so that some repeat.
            .map(|_| (["", "a", "trace-id", "ключ"][random.below(4)].to_owned(), random.nullable(20)))
            .collect();
        Self {
            timestamp: 1_700_000_000_000 + random.below(100_000) as i64 - 50_000,
            key: random.nullable(40),
            value: random.nullable(value_max),
            headers,
        }
    }

    pub(crate) fn append_to(&self, builder: &mut BatchBuilder) {
        builder
            .append(
                self.timestamp,
                self.key.as_deref(),
                self.value.as_deref(),
                self.headers.iter().map(|(name, value)| Header::new(name, value.as_deref())),
            )
            .unwrap();
    }
}

pub(crate) fn random_records(random: &mut Random, count_max: usize, value_max: usize) -> Vec<OwnedRecord> {
    (0..1 + random.below(count_max)).map(|_| OwnedRecord::random(random, value_max)).collect()
}

pub(crate) fn batch_of(codec: Codec, records: &[OwnedRecord]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec, TimestampType::CreateTime);
    for record in records {
        record.append_to(&mut builder);
    }
    builder.build().unwrap()
}

/// Returns the records of a batch, which must be valid.
pub(crate) fn read_all(batch: &BatchView<'_>) -> Vec<OwnedRecord> {
    let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    batch
        .records(1 << 24)
        .unwrap()
        .iter()
        .map(|record| {
            let record = record.unwrap();
            OwnedRecord {
                timestamp: record.timestamp,
                key: owned(record.key),
                value: owned(record.value),
                headers: record.headers.map(|header| (header.name_lossy().into_owned(), owned(header.value))).collect(),
            }
        })
        .collect()
}
