//! Kafka's own tools as the load: ProducerPerformance and ConsumerPerformance.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use super::bench::{Bench, LARGE};
use super::figure::{Better, Figure, Line};
use crate::frames::produce_frame;
use crate::nodes::Nodes;
use crate::replay::{Kind, replay_all};

/// The records of 1 KiB that ConsumerPerformance reads.
const CONSUMED: usize = 2 << 20;

/// Measures records of 1 KiB in batches of 256 KiB.
pub(super) async fn produce_large(bench: &mut Bench) -> Result<Vec<Figure>> {
    let line = Line {
        name: "ProducerPerformance, 1 KiB: CPU-s/GB",
        unit: "CPU-s/GB",
        better: Better::Less,
        goal: "4 x (5 x)",
    };
    produce(bench, line, 1024, 2_000_000, &["batch.size=262144", "linger.ms=5"]).await
}

/// Measures records of 100 B in batches of the default size.
pub(super) async fn produce_small(bench: &mut Bench) -> Result<Vec<Figure>> {
    let line = Line {
        name: "ProducerPerformance, 100 B: CPU-s/GB",
        unit: "CPU-s/GB",
        better: Better::Less,
        goal: "5 x (8 x)",
    };
    produce(bench, line, 100, 5_000_000, &[]).await
}

async fn produce(bench: &mut Bench, line: Line, bytes: usize, records: usize, configs: &[&str]) -> Result<Vec<Figure>> {
    if !has_tools(bench).await? {
        return Ok(Vec::new());
    }
    let records = bench.part(records);
    let measured = bench
        .turns(async |nodes, turn| {
            let topic = format!("produced-{bytes}-{turn}");
            nodes.create(&topic, 1).await?;
            let computed = nodes.computed()?;
            let [number, size] = [records, bytes].map(|number| number.to_string());
            let arguments = ["--topic", &topic, "--num-records", &number, "--record-size", &size, "--throughput", "-1"];
            let common = ["--command-property", "acks=1", "enable.idempotence=false"];
            let arguments: Vec<_> = arguments.iter().chain(&common).chain(configs).copied().collect();
            run(nodes, "org.apache.kafka.tools.ProducerPerformance", &arguments)?;
            let computed = nodes.computed()? - computed;
            nodes.delete(&topic).await?;
            Ok([computed / ((records * bytes) as f64 / 1e9)])
        })
        .await?;
    let batches = if configs.is_empty() { "16 KiB" } else { "256 KiB, linger.ms=5" };
    let note = format!("{records} records, batches of {batches}, acks=1, one partition, not idempotent");
    Ok(vec![measured.figure(0, line, note)])
}

/// Measures a consumer that reads records of 1 KiB from the page cache.
pub(super) async fn consume(bench: &mut Bench) -> Result<Vec<Figure>> {
    if !has_tools(bench).await? {
        return Ok(Vec::new());
    }
    let batches = bench.part(CONSUMED) / LARGE.records + 1;
    let records = (batches * LARGE.records).to_string();
    let topic = "consumed";
    for nodes in bench.warm().await? {
        nodes.create(topic, 1).await?;
        let frames = vec![vec![produce_frame(LARGE, 1, topic, 0)?]];
        replay_all(nodes.address(1), &frames, batches, 8, Kind::Produce)?;
    }
    let measured = bench
        .turns(async |nodes, _| {
            let computed = nodes.computed()?;
            let arguments = ["--topic", topic, "--num-records", &records, "--timeout", "60000"];
            run(nodes, "org.apache.kafka.tools.ConsumerPerformance", &arguments)?;
            Ok([(nodes.computed()? - computed) / ((batches * LARGE.records * LARGE.value_bytes) as f64 / 1e9)])
        })
        .await?;
    for nodes in bench.warm().await? {
        nodes.delete(topic).await?;
    }
    let line = Line {
        name: "ConsumerPerformance, 1 KiB: CPU-s/GB",
        unit: "CPU-s/GB",
        better: Better::Less,
        goal: "0.16, 2.5 x",
    };
    Ok(vec![measured.figure(
        0,
        line,
        format!("{records} records in batches of 256 KiB, cached; the defaults of the tool"),
    )])
}

/// Returns whether Kafka's tools are here, and says so if they are not.
async fn has_tools(bench: &mut Bench) -> Result<bool> {
    let is_here = bench.warm().await?.iter().all(Nodes::has_java);
    if !is_here {
        eprintln!("  left out: it needs Kafka's tools");
    }
    Ok(is_here)
}

/// Runs a tool against a broker.
fn run(nodes: &Nodes, class: &str, arguments: &[&str]) -> Result<()> {
    let mut tool = nodes.java()?;
    tool.args([class, "--bootstrap-server", &nodes.bootstrap()]).args(arguments);
    let output = tool.stdin(Stdio::null()).output().context("cannot run java")?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    // ProducerPerformance ends well when records are rejected. A consumer logs what it retries.
    let is_failure = |line: &str| line.contains("Exception") && !line.contains(" INFO ");
    ensure!(output.status.success() && !text.lines().any(is_failure), "{class}: {text}");
    Ok(())
}
