//! A wall clock that jumps by hours, on one node of a cluster under load.

use std::time::Duration;

use tokio::time::sleep;

use crate::faults::{TOPIC, assert_no_errors, controller, create, finish, leader_of, whole};
use crate::process_faults::{Fault, FaultyCluster, NOT_RUN};
use crate::workload::Workload;

/// The longest time between two acknowledgements. No node has to be fenced, so it is that of a busy machine.
const GAP_MAX: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_changes_nothing() {
    const HOUR: i64 = 3600;
    let settings = [
        ("broker.session.timeout.ms", "3000"),
        ("broker.heartbeat.interval.ms", "300"),
        // By default a broker rejects records that are an hour ahead of its own clock.
        ("log.message.timestamp.after.max.ms", "9223372036854775807"),
    ];
    let Some(mut nodes) = FaultyCluster::start(&settings) else { return println!("{NOT_RUN}") };
    let bootstrap = nodes.cluster.bootstrap();
    create(&bootstrap, 3).await;
    whole(&bootstrap).await;
    let workload = Workload::start(&bootstrap, TOPIC, 3, 300);
    for victim in [controller(&bootstrap).await, leader_of(&bootstrap, 0).await] {
        for hours in [2, -3, 0] {
            nodes.set(victim, Fault::Clock, hours * HOUR);
            sleep(Duration::from_millis(700)).await;
        }
    }
    whole(&bootstrap).await;
    let seen = finish(&nodes.cluster, workload).await;
    assert_no_errors(&seen);
    let gap = seen.iter().map(|seen| seen.longest_gap).max().unwrap_or_default();
    assert!(gap < GAP_MAX, "{gap:?} without an acknowledgement");
    for id in 1..=3 {
        let log = nodes.cluster.node_of(id).log();
        assert!(!log.contains("its session has expired") && !log.contains("no controller is reached"), "{log}");
    }
}
