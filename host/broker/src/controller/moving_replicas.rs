//! Replicas of this broker that move to another of its data folders (KIP-113), one after the other.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use millstream_partition::{CopyStep, FutureLog, MoveError, Partition};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::Controller;
use crate::apply;
use crate::blocking::blocking;
use crate::log_dirs::LogDir;

/// The pause before a step that was in the way of another change.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// A topic and a partition of it.
type Key = (Uuid, i32);

/// The moves that were requested.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    queue: Mutex<BTreeMap<Key, Arc<Move>>>,
    added: Notify,
}

/// A move of one replica.
#[derive(Debug)]
pub(crate) struct Move {
    /// The folder that it moves to.
    pub(crate) target: Arc<LogDir>,
    end: AtomicI64,
    size: AtomicU64,
}

impl Move {
    /// Returns the end of the copy, and its size in bytes.
    pub(crate) fn progress(&self) -> (i64, u64) {
        (self.end.load(Ordering::Acquire), self.size.load(Ordering::Acquire))
    }
}

impl Moves {
    /// Requests a move, in place of one that was requested before.
    pub(crate) fn add(&self, topic: Uuid, partition: i32, target: &Arc<LogDir>) {
        let mut queue = self.queue.lock();
        if queue.get(&(topic, partition)).is_none_or(|one| one.target.path() != target.path()) {
            let (end, size) = (AtomicI64::new(0), AtomicU64::new(0));
            queue.insert((topic, partition), Arc::new(Move { target: Arc::clone(target), end, size }));
            self.added.notify_one();
        }
    }

    /// Cancels a move.
    pub(crate) fn cancel(&self, topic: Uuid, partition: i32) {
        self.queue.lock().remove(&(topic, partition));
    }

    /// Returns the moves to a folder.
    pub(crate) fn to(&self, folder: &Path) -> Vec<(Key, Arc<Move>)> {
        let queue = self.queue.lock();
        let moves = queue.iter().filter(|(_, one)| **one.target.path() == *folder);
        moves.map(|(key, one)| (*key, Arc::clone(one))).collect()
    }

    fn first(&self) -> Option<(Key, Arc<Move>)> {
        self.queue.lock().first_key_value().map(|(key, one)| (*key, Arc::clone(one)))
    }

    fn is_wanted(&self, key: Key, one: &Arc<Move>) -> bool {
        self.queue.lock().get(&key).is_some_and(|wanted| Arc::ptr_eq(wanted, one))
    }

    /// Removes a move that has ended.
    fn ended(&self, key: Key, one: &Arc<Move>) {
        let mut queue = self.queue.lock();
        if queue.get(&key).is_some_and(|wanted| Arc::ptr_eq(wanted, one)) {
            queue.remove(&key);
        }
    }
}

impl Controller {
    /// Returns the replicas that move to another data folder.
    pub(crate) fn moves(&self) -> &Moves {
        &self.moves
    }

    /// Moves replicas to other data folders as requested, until `stop` says so.
    pub(crate) async fn move_replicas(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let work = async {
            loop {
                let Some((key, one)) = self.moves.first() else {
                    self.moves.added.notified().await;
                    continue;
                };
                self.move_replica(key, &one).await;
                self.moves.ended(key, &one);
            }
        };
        tokio::select! {
            () = work => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        // A copy that runs on another thread ends with its next step.
        self.moves.queue.lock().clear();
    }

    async fn move_replica(self: &Arc<Self>, key: Key, one: &Arc<Move>) {
        let Some(partition) = self.replica(key) else { return };
        let (topic, index) = (partition.topic().to_owned(), partition.index());
        let target = one.target.path().display().to_string();
        let mut copy = None;
        loop {
            let (controller, copied, from) = (Arc::clone(self), Arc::clone(one), Arc::clone(&partition));
            let begun = copy.take();
            let caught_up = blocking(move || controller.copy_replica(key, &copied, &from, begun)).await;
            let ended = match caught_up {
                Ok(Ok(Some(future))) => self.finish_move(key, one, &partition, future).await,
                Ok(Ok(None)) => return tracing::info!(topic, partition = index, "the move to {target} is cancelled"),
                Ok(Err(error)) => Err(error),
                Err(error) => Err(MoveError::Target(error.to_string())),
            };
            match ended {
                Ok(None) => return tracing::info!(topic, partition = index, "the replica has moved to {target}"),
                Ok(busy) => {
                    copy = busy;
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                Err(MoveError::Outdated) => tokio::time::sleep(RETRY_AFTER).await,
                Err(error) => {
                    one.target.suspect();
                    return tracing::error!(topic, partition = index, "the replica cannot move to {target}: {error}");
                }
            }
        }
    }

    /// Returns the replica of this broker, if its log is open.
    fn replica(&self, (topic, index): Key) -> Option<Arc<Partition>> {
        let topics = self.node.topics.load();
        topics.by_id(topic)?.partition(index).filter(|partition| partition.is_online()).cloned()
    }

    /// Copies a log until the copy has caught up. Returns `None` if the move is not wanted any more.
    fn copy_replica(
        &self,
        key: Key,
        one: &Arc<Move>,
        partition: &Partition,
        begun: Option<FutureLog>,
    ) -> Result<Option<FutureLog>, MoveError> {
        let mut future = match begun {
            Some(future) => future,
            None => FutureLog::begin(partition, key.0, one.target.path())?,
        };
        loop {
            let step = if self.moves.is_wanted(key, one) { future.copy(partition).map(Some) } else { Ok(None) };
            let (end, size) = future.progress();
            one.end.store(end, Ordering::Release);
            one.size.store(size, Ordering::Release);
            match step {
                Ok(Some(CopyStep::Copied)) => {}
                Ok(Some(CopyStep::CaughtUp)) => return Ok(Some(future)),
                Ok(None) => {
                    future.discard();
                    return Ok(None);
                }
                Ok(Some(CopyStep::Outdated)) => {
                    future.discard();
                    return Err(MoveError::Outdated);
                }
                Err(error) => {
                    future.discard();
                    return Err(error);
                }
            }
        }
    }

    /// Lets a copy take the place of its log. Returns the copy if another change of the partition is under way.
    async fn finish_move(
        self: &Arc<Self>,
        key: Key,
        one: &Arc<Move>,
        partition: &Arc<Partition>,
        mut future: FutureLog,
    ) -> Result<Option<FutureLog>, MoveError> {
        let changes = Arc::clone(&self.changes).lock_owned().await;
        let (controller, one, partition) = (Arc::clone(self), Arc::clone(one), Arc::clone(partition));
        let finished = blocking(move || {
            let _changes = changes;
            let applied = controller.applied.lock().clone();
            let image = applied.unwrap_or_else(|| controller.metadata.image());
            let is_current = controller.replica(key).is_some_and(|now| Arc::ptr_eq(&now, &partition));
            if !is_current || !one.target.is_online() {
                future.discard();
                return Err(MoveError::Target("the replica or the folder is gone".to_owned()));
            }
            match apply::take_over(&controller.node, &image, key.0, &partition, &one.target, &mut future) {
                Ok(taken) => {
                    apply::finish_move(&controller.node, &partition, taken, future);
                    Ok(None)
                }
                Err(MoveError::Busy) => Ok(Some(future)),
                Err(error) => {
                    future.discard();
                    Err(error)
                }
            }
        });
        finished.await.unwrap_or_else(|error| Err(MoveError::Target(error.to_string())))
    }
}
