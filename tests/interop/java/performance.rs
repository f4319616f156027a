//! ProducerPerformance, ConsumerPerformance and, on what they left on disk, DumpLogSegments.

use std::fs;

use millstream_tests::Broker;
use rustix::process::Signal;

use super::{DUMP_LOG_SEGMENTS, Tools};

pub(super) const PRODUCER: &str = "org.apache.kafka.tools.ProducerPerformance";
pub(super) const CONSUMER: &str = "org.apache.kafka.tools.ConsumerPerformance";

fn produce(tools: &Tools, broker: &Broker, records: u32, codec: &str) {
    let report = tools
        .client(PRODUCER, broker)
        .args(["--topic", "load", "--num-records", &records.to_string(), "--record-size", "100"])
        .args(["--throughput", "-1", "--command-property", "acks=all"])
        .args(["--command-property", &format!("compression.type={codec}")])
        .succeed();
    assert!(report.contains(&format!("{records} records sent")), "{report}");
}

pub(super) fn produce_and_consume(tools: &Tools) {
    let broker = Broker::builder().set("num.partitions", "3").start();
    produce(tools, &broker, 200_000, "none");
    let report = tools.client(CONSUMER, &broker).args(["--topic", "load", "--num-records", "200000"]).succeed();
    let row: Vec<&str> = report.lines().nth(1).expect("a row of figures").split(", ").collect();
    assert_eq!(row[4], "200000", "{report}");
}

/// Checks that Kafka's own reader accepts every file of a partition with several segments.
pub(super) fn dump_log_segments(tools: &Tools) {
    let mut broker = Broker::builder().set("log.segment.bytes", "1048576").start();
    for codec in ["none", "lz4"] {
        produce(tools, &broker, 20_000, codec);
    }
    assert_eq!(broker.stop(Signal::TERM).code(), Some(0));
    let mut files: Vec<_> = fs::read_dir(broker.folder().join("load-0"))
        .expect("the folder of the partition")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.extension().is_some_and(|kind| ["log", "index", "timeindex", "snapshot"].iter().any(|&k| kind == k))
        })
        .collect();
    files.sort();
    assert!(files.iter().filter(|path| path.extension().is_some_and(|kind| kind == "log")).count() >= 2, "{files:?}");
    let mut records = 0;
    for file in &files {
        let dumped = tools.tool(DUMP_LOG_SEGMENTS).arg("--deep-iteration").arg("--files").arg(file).succeed();
        for word in ["isvalid: false", "Mismatches", "Found", "corrupt", "Exception"] {
            assert!(!dumped.contains(word), "{}: {dumped}", file.display());
        }
        records += dumped.lines().filter(|line| line.starts_with("| offset: ")).count();
    }
    assert_eq!(records, 40_000);
}
