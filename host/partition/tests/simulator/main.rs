//! A seeded simulator of replication: the controller's decisions and the state machines of leaders and followers. The
//! network loses, delays, doubles and reorders messages, and disks lose what is not synced.
//!
//! After each tick every replica that may lead must hold every acknowledged record, and no epoch has two leaders. At
//! the end the network heals, all brokers start, and all logs must be equal, with each value once.
//!
//! Every random choice comes from one seed. `MILLSTREAM_SIM_SEED` runs one seed, `MILLSTREAM_SIM_SEEDS` another number
//! of them.

mod broker;
mod cluster;
mod network;

use std::env;

use cluster::{Cluster, Counts};

/// A fault that is built into a run, to prove that the checks see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// A leader acknowledges what it has synced itself.
    AcknowledgeAlone,
    /// A follower says that it has synced what it has only appended.
    CountUnsynced,
    /// A leader counts the offset of a fetch as synced, though the follower fetches ahead of what it has.
    CountFetched,
    /// A follower truncates to its high watermark, and does not compare epochs.
    TruncateToHighWatermark,
    /// A leader serves followers of any epoch and does not compare logs.
    IgnoreEpoch,
    /// A new leader does not know the values that a producer has sent before.
    DropProducerState,
}

const BUGS: [Bug; 6] = [
    Bug::AcknowledgeAlone,
    Bug::CountUnsynced,
    Bug::CountFetched,
    Bug::TruncateToHighWatermark,
    Bug::IgnoreEpoch,
    Bug::DropProducerState,
];

fn run(seed: u64, bug: Bug) -> Result<Counts, String> {
    let mut cluster = Cluster::new(seed, bug);
    for tick in 0..cluster::TICKS {
        cluster.tick().map_err(|wrong| format!("seed {seed}, tick {tick}: {wrong}"))?;
    }
    cluster.settle().map_err(|wrong| format!("seed {seed}, at the end: {wrong}"))?;
    Ok(cluster.counts)
}

fn variable(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

#[test]
fn simulator_no_acknowledged_record_is_lost() {
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
fn simulator_sees_each_fault() {
    for bug in BUGS {
        let seen = (0..300).find_map(|seed| run(seed, bug).err());
        println!("{bug:?}: {}", seen.unwrap_or_else(|| panic!("{bug:?} is not seen in 300 seeds")));
    }
}
