//! A seeded simulator of transactions: the coordinators of transactions and groups, markers, and the logs of
//! partitions, through failover.
//!
//! Coordinators and logs are the real ones, in virtual time. The network loses requests and responses, and delivers
//! some up to a minute late. Partitions change their leader, and lose what is not replicated. Brokers crash, and their
//! logs are recovered from snapshots. Leaders are suspended, and stay in their epoch. The internal topics are
//! compacted. Producers crash, pause, and go on as zombies beside their successors.
//!
//! What has to hold:
//! - the records of a committed transaction are visible, each once, and those of an aborted one never;
//! - offsets count if and only if the records of their transaction do;
//! - after a producer has begun, no log takes a record of an instance before it;
//! - a reader of committed records never sees what is aborted later;
//! - once the faults stop, every transaction ends, and readers get to the end of every log.
//!
//! Every random choice comes from one seed. `MILLSTREAM_SIM_SEED` runs one seed, `MILLSTREAM_SIM_SEEDS` another number
//! of them.

mod broker;
mod checker;
mod client;
mod network;
mod partition;
mod world;

use std::env;
use std::time::Duration;

use tokio::time::sleep;

use super::model::TransactionVersion;
use world::{Counts, World};

/// How long things go wrong.
const CHAOS: Duration = Duration::from_secs(25);

/// The longest time until all transactions have ended after that. Late messages take up to a minute.
const SETTLE: Duration = Duration::from_secs(90);

/// A fault that is built into a run, to prove that the checks see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    None,
    /// Readers of committed records see all that is committed to the log.
    StableIsHighWatermark,
    /// Epochs of producers are not compared.
    UnfencedZombie,
    /// A marker counts as written when the leader has appended it.
    MarkerLostAtFailover,
    /// Offsets count when their transaction ends, however it ends.
    OffsetsByThemselves,
    /// The coordinator responds when its record is appended.
    RespondAtAppend,
    /// Leaders do not ask the coordinator about the first batch of a transaction.
    Unverified,
    /// A coordinator that was suspended does not learn what became of its records.
    SuspendedForgets,
}

const BUGS: [Bug; 7] = [
    Bug::StableIsHighWatermark,
    Bug::UnfencedZombie,
    Bug::MarkerLostAtFailover,
    Bug::OffsetsByThemselves,
    Bug::RespondAtAppend,
    Bug::Unverified,
    Bug::SuspendedForgets,
];

/// The transactional ids, each with the protocol of its producers.
const IDS: [(&str, TransactionVersion); 4] = [
    ("a", TransactionVersion::V2),
    ("b", TransactionVersion::V2),
    ("c", TransactionVersion::V0),
    ("d", TransactionVersion::V2),
];

/// Runs one seed in virtual time.
fn run(seed: u64, bug: Bug) -> Result<Counts, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
    let outcome = runtime.expect("a runtime").block_on(async {
        let world = World::new(seed, bug, folder.path());
        let outcome = run_in(&world).await;
        world.forget();
        outcome
    });
    outcome.map_err(|wrong| format!("seed {seed}: {wrong}"))
}

async fn run_in(world: &std::sync::Arc<World>) -> Result<Counts, String> {
    for (id, version) in IDS {
        tokio::spawn(client::run_id(world.clone(), id.into(), version));
    }
    let mut random = world.random("faults");
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < CHAOS {
        sleep(Duration::from_millis(random.u64(50..1_400))).await;
        world.fail(&mut random).await;
        checker::read_committed(world);
        world.wrong()?;
    }
    // No failover comes after this, which would mend what a suspension leaves behind.
    world.suspend_all(&mut random).await;
    world.heal();
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < SETTLE {
        sleep(Duration::from_secs(1)).await;
        world.time_out();
    }
    checker::check(world)?;
    Ok(world.counts())
}

fn variable(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

#[test]
fn simulator_transactions_are_atomic() {
    if let Some(seed) = variable("MILLSTREAM_SIM_SEED") {
        println!("{:?}", run(seed, Bug::None).unwrap_or_else(|wrong| panic!("{wrong}")));
        return;
    }
    let seeds = variable("MILLSTREAM_SIM_SEEDS").unwrap_or(500);
    let mut sum = Counts::default();
    for seed in 0..seeds {
        sum.add(run(seed, Bug::None).unwrap_or_else(|wrong| panic!("{wrong}")));
    }
    println!("{seeds} seeds: {sum:?}");
    sum.check(usize::try_from(seeds).expect("a number of seeds"));
}

#[test]
fn simulator_sees_each_fault_in_transactions() {
    for bug in BUGS {
        let seen = (0..100).find_map(|seed| run(seed, bug).err());
        println!("{bug:?}: {}", seen.unwrap_or_else(|| panic!("{bug:?} is not seen in 100 seeds")));
    }
}

#[test]
fn a_seed_of_transactions_runs_the_same_way_twice() {
    for seed in 1000..1010 {
        assert_eq!(run(seed, Bug::None), run(seed, Bug::None));
    }
}
