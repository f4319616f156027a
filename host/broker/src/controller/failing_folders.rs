//! A node with several data folders: one of them fails while the others serve.

use std::sync::Arc;
use std::time::Duration;

use millstream_partition::{Partition, ReplicaFault};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::Controller;
use crate::apply;
use crate::blocking::blocking;
use crate::log_dirs::LogDir;

/// The interval of the looks at faults.
const PERIOD: Duration = Duration::from_secs(1);

impl Controller {
    /// Takes data folders out of service that have failed, until `stop` says so.
    pub(crate) async fn watch_folders(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        if self.node.dirs.only().is_some() {
            // Its failure is that of its logs and of the metadata.
            return;
        }
        let mut tick = interval(PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            self.suspect_folders();
            for dir in self.node.dirs.online().filter(|dir| dir.take_suspicion()) {
                self.check_folder(dir).await;
            }
        }
    }

    /// Suspects the folders of logs with faults.
    fn suspect_folders(&self) {
        let topics = self.node.topics.load();
        for partition in topics.iter().flat_map(|topic| topic.own_partitions()) {
            let Some(data_dir) = partition.data_dir() else { continue };
            if matches!(partition.fault(), Some(ReplicaFault::Damaged(_) | ReplicaFault::Offline(_)))
                && let Some(dir) = self.node.dirs.find(data_dir)
            {
                dir.suspect();
            }
        }
    }

    /// Checks the data folder of a partition. Returns whether it has failed.
    pub(super) async fn has_failed_folder(self: &Arc<Self>, partition: &Partition) -> bool {
        let Some(data_dir) = partition.data_dir().filter(|_| self.node.dirs.only().is_none()) else { return false };
        let Some(dir) = self.node.dirs.find(data_dir) else { return false };
        self.check_folder(dir).await;
        !dir.is_online()
    }

    /// Takes a data folder out of service if it does not work.
    async fn check_folder(self: &Arc<Self>, dir: &Arc<LogDir>) {
        let probed = Arc::clone(dir);
        let failure = match blocking(move || probed.probe()).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        let changes = Arc::clone(&self.changes).lock_owned().await;
        let (controller, dir) = (Arc::clone(self), Arc::clone(dir));
        let failed = blocking(move || {
            let _changes = changes;
            apply::fail_folder(&controller.node, &dir, &failure);
        });
        if let Err(error) = failed.await {
            tracing::error!("a data folder cannot be taken out of service: {error}");
        }
    }
}
