//! In a cluster: replicas of this broker whose disk fails.
//!
//! | Fault | What happens |
//! |---|---|
//! | the disk is full | the replica leaves the in-sync set until there is space |
//! | no file descriptor is left | it leaves the set until there are some again |
//! | damaged bytes, or a failed fsync | it leaves the set, its log is set aside, and it is copied again |
//! | the log cannot be opened, or its data folder has failed | it leaves the set until a restart |
//! | its data folder is not in `log.dirs` any more | it leaves the set, and is copied again in another folder |
//!
//! A replica that leads gives its leadership away. The last replica with every committed record stays what it is.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millstream_log::faults_noted;
use millstream_metadata::PartitionImage;
use millstream_metadata::controller::{LeaveInSync, Request};
use millstream_partition::{Partition, ReplicaFault};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use super::Controller;
use crate::apply::{self, Repair};
use crate::blocking::blocking;

/// The time for which a fault may be unknown to the controller.
const PERIOD: Duration = Duration::from_millis(100);

/// The time after which all replicas are looked at, for those whose log cannot be opened.
const SCAN_PERIOD: Duration = Duration::from_secs(1);

/// The pause before the controller is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The free space in bytes with which replicas go on after a full disk.
const SPACE_TO_GO_ON: u64 = 16 << 20;

/// The file descriptors that have to be free before replicas go on that lacked one.
const DESCRIPTORS_TO_GO_ON: usize = 16;

/// The pause before a damaged log is set aside again that could not be.
const COPY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// How often a replica is copied again by one process. A disk that damages each copy is not trusted for longer.
const COPIES_MAX: u32 = 3;

/// A replica with a fault.
struct Failing {
    topic_id: Uuid,
    partition: Arc<Partition>,
    fault: ReplicaFault,
}

/// What is known about replicas with faults.
#[derive(Default)]
struct History {
    /// When the controller is asked next, of those that have a fault now.
    asked_next: HashMap<(Uuid, i32), Instant>,
    copies: HashMap<(Uuid, i32), Copies>,
}

/// The copies that were made of a damaged replica.
#[derive(Default)]
struct Copies {
    made: u32,
    /// When the next one is tried, after one that could not be begun.
    next: Option<Instant>,
}

impl Controller {
    /// Looks after the replicas of this broker whose disk fails, until `stop` says so.
    pub(crate) async fn watch_replicas(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut tick = interval(PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut history = History::default();
        let (mut seen, mut looked) = (0, None::<Instant>);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            // With many partitions it would cost to look through all of them each time, and faults are rare.
            let noted = faults_noted();
            let is_due = looked.is_none_or(|at| at.elapsed() >= SCAN_PERIOD);
            if noted == seen && history.asked_next.is_empty() && !is_due {
                continue;
            }
            (seen, looked) = (noted, Some(Instant::now()));
            let failing = self.failing_replicas();
            history.asked_next.retain(|key, _| failing.iter().any(|one| one.key() == *key));
            for one in failing {
                self.look_after(&one, &mut history).await;
            }
        }
    }

    fn failing_replicas(&self) -> Vec<Failing> {
        let topics = self.node.topics.load();
        let replicas = topics.iter().flat_map(|topic| topic.own_partitions().iter().map(|one| (topic.id, one)));
        let failing = |(topic_id, partition): (Uuid, &Arc<Partition>)| {
            let fault = partition.fault()?;
            Some(Failing { topic_id, partition: Arc::clone(partition), fault })
        };
        replicas.filter_map(failing).collect()
    }

    async fn look_after(self: &Arc<Self>, failing: &Failing, history: &mut History) {
        let (topic, partition) = (failing.partition.topic(), failing.partition.index());
        let is_new = !history.asked_next.contains_key(&failing.key());
        if is_new {
            tracing::error!(topic, partition, "this replica cannot be in sync: {}", failing.fault.reason());
            history.asked_next.insert(failing.key(), Instant::now());
        }
        if failing.fault.is_passing() && self.go_on(failing).await {
            return;
        }
        let image = self.metadata.image();
        let Some(stored) = image.partition(failing.topic_id, partition) else { return };
        if failing.counts(stored, self.node.config.node_id) {
            if history.asked_next.get(&failing.key()).is_some_and(|at| *at <= Instant::now()) {
                history.asked_next.insert(failing.key(), Instant::now() + RETRY_AFTER);
                self.leave_in_sync(failing).await;
            }
        } else if let ReplicaFault::Damaged(_) = failing.fault {
            let copies = history.copies.entry(failing.key()).or_default();
            if copies.made < COPIES_MAX && copies.next.is_none_or(|at| at <= Instant::now()) {
                self.copy_again(failing, copies).await;
            }
        }
    }

