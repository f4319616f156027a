//! A compacted topic: Kafka's consumer reads it, and Kafka's own reader accepts its files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use millstream_tests::{Broker, wait_until};
use rustix::process::Signal;

use super::console::{CONSUMER, PRODUCER};
use super::{DUMP_LOG_SEGMENTS, TOPIC_COMMAND, Tools};

const PATIENCE: Duration = Duration::from_secs(90);

/// The records that are sent, and their keys.
const RECORDS: usize = 30_000;
const KEYS: usize = 500;

fn files(folder: &Path, kind: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder of the partition").map(|entry| entry.expect("an entry"));
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|suffix| suffix == kind));
    files.sort();
    files
}

pub(super) fn console_and_dump(tools: &Tools) {
    let mut broker = Broker::builder()
        .set("log.cleaner.backoff.ms", "100")
        .set("log.cleaner.min.cleanable.ratio", "0.01")
        .set("log.cleaner.delete.retention.ms", "86400000")
        .start();
    tools
        .client(TOPIC_COMMAND, &broker)
        .args(["--create", "--topic", "table", "--partitions", "1", "--config", "cleanup.policy=compact"])
        .args(["--config", "segment.bytes=1048576"])
        .succeed();
    // The last quarter deletes every tenth key.
    let value = |n: usize| match n.is_multiple_of(10) && n >= RECORDS * 3 / 4 {
        true => "NULL".to_owned(),
        false => format!("value-{n}-{}", "x".repeat(90)),
    };
    let lines: Vec<String> = (0..RECORDS).map(|n| format!("key-{}\t{}", n % KEYS, value(n))).collect();
    tools
        .client(PRODUCER, &broker)
        .args(["--topic", "table", "--reader-property", "parse.key=true", "--reader-property", "null.marker=NULL"])
        .args(["--compression-codec", "none"])
        .input(lines.join("\n"))
        .succeed();
    let folder = broker.folder().join("table-0");
    let size = || files(&folder, "log").iter().map(|path| fs::metadata(path).map_or(0, |file| file.len())).sum::<u64>();
    wait_until("compaction", PATIENCE, || (size() < 1_500_000).then_some(()));
    let read = tools
        .client(CONSUMER, &broker)
        .args(["--topic", "table", "--from-beginning", "--timeout-ms", "8000"])
        .args(["--formatter-property", "print.key=true", "--formatter-property", "print.offset=true"])
        .run();
    let mut last = BTreeMap::new();
    let mut before = -1;
    for line in read.stdout.lines() {
        let (offset, row) = line.split_once('\t').expect("an offset");
        let offset: i64 = offset.trim_start_matches("Offset:").parse().expect("a number");
        assert!(offset > before, "{line}");
        before = offset;
        let (key, value) = row.split_once('\t').expect("a key");
        last.insert(key.to_owned(), value.to_owned());
    }
    assert!(read.stdout.lines().count() < RECORDS / 2, "{}", read.stdout.lines().count());
    assert_eq!(before, RECORDS as i64 - 1);
    for n in RECORDS - KEYS..RECORDS {
        let wanted = if value(n) == "NULL" { "null".to_owned() } else { value(n) };
        assert_eq!(last.get(&format!("key-{}", n % KEYS)), Some(&wanted));
    }
    assert_eq!(last.len(), KEYS);

    assert_eq!(broker.stop(Signal::TERM).code(), Some(0));
    let dump = |file: &Path, how: &str| {
        let dumped = tools.tool(DUMP_LOG_SEGMENTS).arg(how).arg("--files").arg(file).succeed();
        for word in ["isvalid: false", "Mismatches", "corrupt", "Exception"] {
            assert!(!dumped.contains(word), "{}: {dumped}", file.display());
        }
        dumped
    };
    let mut has_horizon = false;
    for log in files(&folder, "log") {
        has_horizon |= dump(&log, "--deep-iteration").contains("deleteHorizonMs: OptionalLong[");
    }
    assert!(has_horizon, "a batch with tombstones has a horizon");
    for kind in ["index", "timeindex"] {
        for index in files(&folder, kind) {
            dump(&index, "--index-sanity-check");
        }
    }
    let checkpoint = fs::read_to_string(broker.folder().join("cleaner-offset-checkpoint")).expect("a checkpoint");
    assert!(checkpoint.lines().any(|line| line.starts_with("table 0 ")), "{checkpoint}");
}
