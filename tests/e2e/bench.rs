//! The program that measures one broker: every row runs, on a thousandth of the work and without Apache Kafka.

use std::fs;
use std::time::Duration;

use millstream_tests::{Tool, millstream};
use tempfile::TempDir;

/// The page before anything is measured.
const PAGE: &str = "\
# Benchmarks

<!-- broker: written by cargo xtask bench -->
<!-- broker ends -->

<!-- transactions: written by cargo xtask bench -->
<!-- transactions ends -->
";

/// The rows that need neither Kafka nor its tools.
const ROWS: [&str; 24] = [
    "replayed produce, batches of 256 KiB: CPU-s/GB",
    "one record a request: requests/s",
    "one record a request: CPU-us",
    "cached fetch of 1 MiB: CPU-s/GB",
    "cached fetch of 1 MiB: GB/s",
    "long poll of one record: requests/s",
    "long poll of one record: CPU-us",
    "durable acknowledgements: a second",
    "durable acknowledgements: p99, ms",
    "end to end at 20,000 records/s: p50, us",
    "end to end at 20,000 records/s: p99, us",
    "5,000 partitions: share of one partition's MB/s, %",
    "start to first acknowledged produce: ms",
    "resident memory, idle: MiB",
    "resident memory, loaded: MiB",
    "10,000 partitions: create, s",
    "10,000 partitions: stop, s",
    "10,000 partitions: start, s",
    "10,000 partitions: start after kill -9, s",
    "compaction of 1 GB: s",
    "compaction of 1 GB: memory, MiB",
    "one producer: transactions/s",
    "64 producers: transactions/s",
    "memory of an open transaction: B",
];

#[test]
fn every_row_about_one_broker_is_measured() {
    let folder = TempDir::new().expect("a folder");
    let page = folder.path().join("benchmarks.md");
    fs::write(&page, PAGE).expect("written");
    let broker = millstream();
    let program = broker.with_file_name("millstream-bench");
    assert!(program.exists(), "{} is missing: run `cargo build --workspace` first", program.display());
    let finished = Tool::new(program)
        .arg("--broker")
        .arg(&broker)
        .args(["--turns", "1", "--warm-up", "0", "--divide", "1000", "--output"])
        .arg(&page)
        .limit(Duration::from_secs(240))
        .run();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let page = fs::read_to_string(&page).expect("a page");
    for row in ROWS {
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("| {row} | - | "))).unwrap_or_default();
        let figure = line.split(' ').next().unwrap_or_default().replace(',', "");
        assert!(figure.parse::<f64>().is_ok(), "the row {row} has no figure:\n{page}");
    }
}
