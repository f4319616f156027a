//! Runs other projects' clients and tools, each against the real process.
//!
//! Environment variables that `cargo xtask test` sets name them. A test whose prerequisite is missing is reported as
//! ignored.

mod beside_kafka;
mod durability;
mod exactly_once;
mod failover;
mod folders;
mod hosts;
mod java;
mod kcat;
mod languages;
mod many_partitions;
mod node;
mod plugins;
mod python;
mod schemas;
mod staged_transactions;
#[path = "../e2e/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the tests in bytes, which use all of it")]
mod support;
mod transactions;
mod views;

use std::env;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = [
        kcat::trials(),
        python::trials(),
        schemas::trials(),
        node::trials(),
        java::trials(),
        views::trials(),
        languages::trials(),
        plugins::trials(),
        transactions::trials(),
        staged_transactions::trials(),
        exactly_once::trials(),
        durability::trials(),
        folders::trials(),
        hosts::trials(),
        many_partitions::trials(),
        beside_kafka::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Returns a test that needs what the environment variable `prerequisite` names. It is ignored without it.
fn trial(name: &str, prerequisite: &'static str, test: impl FnOnce(&str) + Send + 'static) -> Trial {
    let value = env::var(prerequisite).ok();
    let missing = value.is_none();
    Trial::test(name, move || {
        let value = value.ok_or_else(|| format!("{prerequisite} is not set: run `cargo xtask test`"))?;
        test(&value);
        Ok(())
    })
    .with_ignored_flag(missing)
}
