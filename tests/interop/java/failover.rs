//! ProducerPerformance and a console consumer in a group, while nodes of a cluster end and come back.

use std::time::{Duration, Instant};

use millstream_tests::{Cluster, wait_until};

use super::console::{GROUPS, Member};
use super::performance::PRODUCER;
use super::{TOPIC_COMMAND, Tools};
use crate::failover::kill_and_roll;

const RECORDS: usize = 60_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends 0, 1, 2 ... with the default configs. No record fails, and the group reads each of them once, though each
/// node, and so its coordinator too, ends at some time.
pub(super) fn producer_and_group(tools: &Tools) {
    let mut cluster = Cluster::start(3, &[]);
    let bootstrap = cluster.bootstrap();
    let args = ["--create", "--topic", "numbers", "--partitions", "3", "--replication-factor", "3"];
    tools.client_of(TOPIC_COMMAND, &bootstrap).args(args).succeed();
    let member = Member::join(tools, &bootstrap, "numbers");
    let producer = tools
        .client_of(PRODUCER, &bootstrap)
        .args(["--topic", "numbers", "--num-records", &RECORDS.to_string(), "--payload-monotonic"])
        .args(["--throughput", "3000"]);
    let producer = std::thread::spawn(move || producer.run());
    let first = member.lines.recv_timeout(PATIENCE).expect("a record");
    kill_and_roll(&mut cluster, "numbers");
    let finished = producer.join().expect("the producer ends");
    assert!(finished.stdout.contains(&format!("{RECORDS} records sent")), "{finished:?}");
    assert!(!finished.stderr.contains("Exception"), "{}", finished.stderr);

    let described = || tools.client_of(GROUPS, &bootstrap).args(["--describe", "--group", "readers"]).run().stdout;
    let mut times = vec![0_u32; RECORDS];
    let deadline = Instant::now() + PATIENCE;
    let mut next = Some(first);
    for seen in 0..RECORDS {
        let Some(line) = next.take().or_else(|| member.lines.recv_timeout(deadline - Instant::now()).ok()) else {
            let missing: Vec<usize> = (0..RECORDS).filter(|&number| times[number] == 0).collect();
            panic!("{seen} of {RECORDS} records; missing from {:?} on\n{}", missing.first(), described());
        };
        times[line.parse::<usize>().unwrap_or_else(|_| panic!("not a number: {line}"))] += 1;
    }
    assert!(times.iter().all(|&times| times == 1), "some record came twice, and another one never");
    wait_until("the commits of the group", PATIENCE, || {
        let described = described();
        let lags = described.lines().filter(|line| line.starts_with("readers"));
        let lags: Vec<&str> = lags.filter_map(|line| line.split_whitespace().nth(5)).collect();
        (lags == ["0"; 3]).then_some(())
    });
}
