//! A reader of committed records while things go wrong.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::connection::Nodes;
use super::reader::{Isolation, end, fetch};
use super::{Copy, TARGETS, Target};

/// Reads the target until it is stopped.
pub(super) struct Watcher {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Seen>,
}

/// What a reader has seen of the target.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) copies: BTreeSet<Copy>,
    /// The longest wait at a place with more records behind it.
    pub(super) longest_wait: Wait,
}

/// A time in which a reader did not go on.
#[derive(Default)]
pub(super) struct Wait {
    pub(super) time: Duration,
    pub(super) place: String,
}

impl Watcher {
    pub(super) fn start(bootstrap: &str, target: Target) -> Self {
        let (stop, nodes) = (Arc::<AtomicBool>::default(), Nodes::new(bootstrap));
        let task = tokio::spawn(watch(nodes, target, Arc::clone(&stop)));
        Self { stop, task }
    }

    pub(super) async fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the reader does not panic")
    }
}

async fn watch(mut nodes: Nodes, target: Target, stop: Arc<AtomicBool>) -> Seen {
    let mut seen = Seen::default();
    let places = target.topics().iter().flat_map(|topic| (0..TARGETS).map(move |index| (*topic, index)));
    let mut places: Vec<_> = places.map(|(topic, partition)| (topic, partition, 0, Instant::now())).collect();
    while !stop.load(Ordering::Relaxed) {
        for (topic, partition, offset, since) in &mut places {
            let (topic, partition) = (*topic, *partition);
            if since.elapsed() > seen.longest_wait.time {
                seen.longest_wait =
                    Wait { time: since.elapsed(), place: format!("offset {offset} of {topic}-{partition}") };
            }
            let mut next = *offset;
            if let Some((records, end)) = fetch(&mut nodes, topic, partition, *offset).await {
                let copies = records.into_iter().map(|(offset, value)| Copy { topic, partition, offset, value });
                seen.copies.extend(copies);
                next = end;
            }
            let last = end(&mut nodes, topic, partition, Isolation::Uncommitted).await;
            if next > *offset || last == Some(next) {
                (*offset, *since) = (next, Instant::now());
            }
        }
    }
    seen
}
