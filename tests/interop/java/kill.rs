//! kill -9 in the middle of ProducerPerformance with acks=all and enable.idempotence=true.

use std::fs;
use std::path::Path;
use std::time::Duration;

use millstream_tests::{Broker, wait_until};

use super::Tools;

const RECORDS: usize = 120_000;
const KILLS: u64 = 3;
const PATIENCE: Duration = Duration::from_secs(90);

pub(super) fn nothing_lost_and_nothing_twice(tools: &Tools) {
    run(tools, &["compression.type=lz4", "linger.ms=5"], 10_000);
}

pub(super) fn without_compression_and_small_batches(tools: &Tools) {
    run(tools, &["batch.size=2000", "linger.ms=0"], 100_000);
}

/// Kills and restarts the broker while the producer sends 0, 1, 2 ... and retries. At the end every number must be
/// there exactly once. `step_bytes` is how much the log grows before each kill.
fn run(tools: &Tools, properties: &[&str], step_bytes: u64) {
    let mut broker = Broker::start();
    tools.create_topic(&broker, "numbers", 1);
    let mut command = tools
        .client("org.apache.kafka.tools.ProducerPerformance", &broker)
        .args(["--topic", "numbers", "--num-records", &RECORDS.to_string(), "--payload-monotonic"])
        .args(["--throughput", "15000", "--command-property", "acks=all"])
        .args(["--command-property", "enable.idempotence=true"])
        .args(["--command-property", "delivery.timeout.ms=120000"])
        .args(["--command-property", "reconnect.backoff.max.ms=200"]);
    for property in properties {
        command = command.args(["--command-property", property]);
    }
    let producer = std::thread::spawn(move || command.succeed());
    let folder = broker.folder().join("numbers-0");
    for _ in 0..KILLS {
        let target = bytes_in(&folder) + step_bytes;
        wait_until("the log to grow", PATIENCE, || (bytes_in(&folder) >= target).then_some(()));
        assert!(!producer.is_finished(), "the producer ended before the kill");
        broker.kill();
        broker.restart();
    }
    let report = producer.join().expect("the producer ends well");
    assert!(report.contains(&format!("{RECORDS} records sent")), "{report}");

    let read = tools
        .client("org.apache.kafka.tools.consumer.ConsoleConsumer", &broker)
        .args(["--topic", "numbers", "--from-beginning", "--timeout-ms", "10000"])
        .run();
    let mut times = vec![0_u32; RECORDS];
    for line in read.stdout.lines() {
        let number: usize = line.parse().unwrap_or_else(|_| panic!("not a number: {line}"));
        times[number] += 1;
    }
    let lost = times.iter().filter(|&&count| count == 0).count();
    let twice = times.iter().filter(|&&count| count > 1).count();
    assert_eq!((lost, twice), (0, 0), "of {RECORDS} records (lost, twice); the producer said:\n{report}");
}

/// Returns the bytes in the partition's segments.
fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("the folder of the partition").map_while(Result::ok);
    entries
        .filter(|entry| entry.path().extension().is_some_and(|kind| kind == "log"))
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}
