//! Transactions under faults: copiers read a topic, and write it to another one with their offsets, exactly once.
//!
//! The check knows aborted and precommitted reads, torn transactions, a last stable offset that hangs, and offsets that
//! are not atomic with their records: what is visible in the target has to be what the committed offsets say, each
//! record once, and a reader never saw anything else. Where the target has a stage, that holds for its dead letters
//! too; only those of a batch that a fault has interrupted may be written more than once.
//!
//! `MILLSTREAM_NEMESIS_ROUNDS` makes the run longer, and `MILLSTREAM_NEMESIS_HOLD_MS` holds late requests for longer.

mod attempt;
mod comparison;
mod connection;
mod copier;
mod producer;
mod reader;
mod watcher;

use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;
use millstream_client::{NewTopic, Producer, ProducerConfig, ProducerRecord};
use millstream_tests::Cluster;
use tokio::time::{Instant, sleep};

use crate::checker::{Broken, Promise, assert_kept};
use crate::faults::{PATIENCE, admin, controller, create, wanted, whole};
use crate::random::{Fault, strike};
use crate::seeded_bugs::{assert_seen, with};
use comparison::{Compared, compare};
use connection::Nodes;
use copier::{Copiers, Task};
use producer::Protocol;
use reader::{Isolation, end};
use watcher::{Wait, Watcher};

const SOURCE: &str = "records";
const COPIES: &str = "copies";

/// The dead letters of the copies.
const LETTERS: &str = "letters";

/// What a record has to contain for a stage to keep it. About a third of them do.
const KEPT: &str = "3";

/// The partitions of the source, each with one copier.
const PARTITIONS: i32 = 3;

/// The partitions of the target.
const TARGETS: i32 = 2;

/// The records of the source, for each fault: more than the copiers read meanwhile.
const RECORDS: usize = 1_500;

/// The most batches whose dead letters are written again because of one fault. Leaders move at the fault and back
/// after it, and a copier has one batch under way.
const REPEATED_MAX: usize = 2 * PARTITIONS as usize;

/// The time for the last stable offset to reach the end: the timeout of a transaction, and one scan.
const STABLE_MAX: Duration = Duration::from_secs(30);

/// What copiers write to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// A topic that stores all records.
    Plain,
    /// A topic with a stage, and with dead letters for what it does not keep.
    Staged,
}

impl Target {
    /// Returns the topics that get copies.
    fn topics(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &[COPIES],
            Self::Staged => &[COPIES, LETTERS],
        }
    }

    /// Returns the topic that gets the copy of a value.
    fn of(self, value: &str) -> &'static str {
        if self == Self::Plain || value.contains(KEPT) { COPIES } else { LETTERS }
    }

    /// Creates the topics, those of dead letters first.
    async fn create(self, bootstrap: &str) {
        let admit = format!(r#"contains{{"text":"{KEPT}"}}"#);
        let stages = [
            ("stage.admit", &*admit),
            ("stage.admit.failure.policy", "dead-letter"),
            ("stage.dead.letter.topic", LETTERS),
        ];
        for name in self.topics().iter().rev() {
            let stages = stages.iter().filter(|_| self == Self::Staged && *name == COPIES);
            let configs = stages.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            let topic =
                NewTopic { name: (*name).to_owned(), partitions: Some(TARGETS), configs, ..NewTopic::default() };
            admin(bootstrap).create_topics(&[topic]).await.expect("enough nodes");
        }
    }
}

/// A record that readers of committed records see.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Copy {
    topic: &'static str,
    partition: i32,
    offset: i64,
    value: String,
}

/// Fills the source.
async fn fill(bootstrap: &str, records: usize) {
    let producer = Producer::builder(ProducerConfig::new(bootstrap)).build().expect("a producer");
    let mut sent = Vec::new();
    for number in 0..records {
        let (key, value) = (number.to_string(), format!("record {number}"));
        let record = ProducerRecord::new(SOURCE).key(key.as_bytes()).value(value.as_bytes());
        sent.push(producer.send(record).await.expect("room for a record"));
    }
    for delivery in sent {
        delivery.await.expect("a healthy cluster");
    }
    producer.close(Duration::from_secs(10)).await.expect("everything is settled");
}

