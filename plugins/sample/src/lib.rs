//! `sample{"share":0.01}`: a filter that keeps a share of the records. A hash of the record decides, its timestamp, key
//! and value, so the same record is always kept or always dropped, in every place and at every call.
//!
//! `"by":"key"` keeps a share of the keys with all their records instead; records without a key count one by one. With
//! few keys the share of the records may be another one. `"seed":1` takes another sample of the same size.
#![forbid(unsafe_code)]

use millstream_sdk::{Columns, ConfigError, Filter, Record, Result};
use serde::Deserialize;
use twox_hash::XxHash64;

/// Keeps a share of the records.
#[derive(Debug, Deserialize)]
pub struct Sample {
    share: f64,
    #[serde(default)]
    by: By,
    #[serde(default)]
    seed: u64,
}

/// What is counted.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum By {
    #[default]
    Record,
    Key,
}

impl Filter for Sample {
    const COLUMNS: Columns = Columns::TIMESTAMPS.with(Columns::KEYS).with(Columns::VALUES);

    fn prepare(&mut self) -> Result<(), ConfigError> {
        if self.share > 0.0 && self.share <= 1.0 {
            Ok(())
        } else {
            Err(ConfigError::new("/share", "the share is a number above 0, up to 1 for all records"))
        }
    }

    fn keep(&self, record: &Record<'_>) -> Result<bool> {
        let hash = match record.key() {
            Some(key) if self.by == By::Key => XxHash64::oneshot(self.seed, key),
            key => {
                // Each hash is the seed of the next, so that no bytes are copied.
                let time = XxHash64::oneshot(self.seed, &record.timestamp().to_le_bytes());
                let key = XxHash64::oneshot(time, key.unwrap_or_default());
                XxHash64::oneshot(key, record.value().unwrap_or_default())
            }
        };
        // 53 bits are exact in a float.
        Ok((hash >> 11) as f64 <= self.share * (1_u64 << 53) as f64)
    }
}

millstream_sdk::filter!(Sample);

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_sdk::{BatchBuf, filter::filter};

    const ROWS: usize = 100_000;

    fn kept(stage: &Sample, batch: &BatchBuf) -> Vec<usize> {
        filter(stage, &batch.as_batch()).unwrap().ones().collect()
    }

    /// Makes records of `keys` keys, each with the same value.
    fn batch(keys: usize) -> BatchBuf {
        let mut batch = BatchBuf::new("t");
        for row in 0..ROWS {
            let key = format!("key-{}", row % keys);
            batch.push(1_700_000_000_000 + row as i64, Some(key.as_bytes()), Some(b"the same value"), &[]);
        }
        batch
    }

    #[test]
    fn the_share_is_right_and_other_seeds_take_other_records() {
        let batch = batch(7);
        for share in [0.001, 0.01, 0.5, 0.9] {
            let [one, other] = [0, 1].map(|seed| kept(&Sample { share, by: By::Record, seed }, &batch));
            let expected = share * ROWS as f64;
            // Four standard deviations of a binomial distribution.
            let tolerance = 4.0 * (expected * (1.0 - share)).sqrt();
            for kept in [&one, &other] {
                assert!((kept.len() as f64 - expected).abs() < tolerance, "{share}: {}", kept.len());
            }
            let both = one.iter().filter(|row| other.binary_search(row).is_ok()).count() as f64;
            assert!((both - expected * share).abs() < tolerance, "{share}: {both} are in both samples");
        }
        assert_eq!(kept(&Sample { share: 1.0, by: By::Record, seed: 0 }, &batch).len(), ROWS);
    }

    #[test]
    fn by_key_all_records_of_a_key_are_kept_or_none() {
        let kept = kept(&Sample { share: 0.25, by: By::Key, seed: 0 }, &batch(1_000));
        let keys: std::collections::BTreeSet<usize> = kept.iter().map(|row| row % 1_000).collect();
        assert!((200..300).contains(&keys.len()), "{} keys", keys.len());
        assert_eq!(kept.len(), keys.len() * ROWS / 1_000);
    }
}
