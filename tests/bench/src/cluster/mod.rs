//! `cargo xtask bench --cluster`: three nodes of ours beside three combined nodes of Apache Kafka, on the same work.
//!
//! | File | Subject |
//! |---|---|
//! | `mod.rs` | the rows, and the order of the turns |
//! | `load.rs` | work at full speed and at a steady rate |
//! | `faults.rs` | kills and stops |
//! | `builds.rs` | two builds of ours beside each other |

mod builds;
mod faults;
mod load;

use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::disk;
use crate::measure::median;
use crate::nodes::{Nodes, Programs, System};
use crate::pace::{milliseconds, percentile};
use crate::report::Row;
use faults::Fault;
use load::Throughput;

pub(crate) use builds::compare;

/// The nodes of each system.
const NODES: usize = 3;

/// The bytes that warm up caches, memory and JVMs, and those of a turn.
const WARM_UP: usize = 3 << 30;
const TURN: usize = 1 << 30;

/// The bytes that a follower misses.
const MISSED: usize = 1_000_000_000;

/// How often each fault is tried.
const FAULTS: usize = 3;

/// How long the steady rate lasts, and how long it warms up.
const STEADY_SECONDS: u32 = 10;
const STEADY_WARM_UP_SECONDS: u32 = 30;

/// Measures the rows of `work` or of `faults`, or both.
///
/// # Errors
/// A node does not start, rejects the work, or does not come back.
pub(crate) fn rows(programs: &Programs, turns: usize, only: &str) -> Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut rows = Vec::new();
        if "work".contains(only) {
            rows.extend(work(programs, turns).await?);
        }
        if "faults".contains(only) {
            rows.extend(faults(programs).await?);
        }
        Ok(rows)
    })
}

/// The figures of one system at work. Latencies are in milliseconds.
#[derive(Default)]
struct Work {
    idle: u64,
    throughput: Vec<Throughput>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    after: u64,
}

/// What the disk does by itself.
struct Disk {
    /// The p99 of an append of 5 KiB with its fdatasync, in milliseconds.
    fdatasync: f64,
    megabytes_a_second: f64,
}

/// Measures work at full speed in turns, while the other systems are idle, and then each system alone at a steady rate.
async fn work(programs: &Programs, turns: usize) -> Result<Vec<Row>> {
    let mut work = full_speed(programs, turns).await?;
    for (system, work) in System::ALL.into_iter().zip(&mut work) {
        let nodes = Nodes::start(system, programs, NODES, &[]).await?;
        steady(&nodes, turns, work).await.inspect_err(|_| nodes.print_logs())?;
    }
    let fdatasync = milliseconds(percentile(&disk::fdatasyncs(5 << 10)?, 0.99));
    let disk_alone = load::disk_alone()?;
    let [fsync, cache, kafka] = &work;
    Ok(work_rows(fsync, cache, kafka, Disk { fdatasync, megabytes_a_second: disk_alone }))
}

/// Measures work at full speed. All systems run at the same time, and the others are idle while one works.
async fn full_speed(programs: &Programs, turns: usize) -> Result<[Work; 3]> {
    let mut systems = Vec::new();
    for system in System::ALL {
        let nodes = Nodes::start(system, programs, NODES, &[]).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let idle = nodes.resident()?;
        systems.push((nodes, Work { idle, ..Work::default() }));
    }
    for (nodes, _) in &systems {
        load::full_speed(nodes, "warm-up", WARM_UP).await?;
        load::steady(nodes, "warm-up-steady", STEADY_WARM_UP_SECONDS).await?;
    }
    for turn in 0..turns {
        // Each system is the first of a turn in its turn.
        for place in 0..systems.len() {
            let count = systems.len();
            let (nodes, work) = &mut systems[(turn + place) % count];
            let measured = load::full_speed(nodes, &format!("load-{turn}"), TURN).await;
            let measured = measured.inspect_err(|_| nodes.print_logs())?;
            eprintln!("{}: {measured:?}", nodes.system().name());
            work.throughput.push(measured);
        }
    }
    for (nodes, work) in &mut systems {
        work.after = nodes.resident()?;
    }
    let works: Vec<Work> = systems.into_iter().map(|(_, work)| work).collect();
    works.try_into().map_err(|_| anyhow!("not three systems"))
}

/// Measures latency at a steady rate, after a warm-up of big and of small requests.
async fn steady(nodes: &Nodes, turns: usize, work: &mut Work) -> Result<()> {
    load::full_speed(nodes, "warm-up", TURN).await?;
    load::steady(nodes, "warm-up-steady", STEADY_WARM_UP_SECONDS).await?;
    for turn in 0..turns {
        // What was written before is not written back meanwhile.
        rustix::fs::sync();
        let latencies = load::steady(nodes, &format!("steady-{turn}"), STEADY_SECONDS).await?;
        let [p50, p99] = [0.5, 0.99].map(|share| milliseconds(percentile(&latencies, share)));
        eprintln!("{}: p50 {p50:.2} ms, p99 {p99:.2} ms", nodes.system().name());
        work.p50.push(p50);
        work.p99.push(p99);
    }
    Ok(())
}

