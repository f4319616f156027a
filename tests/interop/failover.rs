//! A cluster whose nodes end and come back while a client works.

use std::time::{Duration, Instant};

use millstream_client::{Admin, ClientConfig, PartitionDescription};
use millstream_tests::Cluster;
use tokio::time::sleep;

/// The time for a cluster to be whole again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Kills the leader of a topic's first partition, starts it again, and restarts all nodes in turn. Waits for all
/// replicas to be in sync before each step.
pub(crate) fn kill_and_roll(cluster: &mut Cluster, topic: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let admin =
        runtime.block_on(async { Admin::new(ClientConfig::new(&cluster.bootstrap())).expect("an admin client") });
    let wait = |what: &str, condition: fn(&PartitionDescription) -> bool| {
        runtime.block_on(partitions_become(&admin, topic, what, condition))
    };
    let in_sync = |one: &PartitionDescription| one.in_sync.len() == 3;
    let leader = wait("in sync", in_sync)[0].leader.expect("a leader");
    cluster.kill(leader);
    wait("led by others", |one| one.leader.is_some() && one.in_sync.len() == 2);
    cluster.restart(leader);
    for id in 1..=3 {
        wait("in sync", in_sync);
        cluster.stop(id);
        wait("led by others", |one| one.leader.is_some() && one.in_sync.len() == 2);
        cluster.restart(id);
    }
    wait("in sync", in_sync);
}

/// Waits until all partitions of a topic meet a condition, and returns them.
async fn partitions_become(
    admin: &Admin,
    topic: &str,
    what: &str,
    condition: fn(&PartitionDescription) -> bool,
) -> Vec<PartitionDescription> {
    let begun = Instant::now();
    loop {
        let found = admin.describe_topics(&[topic.to_owned()]).await;
        if let Ok([found]) = found.as_deref()
            && found.partitions.iter().all(condition)
        {
            return found.partitions.clone();
        }
        assert!(begun.elapsed() < PATIENCE, "{topic} is not {what}: {found:?}");
        sleep(Duration::from_millis(50)).await;
    }
}
