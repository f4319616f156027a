//! Two builds of ours beside each other: `--cluster FIRST --beside SECOND`.

use std::path::PathBuf;

use anyhow::Result;

use super::{MISSED, NODES, STEADY_SECONDS, TURN, faults, load};
use crate::measure::median;
use crate::nodes::{Nodes, Programs, System};
use crate::pace::{milliseconds, percentile};

/// The figures of one build, one for each turn.
#[derive(Default)]
struct Build {
    computed: Vec<f64>,
    megabytes_a_second: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    catch_up: Vec<f64>,
}

/// What a row shows of a build.
type Figures = fn(&Build) -> &[f64];

/// Measures two builds in turns, and prints each figure with the ratio of the second to the first. `only` chooses
/// `work` or `catch-up`.
///
/// # Errors
/// A node does not start, rejects the work, or does not come back.
pub(crate) fn compare(binaries: [&PathBuf; 2], turns: usize, only: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut builds = Vec::new();
        for millstream in binaries {
            let programs = Programs { millstream: millstream.clone(), classpath: None };
            let nodes = Nodes::start(System::Fsync, &programs, NODES, &[]).await?;
            load::full_speed(&nodes, "warm-up", TURN).await?;
            builds.push((nodes, Build::default()));
        }
        for turn in 0..turns {
            for place in [turn % 2, (turn + 1) % 2] {
                let (nodes, build) = &mut builds[place];
                let measured = measure(nodes, build, turn, only).await;
                measured.inspect_err(|_| nodes.print_logs())?;
            }
        }
        print(&builds[0].1, &builds[1].1);
        Ok(())
    })
}

async fn measure(nodes: &mut Nodes, build: &mut Build, turn: usize, only: &str) -> Result<()> {
    if "work".contains(only) {
        let throughput = load::full_speed(nodes, &format!("load-{turn}"), TURN).await?;
        build.computed.push(throughput.computed);
        build.megabytes_a_second.push(throughput.megabytes_a_second);
        let latencies = load::steady(nodes, &format!("steady-{turn}"), STEADY_SECONDS).await?;
        build.p50.push(milliseconds(percentile(&latencies, 0.5)));
        build.p99.push(milliseconds(percentile(&latencies, 0.99)));
    }
    if "catch-up".contains(only) {
        build.catch_up.push(milliseconds(faults::catch_up(nodes, &format!("missed-{turn}"), MISSED).await?));
    }
    Ok(())
}

fn print(first: &Build, second: &Build) {
    let rows: [(&str, Figures); 5] = [
        ("acks=all in batches of 256 KiB, CPU-s/GB", |build| &build.computed),
        ("the same, MB/s", |build| &build.megabytes_a_second),
        ("5,000 records a second, p50, ms", |build| &build.p50),
        ("the same, p99, ms", |build| &build.p99),
        ("a follower that missed 1 GB: start to in sync, ms", |build| &build.catch_up),
    ];
    for (name, figures) in rows.into_iter().filter(|(_, figures)| !figures(first).is_empty()) {
        let [before, after] = [first, second].map(|build| median(figures(build).iter().copied()));
        let all = [first, second].map(|build| figures(build).iter().map(|one| format!("{one:.2}")).collect::<Vec<_>>());
        println!("{name}: {before:.2} and {after:.2}, x {:.2}", after / before);
        println!("  {}  |  {}", all[0].join(" "), all[1].join(" "));
    }
}
