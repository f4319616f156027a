//! Measures new versions in a broker's store: from a client's push or activation to the first acknowledged batch that
//! passed through the new version.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use millstream_broker::{Flags, Plugins, RawConfig, RunningBroker};
use millstream_client::plugins::PluginStore;
use millstream_client::{Admin, ClientConfig, NewTopic, Producer, ProducerConfig, ProducerRecord};
use millstream_stage::{Engine, EngineConfig, Library};

use crate::measure::{Effort, median};
use crate::report::Row;
use crate::{compiler, component};

const NAME: &str = "json-compare";

/// Versions that are activated in turns. The library keeps fewer in memory, so that compiled code comes from disk.
const ACTIVATED: u32 = 4;

const COLD: &str = "push through the broker's store, 200 KiB, cold";
const CACHED: &str = "activate through the broker's store, 200 KiB, cached";

pub(crate) fn rows(effort: Effort, only: &str) -> Result<Vec<Row>> {
    if !COLD.contains(only) && !CACHED.contains(only) {
        return Ok(Vec::new());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (cold, cached) = runtime.block_on(measure(effort))?;
    let row = |name: &str, goal: &str, times: &[f64], what: &str| {
        let longest = times.iter().copied().fold(0.0, f64::max);
        Row {
            name: name.to_owned(),
            figure: format!("{:.1} ms", median(times.iter().copied())),
            goal: goal.to_owned(),
            detail: format!(
                "{} KiB, {} times, {longest:.1} ms at most; {what}",
                component(NAME).len() >> 10,
                times.len()
            ),
        }
    };
    let all = [
        row(COLD, "500 ms", &cold, "chunks, manifest, checks, two fsyncs, swap, one batch"),
        row(CACHED, "5 ms", &cached, "manifest, code from disk, one fsync, swap, one batch"),
    ];
    Ok(all.into_iter().filter(|row| row.name.contains(only)).collect())
}

/// Starts a broker in this process, on a free port.
pub(crate) async fn broker(folder: &Path) -> Result<RunningBroker> {
    let cache = folder.join("cache");
    let library = move || {
        let failed = |error: &dyn std::fmt::Display| error.to_string();
        let compiler = compiler().map_err(|error| failed(&error))?;
        let config = EngineConfig { cache_dir: Some(cache.clone()), compiler, ..EngineConfig::default() };
        let library = Library::new(Engine::new(config).map_err(|error| failed(&error))?);
        // Published like a pushed plug-in, so that it has a deadline.
        library.publish(crate::KEYED).map_err(|error| failed(&error))?;
        Ok(Arc::new(library))
    };
    let flags = Flags {
        data_dirs: vec![folder.join("data")],
        listen: Some("127.0.0.1:0".parse().context("an address")?),
        advertise: None,
    };
    let config = RawConfig::default().check()?.with_flags(flags)?;
    Ok(millstream_broker::start(config, Plugins::new(library)).await?)
}

/// Returns the milliseconds of every push and of every activation.
async fn measure(effort: Effort) -> Result<(Vec<f64>, Vec<f64>)> {
    let folder = tempfile::tempdir()?;
    let broker = broker(folder.path()).await?;
    let bootstrap = broker.local_addr().to_string();
    let store = PluginStore::new(ClientConfig::new(&bootstrap))?;
    let pushes = (effort.rounds / 4).max(ACTIVATED as usize) as u8;
    // The client's own loading is not part of the figure.
    let engine = Engine::new(EngineConfig { compiler: compiler()?, ..EngineConfig::default() })?;
    let plugin = engine.load(component(NAME))?;
    store.push(component(NAME), &plugin, None, true).await?;
    let admin = Admin::new(ClientConfig::new(&bootstrap))?;
    let stage = format!(r#"{NAME}{{"path":"/mag","op":">=","value":4.5}}"#);
    let configs = [("stage.admit".to_owned(), stage)].into();
    let topic = NewTopic { name: "quakes".to_owned(), partitions: Some(1), replication_factor: None, configs };
    admin.create_topics(&[topic]).await?;
    let mut config = ProducerConfig::new(&bootstrap);
    config.set("linger.ms", "0")?;
    let producer = Producer::builder(config).build()?;
    produce(&producer).await?;

    let mut cold = Vec::new();
    for number in 0..pushes {
        let next = with_section(component(NAME), number);
        let begun = Instant::now();
        store.push(&next, &plugin, None, true).await?;
        produce(&producer).await?;
        cold.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let mut cached = Vec::new();
    for round in 0..effort.rounds as u32 {
        let begun = Instant::now();
        store.activate(NAME, 1 + round % ACTIVATED).await?;
        produce(&producer).await?;
        cached.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let served = admin.plugin_stats().await?;
    let all = (1..=u32::from(pushes) + 1).all(|number| served.iter().any(|one| one.number == number && one.calls > 0));
    ensure!(all, "a version has seen no batch: {served:?}");
    store.close().await;
    broker.shutdown().await?;
    Ok((cold, cached))
}

async fn produce(producer: &Producer) -> Result<()> {
    producer.send(ProducerRecord::new("quakes").value(br#"{"mag":5}"#)).await?.await?;
    Ok(())
}

/// Returns the component with one more custom section, whose name is one letter.
fn with_section(component: &[u8], number: u8) -> Vec<u8> {
    [component, &[0, 2, 1, b'!' + number]].concat()
}
