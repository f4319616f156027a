//! ConsoleProducer and ConsoleConsumer.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use millstream_tests::{Broker, wait_until};

use super::Tools;

pub(crate) const PRODUCER: &str = "org.apache.kafka.tools.ConsoleProducer";
pub(crate) const CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";
pub(crate) const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
const PATIENCE: Duration = Duration::from_secs(90);

/// Keys, values and headers with all five codecs, read by a group whose offsets `--describe` shows.
pub(super) fn round_trip(tools: &Tools) {
    let broker = Broker::start();
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
}

struct Member {
    child: Child,
    lines: Receiver<String>,
}

impl Member {
    fn join(tools: &Tools, broker: &Broker) -> Self {
        let mut child = tools
            .client(CONSUMER, broker)
            .args(["--topic", "shared", "--group", "readers", "--from-beginning"])
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

/// Two members share four partitions once the second has joined, as the group's description says, and
/// read every record once between them.
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
    let first = Member::join(tools, &broker);
    read(&[&first], 100);
    let second = Member::join(tools, &broker);
    wait_until("two owners of four partitions", PATIENCE, || (owners() == (4, 2)).then_some(()));
    produce("shared");
    read(&[&first, &second], 200);
}