/// Waits until readers of committed records get to the end of the target. Returns where they do not.
async fn unstable(bootstrap: &str, target: Target) -> Option<Broken> {
    let (mut nodes, begun) = (Nodes::new(bootstrap), Instant::now());
    for (topic, partition) in target.topics().iter().flat_map(|topic| (0..TARGETS).map(move |index| (*topic, index))) {
        loop {
            let committed = end(&mut nodes, topic, partition, Isolation::Committed).await;
            let all = end(&mut nodes, topic, partition, Isolation::Uncommitted).await;
            if committed.is_some() && committed == all {
                break;
            }
            if begun.elapsed() > STABLE_MAX {
                let what = format!("the last stable offset of {topic}-{partition} hangs at {committed:?} of {all:?}");
                return Some(Broken::new(Promise::Stable, what));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
    println!("no open transaction after {:?}", begun.elapsed());
    None
}

/// Runs copiers while nodes fail, and returns the promises that are broken.
async fn run(bug: Option<&str>, target: Target, rounds: usize) -> Vec<Broken> {
    let seed = wanted("MILLSTREAM_NEMESIS_SEED").map_or_else(|| fastrand::u64(1..1_000_000), |seed| seed as u64);
    let hold = Duration::from_millis(wanted("MILLSTREAM_NEMESIS_HOLD_MS").unwrap_or(4_000) as u64);
    println!("MILLSTREAM_NEMESIS_SEED={seed} MILLSTREAM_NEMESIS_ROUNDS={rounds}");
    let mut random = Rng::with_seed(seed);
    let settings = [
        ("broker.session.timeout.ms", "1500"),
        ("broker.heartbeat.interval.ms", "300"),
        ("transaction.state.log.num.partitions", "3"),
        ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "1000"),
    ];
    // Without a bug it is the ordinary program.
    let more = |_: usize, node| if bug.is_some() { with(bug, node) } else { node };
    let mut cluster = Cluster::start_with(3, &settings, more);
    let bootstrap = cluster.bootstrap();
    create(&bootstrap, PARTITIONS).await;
    target.create(&bootstrap).await;
    fill(&bootstrap, RECORDS * rounds.max(4)).await;
    let tasks: Vec<Task> = (0..PARTITIONS)
        .map(|partition| Task {
            bootstrap: bootstrap.clone(),
            source: SOURCE,
            target: COPIES,
            partition,
            protocol: if partition == 0 { Protocol::Older } else { Protocol::Newer },
            hold,
        })
        .collect();
    let (copiers, watcher) = (Copiers::start(&tasks), Watcher::start(&bootstrap, target));
    let begun = Instant::now();
    while copiers.counts.committed.load(Ordering::Relaxed) < 10 {
        assert!(begun.elapsed() < PATIENCE, "no transaction is committed: {:?}", copiers.counts);
        sleep(Duration::from_millis(20)).await;
    }
    let faults = [Fault::Kill, Fault::Kill, Fault::Kill, Fault::Stop, Fault::Pause, Fault::KillTwo];
    for _ in 0..rounds {
        sleep(Duration::from_millis(500 + random.u64(..1_500))).await;
        let victim = if random.bool() { controller(&bootstrap).await } else { random.i32(1..=3) };
        let fault = *random.choice(&faults).expect("a fault");
        strike(&mut cluster, fault, victim, &mut random).await;
        whole(&bootstrap).await;
        println!("{fault:?} of node {victim}");
    }
    // Without faults, instances have to fence one another a few times.
    sleep(Duration::from_secs(if rounds == 0 { 8 } else { 1 })).await;
    let counts = copiers.stop().await;
    // Held requests come now.
    sleep(hold).await;
    if let Some(broken) = unstable(&bootstrap, target).await {
        return vec![broken];
    }
    let seen = watcher.stop().await;
    let compared = compare(&bootstrap, target, &tasks, &seen.copies).await;
    let Compared { copied, rejected, repeated, mut broken } = compared;
    let Wait { time, place } = &seen.longest_wait;
    println!("{copied} records copied, {rejected} of them as dead letters, {} batches twice", repeated.len());
    println!("{counts:?}; a reader waited {time:?} at most");
    if repeated.len() > rounds * REPEATED_MAX {
        let what = format!("the dead letters of {} batches are written more than once: {repeated:?}", repeated.len());
        broken.push(Broken::new(Promise::Once, what));
    }
    if *time > STABLE_MAX {
        broken.push(Broken::new(Promise::Stable, format!("a reader of committed records waited {time:?} at {place}")));
    }
    let [committed, aborted, over, held] =
        [&counts.committed, &counts.aborted, &counts.over, &counts.held].map(|count| count.load(Ordering::Relaxed));
    let is_enough = committed > 40 && aborted > 2 && over > 2 && held > 2 && (target == Target::Plain || rejected > 40);
    assert!(is_enough || bug.is_some(), "too little happened: {counts:?}");
    broken
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_atomic_under_random_faults() {
    assert_kept(&run(None, Target::Plain, wanted("MILLSTREAM_NEMESIS_ROUNDS").unwrap_or(4)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_part_of_their_transactions_under_random_faults() {
    assert_kept(&run(None, Target::Staged, wanted("MILLSTREAM_NEMESIS_ROUNDS").unwrap_or(4)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_written_once_without_faults() {
    assert_kept(&run(None, Target::Staged, 0).await);
}

/// The builds with a bug. Their names keep them out of long runs.
mod seeded_bugs {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stable_offset_that_is_the_high_watermark_is_seen() {
        let seen = async |bug: Option<&str>| Some(run(bug, Target::Plain, 0).await);
        assert_seen("stable-is-high-watermark", Promise::CommittedOnly, seen).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_zombie_that_is_not_fenced_is_seen() {
        let seen = async |bug: Option<&str>| Some(run(bug, Target::Plain, 0).await);
        assert_seen("unfenced-zombie", Promise::Atomic, seen).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn offsets_that_count_by_themselves_are_seen() {
        let seen = async |bug: Option<&str>| Some(run(bug, Target::Plain, 0).await);
        assert_seen("offsets-by-themselves", Promise::Atomic, seen).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn dead_letters_that_count_by_themselves_are_seen() {
        let seen = async |bug: Option<&str>| Some(run(bug, Target::Staged, 0).await);
        assert_seen("letters-by-themselves", Promise::CommittedOnly, seen).await;
    }
}