fn work_rows(fsync: &Work, cache: &Work, kafka: &Work, disk: Disk) -> Vec<Row> {
    let ratio = |of: &dyn Fn(usize) -> f64, count: usize| median((0..count).map(of));
    let turns = kafka.throughput.len();
    let cost = |ours: &Work| ratio(&|at| kafka.throughput[at].computed / ours.throughput[at].computed, turns);
    let speed = |ours: &Work| {
        ratio(&|at| ours.throughput[at].megabytes_a_second / kafka.throughput[at].megabytes_a_second, turns)
    };
    let costs = |of: &Work| median(of.throughput.iter().map(|one| one.computed));
    let speeds = |of: &Work| median(of.throughput.iter().map(|one| one.megabytes_a_second));
    let middle = |values: &[f64]| median(values.iter().copied());
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let latency = |of: &Work| format!("{:.2} ({:.2})", middle(&of.p99), middle(&of.p50));
    let p99 = |of: &Work| ratio(&|at| of.p99[at] / kafka.p99[at], kafka.p99.len());
    let memory = |of: &Work| format!("{:.0} / {:.0}", mib(of.idle), mib(of.after));
    vec![
        Row {
            name: "3 replicas, acks=all, 1 KiB in batches of 256 KiB: CPU-s/GB of three nodes".to_owned(),
            figure: format!("fsync 1/{:.2}, page cache 1/{:.2}", cost(fsync), cost(cache)),
            goal: "1/2.5 with fsync; 1/3 without (1/4)".to_owned(),
            detail: format!("{:.2} and {:.2}; Kafka {:.2}", costs(fsync), costs(cache), costs(kafka)),
        },
        Row {
            name: "the same: MB/s".to_owned(),
            figure: format!("fsync {:.2} x, page cache {:.2} x", speed(fsync), speed(cache)),
            goal: "2 x with fsync; 2.5 x without (4 x)".to_owned(),
            detail: format!(
                "{:.0} and {:.0}; Kafka {:.0}; only writes and syncs of three nodes {:.0}",
                speeds(fsync),
                speeds(cache),
                speeds(kafka),
                disk.megabytes_a_second
            ),
        },
        Row {
            name: "3 replicas, acks=all, 5,000 records of 1 KiB a second, open loop: p99 (p50), ms".to_owned(),
            figure: format!("fsync {:.2} x, page cache {:.2} x", p99(fsync), p99(cache)),
            goal: "page cache 0.5 x; with fsync one fdatasync more".to_owned(),
            detail: format!(
                "{} and {}; Kafka {}; an fdatasync of 5 KiB {:.2}",
                latency(fsync),
                latency(cache),
                latency(kafka),
                disk.fdatasync
            ),
        },
        Row {
            name: "resident memory of a node, idle / after these rows, MiB".to_owned(),
            figure: format!("{} and {}", memory(fsync), memory(cache)),
            goal: "16 / 64".to_owned(),
            detail: format!("Kafka {}", memory(kafka)),
        },
    ]
}

/// What one system does when nodes die, in milliseconds.
#[derive(Default)]
struct Faults {
    gaps: [Vec<f64>; 3],
    controller: f64,
    catch_up: f64,
    many: f64,
}

async fn faults(programs: &Programs) -> Result<Vec<Row>> {
    let mut all = Vec::new();
    for system in [System::Fsync, System::Kafka] {
        let mut nodes = Nodes::start(system, programs, NODES, &[]).await?;
        let measured = faults_of(&mut nodes, if system == System::Kafka { 1 } else { FAULTS }).await;
        all.push(measured.inspect_err(|_| nodes.print_logs())?);
    }
    Ok(fault_rows(&all[0], &all[1]))
}

async fn faults_of(nodes: &mut Nodes, times: usize) -> Result<Faults> {
    let mut measured = Faults::default();
    // The JVMs are warm, and memory is touched.
    load::full_speed(nodes, "warm-up", TURN).await?;
    for time in 0..times {
        for (place, fault) in [Fault::KillLeader, Fault::KillFollower, Fault::StopLeader].into_iter().enumerate() {
            let gap = faults::gap(nodes, &format!("gap-{time}-{place}"), fault).await?;
            eprintln!("{fault:?}: {:.0} ms", milliseconds(gap));
            measured.gaps[place].push(milliseconds(gap));
        }
    }
    measured.controller = milliseconds(faults::controller_gap(nodes, "created").await?);
    eprintln!("controller: {:.0} ms", measured.controller);
    measured.catch_up = milliseconds(faults::catch_up(nodes, "missed", MISSED).await?);
    eprintln!("catch up: {:.0} ms", measured.catch_up);
    measured.many = milliseconds(faults::many_leaders(nodes, "many").await?);
    eprintln!("1,000 partitions: {:.0} ms", measured.many);
    Ok(measured)
}

fn fault_rows(ours: &Faults, kafka: &Faults) -> Vec<Row> {
    let row = |name: &str, ours: String, kafka: String, goal: &str| Row {
        name: name.to_owned(),
        figure: ours,
        goal: goal.to_owned(),
        detail: format!("Kafka {kafka}"),
    };
    let text = |value: f64| if value < 1000.0 { format!("{value:.0} ms") } else { format!("{:.1} s", value / 1000.0) };
    let worst = |values: &[f64]| text(values.iter().copied().fold(0.0, f64::max));
    let gap =
        |place: usize, name: &str, goal: &str| row(name, worst(&ours.gaps[place]), worst(&kafka.gaps[place]), goal);
    vec![
        gap(0, "kill -9 of a leader: the longest gap of an acks=all producer", "500 ms (200 ms)"),
        gap(1, "kill -9 of a follower in the in-sync set: the same", "500 ms (200 ms)"),
        gap(2, "SIGTERM of a leader: the same", "100 ms"),
        row(
            "kill -9 of the active controller while topics are created: the longest gap",
            text(ours.controller),
            text(kafka.controller),
            "1 s",
        ),
        row("a follower that missed 1 GB: start to in sync", text(ours.catch_up), text(kafka.catch_up), "4 s"),
        row(
            "1,000 partitions with 3 replicas: kill -9 of a node, until all have leaders",
            text(ours.many),
            text(kafka.many),
            "1 s",
        ),
    ]
}
