//! Faults in a random order, under producers and a consumer group.
//!
//! `MILLSTREAM_NEMESIS_SEED` repeats an order, `MILLSTREAM_NEMESIS_ROUNDS` makes the run longer.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use millstream_client::{Consumer, ConsumerConfig, OffsetReset};
use millstream_tests::Cluster;
use rustix::process::{Signal, kill_process};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::commits::Commits;
use crate::faults::{TOPIC, assert_no_errors, controller, create, finish, finish_commits, leader_of, whole};
use crate::workload::{Sent, Workload};

/// What happens to nodes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    Kill,
    Stop,
    Pause,
    KillTwo,
    KillAll,
}

/// Members of a group that note what they were given.
struct Group {
    stop: Arc<AtomicBool>,
    members: Vec<JoinHandle<HashSet<String>>>,
}

impl Group {
    fn start(bootstrap: &str, members: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let members = (0..members).map(|_| {
            let (stop, bootstrap) = (Arc::clone(&stop), bootstrap.to_owned());
            tokio::spawn(async move { consume(&bootstrap, &stop).await })
        });
        Self { members: members.collect(), stop }
    }

    /// Stops the members, and returns the values that any of them was given.
    async fn stop(self) -> HashSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut given = HashSet::new();
        for member in self.members {
            given.extend(member.await.expect("a member does not panic"));
        }
        given
    }
}

async fn consume(bootstrap: &str, stop: &AtomicBool) -> HashSet<String> {
    let mut config = ConsumerConfig::new(bootstrap);
    config.group_id = Some("readers".into());
    config.auto_offset_reset = OffsetReset::Earliest;
    for (key, value) in [("auto.commit.interval.ms", "200"), ("session.timeout.ms", "6000")] {
        config.set(key, value).expect("a good value");
    }
    let consumer = Consumer::builder(config).build().expect("a consumer");
    consumer.subscribe([TOPIC]).expect("a topic");
    let mut given = HashSet::new();
    while !stop.load(Ordering::Relaxed) {
        // An error ends one poll, and the next one goes on.
        for record in consumer.poll(Duration::from_millis(200)).await.unwrap_or_default() {
            given.insert(String::from_utf8(record.value.expect("a value").to_vec()).expect("text"));
        }
    }
    // The coordinator may have moved at this moment; then the session expires.
    let _ = consumer.close().await;
    given
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_under_random_faults() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let since = std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970");
    let seed = number("MILLSTREAM_NEMESIS_SEED").unwrap_or(since.subsec_nanos().into()).max(1);
    let rounds = number("MILLSTREAM_NEMESIS_ROUNDS").unwrap_or(6);
    println!("MILLSTREAM_NEMESIS_SEED={seed} MILLSTREAM_NEMESIS_ROUNDS={rounds}");
    let mut random = Rng::with_seed(seed);
    let settings = [("broker.session.timeout.ms", "1500"), ("broker.heartbeat.interval.ms", "300")];
    let mut cluster = Cluster::start(3, &settings);
    let bootstrap = cluster.bootstrap();
    create(&bootstrap, 6).await;
    let group = Group::start(&bootstrap, 2);
    let commits = Commits::start(&bootstrap, TOPIC).await;
    let workload = Workload::start(&bootstrap, TOPIC, 4, 250);
    let faults = [Fault::Kill, Fault::Kill, Fault::Kill, Fault::Stop, Fault::Pause, Fault::KillTwo, Fault::KillAll];
    for _ in 0..rounds {
        sleep(Duration::from_millis(200 + random.u64(..800))).await;
        let victim = match random.u8(..3) {
            0 => leader_of(&bootstrap, random.usize(..6)).await,
            1 => controller(&bootstrap).await,
            _ => random.i32(1..=3),
        };
        let fault = *random.choice(&faults).expect("a fault");
        let begun = Instant::now();
        strike(&mut cluster, fault, victim, &mut random).await;
        whole(&bootstrap).await;
        println!("{fault:?} of node {victim}: whole after {:?}", begun.elapsed());
    }
    let seen = finish(&cluster, workload).await;
    finish_commits(commits).await;
    assert_no_errors(&seen);
    // The group reads what is left.
    sleep(Duration::from_secs(5)).await;
    let given = group.stop().await;
    let stored = seen.iter().flat_map(|seen| &seen.sent).filter(|sent| sent.stored.is_some());
    let missed: Vec<String> = stored
        .map(|sent| Sent::value(sent.producer, sent.number))
        .filter(|value| !given.contains(value))
        .take(10)
        .collect();
    assert!(missed.is_empty(), "seed {seed}: the group was never given {missed:?}");
}

pub(crate) async fn strike(cluster: &mut Cluster, fault: Fault, victim: i32, random: &mut Rng) {
    let down = Duration::from_millis(100 + random.u64(..1500));
    let other = victim % 3 + 1;
    match fault {
        Fault::Kill => {
            cluster.kill(victim);
            sleep(down).await;
            cluster.restart(victim);
        }
        Fault::Stop => {
            cluster.stop(victim);
            sleep(down).await;
            cluster.restart(victim);
        }
        Fault::Pause => {
            let pid = cluster.node_of(victim).pid();
            kill_process(pid, Signal::STOP).expect("paused");
            sleep(down * 3).await;
            kill_process(pid, Signal::CONT).expect("resumed");
        }
        Fault::KillTwo => {
            cluster.kill(victim);
            cluster.kill(other);
            sleep(down).await;
            cluster.restart(victim);
            cluster.restart(other);
        }
        Fault::KillAll => {
            cluster.kill_all();
            for id in 1..=3 {
                cluster.restart(id);
            }
        }
    }
}
