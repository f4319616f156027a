//! Transactions under faults: copiers read a topic, and write it to another one with their offsets, exactly once.
//!
//! The check knows aborted and precommitted reads, torn transactions, a last stable offset that hangs, and offsets that
//! are not atomic with their records: what is visible in the target has to be what the committed offsets say, each
//! record once, and a reader never saw anything else.
//!
//! `MILLSTREAM_NEMESIS_ROUNDS` makes the run longer, and `MILLSTREAM_NEMESIS_HOLD_MS` holds late requests for longer.

mod connection;
mod copier;
mod producer;
mod reader;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use millstream_client::{NewTopic, Producer, ProducerConfig, ProducerRecord};
use millstream_tests::Cluster;
use tokio::time::{Instant, sleep};

use crate::checker::{Broken, Promise, assert_kept};
use crate::faults::{PATIENCE, admin, controller, create, wanted, whole};
use crate::random::{Fault, strike};
use crate::seeded_bugs::{assert_seen, with};
use connection::Nodes;
use copier::{Copiers, Task};
use producer::Protocol;
use reader::{Isolation, committed, end, fetch, read_all};

const SOURCE: &str = "records";
const TARGET: &str = "copies";

/// The partitions of the source, each with one copier.
const PARTITIONS: i32 = 3;

/// The partitions of the target.
const TARGETS: i32 = 2;

/// The records of the source, for each fault: more than the copiers read meanwhile.
const RECORDS: usize = 1_500;

/// The time for the last stable offset to reach the end: the timeout of a transaction, and one scan.
const STABLE_MAX: Duration = Duration::from_secs(30);

/// A reader of the target while things go wrong.
struct Watcher {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Seen>,
}

/// What a reader has seen of the target.
#[derive(Default)]
struct Seen {
    records: BTreeSet<(i32, i64, String)>,
    /// The longest time for which it could not go on though there was more, and the place.
    longest_wait: (Duration, i32, i64),
}

impl Watcher {
    fn start(bootstrap: &str) -> Self {
        let (stop, mut nodes) = (Arc::<AtomicBool>::default(), Nodes::new(bootstrap));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut seen = Seen::default();
            let mut places = [(0, Instant::now()); TARGETS as usize];
            while !stopped.load(Ordering::Relaxed) {
                for (partition, (offset, since)) in (0..).zip(&mut places) {
                    seen.longest_wait = seen.longest_wait.max((since.elapsed(), partition, *offset));
                    let next = match fetch(&mut nodes, TARGET, partition, *offset).await {
                        Some((records, next)) => {
                            seen.records.extend(records.into_iter().map(|(at, value)| (partition, at, value)));
                            next
                        }
                        None => *offset,
                    };
                    let is_at_end = end(&mut nodes, TARGET, partition, Isolation::Uncommitted).await == Some(next);
                    if next > *offset || is_at_end {
                        (*offset, *since) = (next, Instant::now());
                    }
                }
            }
            seen
        });
        Self { stop, task }
    }

    async fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the reader does not panic")
    }
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

/// Compares the target with the source and the offsets of the copiers. Returns how many records were copied, and the
/// promises that are broken.
async fn compare(bootstrap: &str, tasks: &[Task], seen: &BTreeSet<(i32, i64, String)>) -> (usize, Vec<Broken>) {
    let (mut nodes, mut broken) = (Nodes::new(bootstrap), Vec::new());
    let mut found = BTreeMap::<String, usize>::new();
    let mut visible = BTreeSet::new();
    for partition in 0..TARGETS {
        for (offset, value) in read_all(&mut nodes, TARGET, partition).await {
            *found.entry(value.clone()).or_default() += 1;
            visible.insert((partition, offset, value));
        }
    }
    for unreal in seen.difference(&visible) {
        let what = format!("a reader of committed records has seen {unreal:?}, which is not committed");
        broken.push(Broken::new(Promise::CommittedOnly, what));
    }
    let mut copied = 0;
    for task in tasks {
        let offset = committed(&mut nodes, &task.name(), SOURCE, task.partition).await;
        for (at, value) in read_all(&mut nodes, SOURCE, task.partition).await {
            let (times, wanted) = (found.remove(&value).unwrap_or_default(), usize::from(at < offset));
            if times != wanted {
                let place = format!("offset {at} of partition {}", task.partition);
                let what = format!("{value:?} at {place} is copied {times} times, the committed offset is {offset}");
                broken.push(Broken::new(Promise::Atomic, what));
            }
            copied += wanted;
        }
    }
    assert!(found.is_empty(), "copies of nothing: {found:?}");
    (copied, broken)
}

