//! Debian's kcat on librdkafka 2.0.2, the oldest client in the field.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use millstream_tests::{Broker, Tool, millstream, wait_until};
use rustix::process::{Pid, Signal, kill_process};

const VARIABLE: &str = "MILLSTREAM_KCAT";
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = ["none", "gzip", "snappy", "lz4", "zstd"]
        .into_iter()
        .map(|codec| crate::trial(&format!("kcat::round_trip_{codec}"), VARIABLE, move |kcat| round_trip(kcat, codec)))
        .collect();
    trials.push(crate::trial("kcat::metadata", VARIABLE, metadata));
    trials.push(crate::trial("kcat::time_lookup", VARIABLE, time_lookup));
    trials.push(crate::trial("kcat::data_survives_a_restart", VARIABLE, data_survives_a_restart));
    trials.push(crate::trial("kcat::group_rebalances", VARIABLE, group_rebalances));
    trials.push(crate::trial("kcat::refusals", VARIABLE, refusals));
    trials
}

fn kcat(program: &str, broker: &Broker) -> Tool {
    Tool::new(program).args(["-q", "-b", &broker.bootstrap()])
}

/// Sends keys, values and headers with a codec and reads them back. The log holds the codec.
fn round_trip(program: &str, codec: &str) {
    let broker = Broker::start();
    let lines: Vec<String> = (0..500).map(|i| format!("key-{}:value {i} {}", i % 13, "x".repeat(i % 97))).collect();
    kcat(program, &broker)
        .args([
            "-P",
            "-t",
            "lines",
            "-K:",
            "-z",
            codec,
            "-X",
            "linger.ms=500",
            "-H",
            "source=kcat",
            "-H",
            "source=again",
            "-H",
            "empty=",
        ])
        .input(lines.join("\n"))
        .succeed();
    let read = kcat(program, &broker).args(["-C", "-t", "lines", "-e", "-f", "%o %h %k:%s\n"]).succeed();
    let wanted: Vec<String> =
        lines.iter().enumerate().map(|(i, line)| format!("{i} source=kcat,source=again,empty= {line}")).collect();
    assert_eq!(read.lines().collect::<Vec<_>>(), wanted);

    // kcat lingers and so sends one batch. It is on disk as the client compressed it: the codec is in the low bits of
    // the attributes.
    let log = std::fs::read(broker.folder().join("lines-0/00000000000000000000.log")).expect("the first segment");
    let number = ["none", "gzip", "snappy", "lz4", "zstd"].iter().position(|&name| name == codec).unwrap();
    assert_eq!(usize::from(log[22] & 7), number, "attributes of the first batch");
}

fn metadata(program: &str) {
    let broker = Broker::builder().set("num.partitions", "3").start();
    kcat(program, &broker).args(["-P", "-t", "made-by-producing"]).input("one\n").succeed();
    let listed = kcat(program, &broker).arg("-L").succeed();
    assert!(listed.contains("topic \"made-by-producing\" with 3 partitions"), "{listed}");
    assert!(listed.contains(&format!("at {}", broker.bootstrap())), "{listed}");
}

/// Looks up the first offset at or after a time with `-o s@MILLISECONDS`.
fn time_lookup(program: &str) {
    let broker = Broker::start();
    kcat(program, &broker).args(["-P", "-t", "times"]).input("early one\nearly two\n").succeed();
    let stamps = kcat(program, &broker).args(["-C", "-t", "times", "-e", "-f", "%T\n"]).succeed();
    let last: i64 = stamps.lines().last().and_then(|stamp| stamp.parse().ok()).expect("a time stamp");
    wait_until("the clock to move on", PATIENCE, || (now_ms() > last + 1).then_some(()));
    let between = last + 1;
    kcat(program, &broker).args(["-P", "-t", "times"]).input("late one\nlate two\n").succeed();
    let start = format!("s@{between}");
    let read = kcat(program, &broker).args(["-C", "-t", "times", "-p", "0", "-o", &start, "-e"]).succeed();
    assert_eq!(read, "late one\nlate two\n");
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(now.as_millis()).expect("the year is below 292 million")
}

