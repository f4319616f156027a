//! ConsoleProducer and ConsoleConsumer.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use millstream_tests::{Broker, wait_until};
use rustix::process::Signal;

use super::{DUMP_LOG_SEGMENTS, Tools};

pub(crate) const PRODUCER: &str = "org.apache.kafka.tools.ConsoleProducer";
pub(crate) const CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";
pub(crate) const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
const PATIENCE: Duration = Duration::from_secs(90);

/// Sends keys, values and headers with all five codecs. A group reads them, `--describe` shows its offsets, and Kafka's
/// own reader decodes the records.
pub(super) fn round_trip(tools: &Tools) {
    let mut broker = Broker::start();
    let mut wanted = Vec::new();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let records: Vec<String> =
            (0..50).map(|i| format!("codec:{codec},n:{i}\tkey-{i}\tvalue {i} {}", "ab".repeat(i))).collect();
        tools
            .client(PRODUCER, &broker)
            .args(["--topic", "console", "--compression-codec", codec])
            .args(["--reader-property", "parse.headers=true", "--reader-property", "parse.key=true"])
            .input(records.join("\n"))
            .succeed();
        wanted.extend(records);
    }
    let read = tools
        .client(CONSUMER, &broker)
        .args(["--topic", "console", "--group", "readers", "--from-beginning", "--max-messages", "250"])
        .args(["--timeout-ms", "60000", "--formatter-property", "print.key=true"])
        .args(["--formatter-property", "print.headers=true"])
        .succeed();
    assert_eq!(read.lines().collect::<Vec<_>>(), wanted);

    let described = tools.client(GROUPS, &broker).args(["--describe", "--group", "readers"]).succeed();
    let row = described.lines().find(|line| line.starts_with("readers")).expect("a row of the group");
    let columns: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(columns[..6], ["readers", "console", "0", "250", "250", "0"], "{described}");

    assert_eq!(broker.stop(Signal::TERM).code(), Some(0));
    let logs: Vec<_> = fs::read_dir(broker.folder())
        .expect("the data folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("__consumer_offsets-")))
        .map(|path| path.join("00000000000000000000.log"))
        .filter(|log| fs::metadata(log).is_ok_and(|metadata| metadata.len() > 0))
        .collect();
    let [log] = &logs[..] else { panic!("a group's records lie in one partition: {logs:?}") };
    let dumped = tools.tool(DUMP_LOG_SEGMENTS).args(["--offsets-decoder", "--files"]).arg(log).succeed();
    for part in [
        r#"key: {"type":"2","data":{"group":"readers"}} payload: {"version":"3","data":{"protocolType":"consumer""#,
        r#""assignment":{"assignedPartitions":[{"topic":"console","partitions":[0]}]"#,
        r#"key: {"type":"1","data":{"group":"readers","topic":"console","partition":0}}"#,
        r#""data":{"offset":250,"#,
    ] {
        assert!(dumped.contains(part), "no {part} in {dumped}");
    }
    assert!(!dumped.contains("isvalid: false"), "{dumped}");
}

/// A consumer in the group `readers`, and the lines that it prints.
pub(super) struct Member {
    child: Child,
    pub(super) lines: Receiver<String>,
}

impl Member {
    pub(super) fn join(tools: &Tools, bootstrap: &str, topic: &str) -> Self {
        let mut child = tools
            .client_of(CONSUMER, bootstrap)
            .args(["--topic", topic, "--group", "readers", "--from-beginning"])
            .args(["--command-property", "heartbeat.interval.ms=300"])
            .spawn();
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        Self { child, lines }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Lets two members share four partitions once the second has joined, as the group's description shows. Together they
/// read every record once.
pub(super) fn group_rebalances(tools: &Tools) {
    let broker = Broker::builder().set("num.partitions", "4").set("group.initial.rebalance.delay.ms", "0").start();
    let produce = |word: &str| {
        let lines: Vec<String> = (0..100).map(|i| format!("key-{i}\t{word}-{i}")).collect();
        tools
            .client(PRODUCER, &broker)
            .args(["--topic", "shared", "--reader-property", "parse.key=true"])
            .input(lines.join("\n"))
            .succeed();
    };
    let owners = || {
        let described = tools.client(GROUPS, &broker).args(["--describe", "--group", "readers"]).run().stdout;
        let members: Vec<String> = described
            .lines()
            .filter(|line| line.starts_with("readers"))
            .filter_map(|line| line.split_whitespace().nth(6).filter(|&id| id != "-").map(str::to_owned))
            .collect();
        (members.len(), members.into_iter().collect::<BTreeSet<_>>().len())
    };
    let mut seen = BTreeSet::new();
    let mut read = |members: &[&Member], total: usize| {
        wait_until(&format!("{total} records"), PATIENCE, || {
            for line in members.iter().flat_map(|member| member.lines.try_iter()) {
                assert!(seen.insert(line.clone()), "{line} came twice");
            }
            (seen.len() == total).then_some(())
        });
    };
    produce("alone");
    let first = Member::join(tools, &broker.bootstrap(), "shared");
    read(&[&first], 100);
    let second = Member::join(tools, &broker.bootstrap(), "shared");
    wait_until("two owners of four partitions", PATIENCE, || (owners() == (4, 2)).then_some(()));
    produce("shared");
    read(&[&first, &second], 200);
}
