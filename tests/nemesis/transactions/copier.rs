//! Programs that read a partition, and write what they read and their offset in one transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::attempt;
use super::producer::{Over, Protocol, TransactionalProducer};
use super::reader::{committed, fetch};

/// The records of one transaction.
const RECORDS_MAX: usize = 6;

/// What the copiers have done.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) committed: AtomicUsize,
    pub(super) aborted: AtomicUsize,
    pub(super) over: AtomicUsize,
    pub(super) held: AtomicUsize,
}

/// What a copier reads and writes.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) bootstrap: String,
    pub(super) source: &'static str,
    pub(super) target: &'static str,
    pub(super) partition: i32,
    pub(super) protocol: Protocol,
    /// How long a request is held before it is delivered.
    pub(super) hold: Duration,
}

impl Task {
    /// Returns the group, and the transactional id.
    pub(super) fn name(&self) -> String {
        format!("copier-{}", self.partition)
    }
}

/// Copiers that run until they are stopped. Each sometimes gets a second instance, and the first becomes a zombie.
pub(super) struct Copiers {
    stop: Arc<AtomicBool>,
    running: JoinSet<()>,
    pub(super) counts: Arc<Counts>,
}

impl Copiers {
    pub(super) fn start(tasks: &[Task]) -> Self {
        let (stop, counts) = (Arc::<AtomicBool>::default(), Arc::<Counts>::default());
        let mut running = JoinSet::new();
        for task in tasks {
            running.spawn(supervise(task.clone(), Arc::clone(&stop), Arc::clone(&counts)));
        }
        Self { stop, running, counts }
    }

    /// Stops the copiers in the middle of their work.
    pub(super) async fn stop(self) -> Arc<Counts> {
        self.stop.store(true, Ordering::Relaxed);
        self.running.join_all().await;
        self.counts
    }
}

/// Starts the instances of a copier.
async fn supervise(task: Task, stop: Arc<AtomicBool>, counts: Arc<Counts>) {
    let mut instances = JoinSet::new();
    while !stop.load(Ordering::Relaxed) {
        instances.spawn(copy(task.clone(), Arc::clone(&stop), Arc::clone(&counts)));
        // The next instance starts when none is left, or beside the last one.
        let beside = Instant::now() + Duration::from_millis(fastrand::u64(1_500..5_000));
        while !instances.is_empty() && timeout_at(beside, instances.join_next()).await.is_ok() {}
    }
    instances.join_all().await;
}

/// Runs one instance, until it is fenced or stopped.
async fn copy(task: Task, stop: Arc<AtomicBool>, counts: Arc<Counts>) {
    let mut producer = TransactionalProducer::new(&task.bootstrap, &task.name(), task.protocol, task.hold);
    if let Err(Over(error)) = run(&task, &mut producer, &stop, &counts).await {
        println!("an instance of {} ends: {error}", task.name());
        counts.over.fetch_add(1, Ordering::Relaxed);
    }
    counts.held.fetch_add(producer.held, Ordering::Relaxed);
}

async fn run(
    task: &Task,
    producer: &mut TransactionalProducer,
    stop: &AtomicBool,
    counts: &Counts,
) -> Result<(), Over> {
    let Task { source, target, partition, .. } = *task;
    let group = task.name();
    producer.init().await?;
    let mut position = committed(&mut producer.nodes, &group, source, partition).await;
    while !stop.load(Ordering::Relaxed) {
        let fetched = fetch(&mut producer.nodes, source, partition, position).await;
        let mut records = fetched.map(|(records, _)| records).unwrap_or_default();
        records.truncate(fastrand::usize(1..=RECORDS_MAX));
        let Some((last, _)) = records.last().cloned() else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        let commits = fastrand::u32(0..10) > 0;
        let attempt = attempt::name(commits);
        // Both partitions of the target get a part.
        for half in 0..2 {
            let values = records
                .iter()
                .filter(|(offset, _)| offset % 2 == half)
                .map(|(_, value)| attempt::copy(value, &attempt));
            let values: Vec<String> = values.collect();
            if !values.is_empty() {
                let index = i32::try_from(half).expect("a partition");
                producer.produce(target, index, &values).await?;
            }
        }
        producer.commit_offset(&group, source, partition, last + 1).await?;
        producer.end(commits).await?;
        if commits {
            position = last + 1;
            counts.committed.fetch_add(1, Ordering::Relaxed);
        } else {
            counts.aborted.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}
