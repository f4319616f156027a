//! The configs of the log cleaner. All of them but one can be changed while the broker runs.

use std::collections::BTreeMap;
use std::time::Duration;

use super::broker_keys as keys;
use super::{ConfigError, Reader};

/// The least memory of a thread for the keys of a log, in bytes.
const THREAD_BYTES_MIN: u64 = 1 << 20;

/// The keys that can be changed while the broker runs.
pub(super) const DYNAMIC: [&str; 6] = [
    keys::LOG_CLEANER_BACKOFF_MS.row.name,
    keys::LOG_CLEANER_DEDUPE_BUFFER_SIZE.row.name,
    keys::LOG_CLEANER_IO_BUFFER_LOAD_FACTOR.row.name,
    keys::LOG_CLEANER_IO_BUFFER_SIZE.row.name,
    keys::LOG_CLEANER_IO_MAX_BYTES_PER_SECOND.row.name,
    keys::LOG_CLEANER_THREADS.row.name,
];

/// How logs are compacted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CleanerConfig {
    /// Whether logs are compacted at all.
    pub(crate) is_enabled: bool,
    /// The most passes at a time.
    pub(crate) threads: usize,
    /// The memory of a pass for the keys of its log.
    pub(crate) map_bytes: usize,
    /// The share of it that is filled.
    pub(crate) load_factor: f64,
    /// The bytes of a read or a write.
    pub(crate) piece_bytes: usize,
    /// The most bytes that all passes read and write in a second.
    pub(crate) bytes_per_second: f64,
    /// The pause when no log needs a pass.
    pub(crate) backoff: Duration,
}

impl CleanerConfig {
    /// Reads the keys of the file, with those in `set` in place of them.
    pub(super) fn from_values(
        values: &BTreeMap<&'static str, String>,
        set: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let mut merged: BTreeMap<&'static str, String> = BTreeMap::new();
        for name in DYNAMIC.into_iter().chain([keys::LOG_CLEANER_ENABLE.row.name]) {
            merged.extend(set(name).or_else(|| values.get(name).cloned()).map(|value| (name, value)));
        }
        let read = Reader { values: &merged };
        let threads = read.size(keys::LOG_CLEANER_THREADS);
        let map_bytes = read.get(keys::LOG_CLEANER_DEDUPE_BUFFER_SIZE).max(0).unsigned_abs() / threads.max(1) as u64;
        if map_bytes <= THREAD_BYTES_MIN {
            // Kafka's words.
            return Err(ConfigError(
                "log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread.".to_owned(),
            ));
        }
        Ok(Self {
            is_enabled: read.get(keys::LOG_CLEANER_ENABLE),
            threads,
            map_bytes: usize::try_from(map_bytes).unwrap_or(usize::MAX),
            load_factor: read.get(keys::LOG_CLEANER_IO_BUFFER_LOAD_FACTOR),
            piece_bytes: read.size(keys::LOG_CLEANER_IO_BUFFER_SIZE).max(1024),
            bytes_per_second: read.get(keys::LOG_CLEANER_IO_MAX_BYTES_PER_SECOND),
            backoff: read.millis(keys::LOG_CLEANER_BACKOFF_MS),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &[(&'static str, &str)], set: &[(&str, &str)]) -> Result<CleanerConfig, ConfigError> {
        let values = file.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let find = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        CleanerConfig::from_values(&values, &find)
    }

    #[test]
    fn what_is_set_while_the_broker_runs_comes_first() {
        let config = read(&[], &[]).expect("the defaults fit");
        assert_eq!((config.is_enabled, config.threads, config.map_bytes), (true, 1, 134_217_728));
        assert_eq!((config.load_factor, config.piece_bytes), (0.9, 524_288));
        assert_eq!((config.bytes_per_second, config.backoff), (f64::MAX, Duration::from_secs(15)));
        let file = [("log.cleaner.threads", "4"), ("log.cleaner.enable", "false")];
        let config = read(&file, &[("log.cleaner.io.buffer.load.factor", "0.5")]).expect("good");
        assert_eq!((config.is_enabled, config.threads, config.map_bytes), (false, 4, 33_554_432));
        assert_eq!(config.load_factor, 0.5);
        let set = [("log.cleaner.threads", "2"), ("log.cleaner.io.buffer.size", "4096")];
        let config = read(&file, &set).expect("good");
        assert_eq!((config.threads, config.piece_bytes), (2, 4096));
    }

    #[test]
    fn a_thread_has_a_mebibyte_at_least() {
        let error = read(&[("log.cleaner.dedupe.buffer.size", "1048576")], &[]).expect_err("too small").to_string();
        assert!(error.contains("at least 1MB per cleaner thread"), "{error}");
        assert!(read(&[("log.cleaner.threads", "200")], &[]).is_err());
        assert!(read(&[("log.cleaner.dedupe.buffer.size", "2097152")], &[]).is_ok());
    }
}