    /// Asks the controller to take a replica out of the in-sync set.
    async fn leave_in_sync(self: &Arc<Self>, failing: &Failing) {
        let broker = self.node.config.node_id;
        let Some(registered) = self.metadata.image().broker(broker).map(|broker| broker.epoch) else { return };
        let (topic, partition) = (failing.partition.topic(), failing.partition.index());
        let request = LeaveInSync {
            broker,
            broker_epoch: registered,
            topic: failing.topic_id,
            partition,
            lossy: failing.is_lossy(),
        };
        match self.submit_one(Request::LeaveInSync(request), false).await {
            Ok(records) if !records.is_empty() => {
                tracing::warn!(topic, partition, "this replica has left the in-sync set");
            }
            // Another replica may come back.
            Ok(_) => failing.partition.report("this replica stays in sync", &"no other one can lead"),
            Err(error) => failing.partition.report("this replica stays in sync", &error),
        }
    }

    /// Copies a damaged replica again, if another broker leads.
    async fn copy_again(self: &Arc<Self>, failing: &Failing, copies: &mut Copies) {
        if self.has_failed_folder(&failing.partition).await {
            return;
        }
        let changes = Arc::clone(&self.changes).lock_owned().await;
        let (controller, topic_id, index) = (Arc::clone(self), failing.topic_id, failing.partition.index());
        let copied = blocking(move || {
            let _changes = changes;
            let image = controller.applied.lock().clone();
            let (Some(image), Ok(index)) = (image, usize::try_from(index)) else { return Ok(Repair::Nothing) };
            apply::copy_again(&controller.node, &image, topic_id, index)
        });
        let (topic, partition) = (failing.partition.topic(), index);
        let error = match copied.await {
            Ok(Ok(Repair::Nothing)) => return,
            Ok(Ok(Repair::Copying(Some(folder)))) => {
                let folder = folder.display();
                tracing::warn!(topic, partition, "a damaged log is set aside as {folder}; the replica is copied again");
                return copies.made += 1;
            }
            Ok(Ok(Repair::Copying(None))) => {
                tracing::warn!(topic, partition, "a replica whose data folder is gone is copied again");
                return copies.made += 1;
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        failing.partition.report("a damaged replica cannot be set aside", &error);
        copies.next = Some(Instant::now() + COPY_RETRY_AFTER);
    }

    /// Lets a replica go on if its disk has space again, or the process descriptors. Returns whether it does.
    async fn go_on(&self, failing: &Failing) -> bool {
        let partition = Arc::clone(&failing.partition);
        let dirs = Arc::clone(&self.node.dirs);
        let went_on = blocking(move || {
            let Some(dir) = partition.data_dir().and_then(|folder| dirs.find(folder)) else { return false };
            let has_space = !dir.is_full() && dir.free().is_ok_and(|free| free >= SPACE_TO_GO_ON);
            has_space && has_descriptors(dir.path()) && partition.go_on().is_ok()
        });
        if !went_on.await.unwrap_or(false) {
            return false;
        }
        let (topic, partition) = (failing.partition.topic(), failing.partition.index());
        tracing::info!(topic, partition, "the fault is over: this replica goes on");
        // Its leader is fetched from again.
        self.node.roles.send_modify(|changes| *changes += 1);
        true
    }
}

impl Failing {
    fn key(&self) -> (Uuid, i32) {
        (self.topic_id, self.partition.index())
    }

    /// Returns whether the replica may lack records that it has confirmed.
    fn is_lossy(&self) -> bool {
        !self.fault.is_passing()
    }

    /// Returns whether the replica counts as one that holds every committed record.
    fn counts(&self, stored: &PartitionImage, id: i32) -> bool {
        stored.isr.contains(&id) || (self.is_lossy() && stored.elr.contains(&id))
    }
}

/// Returns whether some more files can be opened.
fn has_descriptors(folder: &Path) -> bool {
    let opened: io::Result<Vec<File>> = (0..DESCRIPTORS_TO_GO_ON).map(|_| File::open(folder)).collect();
    opened.is_ok()
}
