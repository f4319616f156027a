//! Runs clusters over a simulated network and simulated disks, with all randomness from one seed.
//!
//! `MILLSTREAM_SIM_SEED=N` replays one seed, `MILLSTREAM_SIM_SEEDS=N` runs the first N. The default is a minute of
//! seeds.

mod check;
mod cluster;
mod disk;
mod network;

use std::time::{Duration, Instant};

use cluster::{Outcome, simulate};
use disk::Bug;

/// How long the seeds run by default.
const TIME: Duration = Duration::from_secs(60);
/// The number of seeds within which a seeded bug must be found.
const BUG_SEEDS: u64 = 40;

fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {value:?}")))
}

#[test]
fn nothing_committed_is_lost_whatever_fails() {
    if let Some(seed) = from_environment("MILLSTREAM_SIM_SEED") {
        let outcome = simulate(seed, Bug::None);
        println!("seed {seed}: {outcome:?}");
        assert_eq!(outcome.violation, None, "seed {seed}");
        return;
    }
    let seeds = from_environment("MILLSTREAM_SIM_SEEDS");
    let begun = Instant::now();
    let (mut total, mut idle) = (Outcome::default(), Vec::new());
    let mut seed = 0;
    while seeds.map_or_else(|| begun.elapsed() < TIME, |seeds| seed < seeds) {
        let outcome = simulate(seed, Bug::None);
        assert_eq!(outcome.violation, None, "replay it with MILLSTREAM_SIM_SEED={seed}");
        if outcome.is_idle() {
            idle.push(seed);
        }
        total.add(&outcome);
        seed += 1;
    }
    println!("{seed} seeds in {:?}: {total:?}; too little happened in {}", begun.elapsed(), idle.len());
    assert!(seed > 0 && idle.len() as u64 * 10 < seed, "too little happened in the seeds {idle:?}");
}

#[test]
fn a_vote_that_is_not_synced_is_found() {
    let found = (0..BUG_SEEDS).find_map(|seed| Some((seed, simulate(seed, Bug::VoteNotSynced).violation?)));
    let (seed, violation) = found.expect("the checker does not see a vote that is not synced");
    println!("seed {seed}: {violation}");
}

#[test]
fn entries_that_are_acknowledged_before_their_sync_are_found() {
    let found = (0..BUG_SEEDS).find_map(|seed| Some((seed, simulate(seed, Bug::EntriesNotSynced).violation?)));
    let (seed, violation) = found.expect("the checker does not see entries that are not synced");
    println!("seed {seed}: {violation}");
}

#[test]
fn a_seed_replays_identically() {
    for seed in 0..3 {
        let (first, second) = (simulate(seed, Bug::None), simulate(seed, Bug::None));
        assert_eq!(first.trace, second.trace, "seed {seed}");
    }
}