/// Waits until readers of committed records get to the end of the target. Returns where they do not.
async fn unstable(bootstrap: &str) -> Option<Broken> {
    let (mut nodes, begun) = (Nodes::new(bootstrap), Instant::now());
    for partition in 0..TARGETS {
        loop {
            let committed = end(&mut nodes, TARGET, partition, Isolation::Committed).await;
            let all = end(&mut nodes, TARGET, partition, Isolation::Uncommitted).await;
            if committed.is_some() && committed == all {
                break;
            }
            if begun.elapsed() > STABLE_MAX {
                let what = format!("the last stable offset of {TARGET}-{partition} hangs at {committed:?} of {all:?}");
                return Some(Broken::new(Promise::Stable, what));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
    println!("no open transaction after {:?}", begun.elapsed());
    None
}

/// Runs copiers while nodes fail, and returns the promises that are broken.
async fn run(bug: Option<&str>, rounds: usize) -> Vec<Broken> {
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
    let target = NewTopic { name: TARGET.to_owned(), partitions: Some(TARGETS), ..NewTopic::default() };
    admin(&bootstrap).create_topics(&[target]).await.expect("enough nodes");
    fill(&bootstrap, RECORDS * rounds.max(4)).await;
    let tasks: Vec<Task> = (0..PARTITIONS)
        .map(|partition| Task {
            bootstrap: bootstrap.clone(),
            source: SOURCE,
            target: TARGET,
            partition,
            protocol: if partition == 0 { Protocol::Older } else { Protocol::Newer },
            hold,
        })
        .collect();
    let (copiers, watcher) = (Copiers::start(&tasks), Watcher::start(&bootstrap));
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
    if let Some(broken) = unstable(&bootstrap).await {
        return vec![broken];
    }
    let seen = watcher.stop().await;
    let (copied, mut broken) = compare(&bootstrap, &tasks, &seen.records).await;
    let (wait, partition, offset) = seen.longest_wait;
    println!("{copied} records copied: {counts:?}; a reader waited {wait:?} at most");
    if wait > STABLE_MAX {
        let what = format!("a reader of committed records waited {wait:?} at offset {offset} of {TARGET}-{partition}");
        broken.push(Broken::new(Promise::Stable, what));
    }
    let [committed, aborted, over, held] =
        [&counts.committed, &counts.aborted, &counts.over, &counts.held].map(|count| count.load(Ordering::Relaxed));
    let is_enough = committed > 40 && aborted > 2 && over > 2 && held > 2;
    assert!(is_enough || bug.is_some(), "too little happened: {counts:?}");
    broken
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_atomic_under_random_faults() {
    assert_kept(&run(None, wanted("MILLSTREAM_NEMESIS_ROUNDS").unwrap_or(4)).await);
}

/// The builds with a bug. Their names keep them out of long runs.
mod seeded_bugs {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stable_offset_that_is_the_high_watermark_is_seen() {
        let seen = async |bug: Option<&str>| Some(run(bug, 0).await);
        assert_seen("stable-is-high-watermark", Promise::CommittedOnly, seen).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_zombie_that_is_not_fenced_is_seen() {
        let seen = async |bug: Option<&str>| Some(run(bug, 0).await);
        assert_seen("unfenced-zombie", Promise::Atomic, seen).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn offsets_that_count_by_themselves_are_seen() {
        let seen = async |bug: Option<&str>| Some(run(bug, 0).await);
        assert_seen("offsets-by-themselves", Promise::Atomic, seen).await;
    }
}
