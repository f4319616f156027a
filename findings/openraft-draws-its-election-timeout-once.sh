#!/usr/bin/env bash
# Seen with openraft 0.9.25, openraft-memstore 0.9.25 and cargo 1.95.0, on 2026-11-28.
#
# Guess: as the Raft paper says (5.2), a voter draws a new random timeout for each election. election_timeout_min and
# election_timeout_max are the bounds of every draw, so voters that once collided differ the next time.
# Behaviour: the timeout is drawn once, when `Raft::new` is called, and stays for the life of the process. The times between
# the elections of a voter without a majority are nearly equal, with bounds that are a second apart.
#
# Output seen (milliseconds between elections; each line is one voter of three whose peers are down):
#   [625, 617, 619, 614, 615, 617] spread 11
#   [1083, 1073, 1077, 1144, 1076, 1150] spread 77
#   [848, 841, 850, 840, 843, 846] spread 10
#   [465, 458, 460, 474, 451, 472] spread 23
#   [476, 536, 541, 546, 533, 542] spread 70
#   [695, 688, 696, 688, 685, 687] spread 11
# That was on a loaded machine; on an idle one the spreads are 4 to 17.
#
# It matters: two voters with nearly equal timeouts split the vote in each round until one of them restarts. A program that
# wants the paper's behaviour turns `enable_elect` off and calls `trigger().elect()` by a timer of its own.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat > Cargo.toml <<'MANIFEST'
[package]
name = "elections"
version = "0.1.0"
edition = "2024"
[workspace]
[dependencies]
openraft = { version = "=0.9.25", features = ["serde"] }
openraft-memstore = "=0.9.25"
tokio = { version = "=1.54.1", features = ["rt-multi-thread", "macros", "time"] }
MANIFEST
cat > src/main.rs <<'MAIN'
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use openraft::error::{Infallible, InstallSnapshotError, RPCError, RaftError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::storage::Adaptor;
use openraft::{Config, Raft};
use openraft_memstore::{MemStore, TypeConfig};

/// A network whose other members are down.
struct Down;

type Failed<E = Infallible> = RPCError<u64, (), RaftError<u64, E>>;

fn down<E: std::error::Error>() -> RPCError<u64, (), E> {
    RPCError::Unreachable(Unreachable::new(&std::io::Error::other("down")))
}

impl RaftNetworkFactory<TypeConfig> for Down {
    type Network = Self;

    async fn new_client(&mut self, _: u64, (): &()) -> Self {
        Self
    }
}

impl RaftNetwork<TypeConfig> for Down {
    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failed> {
        Err(down())
    }

    async fn install_snapshot(
        &mut self,
        _: InstallSnapshotRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failed<InstallSnapshotError>> {
        Err(down())
    }

    async fn vote(&mut self, _: VoteRequest<u64>, _: RPCOption) -> Result<VoteResponse<u64>, Failed> {
        Err(down())
    }
}

/// Returns the milliseconds between the elections of one voter of three.
async fn intervals() -> Vec<u128> {
    let config = Config {
        heartbeat_interval: 50,
        election_timeout_min: 200,
        election_timeout_max: 1200,
        ..Config::default()
    };
    let (log, state) = Adaptor::new(MemStore::new_async().await);
    let raft = Raft::new(1, Arc::new(config.validate().unwrap()), Down, log, state).await.unwrap();
    raft.initialize(BTreeSet::from([1, 2, 3])).await.unwrap();
    let mut metrics = raft.metrics();
    let (mut term, mut last, mut found) = (0, None, Vec::new());
    while found.len() < 6 {
        metrics.changed().await.unwrap();
        let now = metrics.borrow_and_update().current_term;
        if now > term {
            term = now;
            let before: Option<Instant> = last.replace(Instant::now());
            found.extend(before.map(|before| before.elapsed().as_millis()));
        }
    }
    raft.shutdown().await.unwrap();
    found
}

#[tokio::main]
async fn main() {
    let voters: Vec<_> = (0..6).map(|_| tokio::spawn(intervals())).collect();
    let (mut firsts, mut is_constant) = (Vec::new(), true);
    for voter in voters {
        let found = voter.await.unwrap();
        let spread = found.iter().max().unwrap() - found.iter().min().unwrap();
        println!("{found:?} spread {spread}");
        is_constant &= spread < 150;
        firsts.push(found[0]);
    }
    let is_random = firsts.iter().max().unwrap() - firsts.iter().min().unwrap() > 150;
    if !is_constant || !is_random {
        println!("openraft draws its timeouts otherwise now");
        std::process::exit(1);
    }
}
MAIN
cargo run --quiet
