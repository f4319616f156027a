//! Groups that commit offsets, and a check that what was acknowledged does not go back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millstream_client::{CommittedOffset, Consumer, ConsumerConfig, Error, TopicPartition};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::checker::{Broken, Promise};

/// The number of groups. They commit in turns, so that a fault finds groups that do not commit right after it.
const GROUPS: usize = 8;

/// The time between two commits.
const PAUSE: Duration = Duration::from_millis(5);

/// A commit that takes longer may have met a new coordinator. Then all groups are read before they commit again.
const SLOW: Duration = Duration::from_millis(100);

/// The time for a coordinator to respond.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the groups have seen.
#[derive(Debug, Default)]
pub(crate) struct Committed {
    /// The number of acknowledged commits.
    pub(crate) acknowledged: usize,
    /// Offsets that are lower than an acknowledged one.
    pub(crate) broken: Vec<Broken>,
}

/// Groups without members that commit growing offsets until they are stopped.
pub(crate) struct Commits {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Committed>,
}

/// A group, and the last offset whose commit was acknowledged.
struct Group {
    name: String,
    consumer: Consumer,
    acknowledged: i64,
}

impl Commits {
    /// Starts to commit offsets of the first partition of a topic. The offsets need no records. Returns when each group
    /// has committed.
    pub(crate) async fn start(bootstrap: &str, topic: &str) -> Self {
        let (stop, partition) = (Arc::new(AtomicBool::new(false)), TopicPartition::new(topic, 0));
        let groups = (0..GROUPS).map(|number| Group::new(bootstrap, format!("committers-{number}")));
        let mut groups: Vec<Group> = groups.collect();
        let begun = Instant::now();
        for group in &mut groups {
            while !group.commit(&partition, 1).await {
                assert!(begun.elapsed() < PATIENCE, "{} cannot commit", group.name);
                sleep(Duration::from_millis(50)).await;
            }
        }
        let task = tokio::spawn(commit(groups, partition, Arc::clone(&stop)));
        Self { stop, task }
    }

    /// Stops the commits, reads all committed offsets, and returns what was seen.
    pub(crate) async fn stop(self) -> Committed {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the groups do not panic")
    }
}

impl Group {
    fn new(bootstrap: &str, name: String) -> Self {
        let mut config = ConsumerConfig::new(bootstrap);
        config.group_id = Some(name.as_str().into());
        let consumer = Consumer::builder(config).build().expect("a consumer");
        Self { name, consumer, acknowledged: 0 }
    }

    /// Commits an offset, and returns whether it was acknowledged. After an error it may be committed or not.
    async fn commit(&mut self, partition: &TopicPartition, offset: i64) -> bool {
        let offsets = [(partition.clone(), CommittedOffset::new(offset))].into();
        let is_acknowledged = self.consumer.commit_offsets(&offsets).await.is_ok();
        if is_acknowledged {
            self.acknowledged = offset;
        }
        is_acknowledged
    }

    /// Reads the committed offset; 0 without one. Returns a broken promise if it is older than an acknowledged one.
    async fn check(&self, partition: &TopicPartition) -> Option<Broken> {
        let begun = Instant::now();
        let committed = loop {
            match self.committed(partition).await {
                Ok(committed) => break committed,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "no committed offset of {}: {error}", self.name),
            }
            sleep(Duration::from_millis(50)).await;
        };
        let Self { name, acknowledged, .. } = self;
        let what = || format!("{name} has committed {acknowledged}, which was acknowledged, and {committed} is read");
        (committed < *acknowledged).then(|| Broken::new(Promise::OffsetKept, what()))
    }

    async fn committed(&self, partition: &TopicPartition) -> Result<i64, Error> {
        let committed = self.consumer.committed(std::slice::from_ref(partition)).await?;
        Ok(committed.get(partition).map_or(0, |committed| committed.offset))
    }
}

async fn commit(mut groups: Vec<Group>, partition: TopicPartition, stop: Arc<AtomicBool>) -> Committed {
    let mut seen = Committed::default();
    for offset in 2.. {
        for turn in 0..groups.len() {
            if stop.load(Ordering::Relaxed) {
                seen.broken.extend(check(&groups, &partition).await);
                return seen;
            }
            let begun = Instant::now();
            seen.acknowledged += usize::from(groups[turn].commit(&partition, offset).await);
            if begun.elapsed() > SLOW {
                seen.broken.extend(check(&groups, &partition).await);
            }
            sleep(PAUSE).await;
        }
    }
    seen
}

async fn check(groups: &[Group], partition: &TopicPartition) -> Vec<Broken> {
    let mut broken = Vec::new();
    for group in groups {
        broken.extend(group.check(partition).await);
    }
    broken
}