fn data_survives_a_restart(program: &str) {
    let mut broker = Broker::start();
    let mut wanted = String::new();
    for round in 0..3 {
        let line = format!("round {round}\n");
        kcat(program, &broker).args(["-P", "-t", "kept", "-X", "acks=all"]).input(line.as_str()).succeed();
        wanted.push_str(&line);
        if round == 0 {
            assert_eq!(broker.stop(Signal::TERM).code(), Some(0));
        } else {
            broker.kill();
        }
        broker.restart();
        let read = kcat(program, &broker).args(["-C", "-t", "kept", "-e"]).succeed();
        assert_eq!(read, wanted, "after round {round}");
    }
}

/// A member of a group: kcat's balanced consumer, and what it prints line by line.
struct Member {
    child: Child,
    lines: Receiver<String>,
    assignments: Receiver<usize>,
}

impl Member {
    fn join(program: &str, broker: &Broker) -> Self {
        let mut child = Tool::new(program)
            .args(["-b", &broker.bootstrap(), "-u", "-X", "auto.offset.reset=earliest"])
            .args(["-X", "heartbeat.interval.ms=300", "-G", "readers", "shared"])
            .spawn();
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let (line_sender, lines) = mpsc::channel();
        let (assignment_sender, assignments) = mpsc::channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| drop(line_sender.send(line))));
        // `% Group readers rebalanced (memberid ...): assigned: shared [0], shared [1]`
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok).filter(|line| line.contains("assigned: ")) {
                let (_, assigned) = line.split_once("assigned: ").expect("the filter saw it");
                let _ = assignment_sender.send(assigned.matches("shared [").count());
            }
        });
        Self { child, lines, assignments }
    }

    fn wait_for_partitions(&self, wanted: usize) {
        wait_until(&format!("an assignment of {wanted} partitions"), PATIENCE, || {
            self.assignments.try_iter().find(|&count| count == wanted)
        });
    }

    fn leave(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).ok();
        self.child.wait().ok();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn group_rebalances(program: &str) {
    let broker = Broker::builder().set("num.partitions", "4").set("group.initial.rebalance.delay.ms", "0").start();
    let produce = |word: &str| {
        for partition in 0..4 {
            let lines: String = (0..25).map(|i| format!("{word}-{partition}-{i}\n")).collect();
            kcat(program, &broker).args(["-P", "-t", "shared", "-p", &partition.to_string()]).input(lines).succeed();
        }
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
    let first = Member::join(program, &broker);
    first.wait_for_partitions(4);
    read(&[&first], 100);
    let mut second = Member::join(program, &broker);
    second.wait_for_partitions(2);
    first.wait_for_partitions(2);
    produce("shared");
    read(&[&first, &second], 200);
    second.leave();
    first.wait_for_partitions(4);
    produce("again");
    read(&[&first, &second], 300);
}

/// Checks that kcat does not retry records that a filter rejects, and reads past skipped ones.
fn refusals(program: &str) {
    let broker = Broker::start();
    let create = |options: &[&str]| {
        let options = options.iter().flat_map(|option| ["-c", *option]);
        Tool::new(millstream()).args(["topic", "create", "orders", "-b", &broker.bootstrap()]).args(options).succeed();
    };
    create(&[r#"stage.admit=json-compare{"path":"/n","op":">=","value":0}"#]);
    let produce =
        |lines: &str| kcat(program, &broker).args(["-P", "-t", "orders", "-X", "linger.ms=1000"]).input(lines);
    let refused = Tool::new(program)
        .args(["-b", &broker.bootstrap(), "-P", "-t", "orders", "-X", "linger.ms=1000"])
        .input("{\"n\":1}\nno json\n")
        .run();
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert!(refused.stderr.contains("failed to validate record"), "{}", refused.stderr);
    produce("{\"n\":1}\n").succeed();
    Tool::new(millstream())
        .args(["topic", "alter", "orders", "-b", &broker.bootstrap(), "-c", "stage.admit.failure.policy=skip"])
        .succeed();
    produce("no json\nnor this\n").succeed();
    produce("{\"n\":2}\nno json\n{\"n\":3}\n").succeed();
    let read = kcat(program, &broker).args(["-C", "-t", "orders", "-e", "-f", "%o %s\n"]).succeed();
    assert_eq!(read, "0 {\"n\":1}\n3 {\"n\":2}\n5 {\"n\":3}\n");
}
