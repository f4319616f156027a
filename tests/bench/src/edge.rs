//! Measures what the broker's edge costs on produce. The figure is the processor time of a broker in a separate
//! process. The same records go to a topic with a filter and to one without, in turns.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use millstream_client::{Admin, ClientConfig, NewTopic, Producer, ProducerConfig, ProducerRecord};

use crate::measure::{Effort, median};
use crate::report::Row;
use crate::store;

const NAME: &str = "broker, 1 KiB, an admit filter that reads keys";

const VALUE_BYTES: usize = 1024;

/// The records of one turn.
const RECORDS: usize = if cfg!(test) { 500 } else { 32 * 1024 };

pub(crate) fn rows(effort: Effort, only: &str) -> Result<Vec<Row>> {
    if !NAME.contains(only) {
        return Ok(Vec::new());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let turns = runtime.block_on(measure(effort))?;
    let gigabytes = (RECORDS * VALUE_BYTES) as f64 / 1e9;
    // Finding memory for the page cache takes a varying time, so the lowest figure shows the cost of the work.
    let least = |topic: usize| turns.iter().map(|turn| turn[topic]).fold(f64::INFINITY, f64::min);
    let [plain, filtered] = [0, 1].map(|topic| least(topic) / gigabytes);
    let more = (median(turns.iter().map(|turn| turn[1] / turn[0])) - 1.0) * 100.0;
    Ok(vec![Row {
        name: NAME.to_owned(),
        figure: format!("{more:+.1} %"),
        goal: "+ 10 % (+ 5 %)".to_owned(),
        detail: format!(
            "{} pairs of {RECORDS} records, batches not compressed, acks=1; at the least {filtered:.2} CPU-s/GB \
             against {plain:.2}",
            turns.len()
        ),
    }])
}

/// A broker in another process. A test has no program to run, and measures its own process.
enum Broker {
    Child(Child),
    Here(Box<millstream_broker::RunningBroker>),
}

impl Broker {
    /// Starts a broker and returns it with its address.
    async fn start(folder: &Path) -> Result<(Broker, String)> {
        if cfg!(test) {
            let broker = store::broker(folder).await?;
            let address = broker.local_addr().to_string();
            return Ok((Broker::Here(Box::new(broker)), address));
        }
        let program = std::env::current_exe().context("cannot find the program that runs")?;
        let mut command = Command::new(program);
        // The child ends when its standard input closes, so it always ends with this process.
        let mut child = command.arg("--serve").arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut address = String::new();
        BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut address)?;
        Ok((Broker::Child(child), address.trim().to_owned()))
    }

    /// Returns the seconds of processor time that all threads of the broker have used.
    fn computed(&self) -> Result<f64> {
        let pid = match self {
            Broker::Child(child) => child.id(),
            Broker::Here(_) => std::process::id(),
        };
        let mut nanos = 0;
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            // The thread may have ended.
            let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
            nanos += text.split(' ').next().unwrap_or_default().parse::<u64>().unwrap_or_default();
        }
        Ok(nanos as f64 / 1e9)
    }

    async fn stop(self) -> Result<()> {
        match self {
            Broker::Child(mut child) => {
                drop(child.stdin.take());
                child.wait()?;
            }
            Broker::Here(broker) => broker.shutdown().await?,
        }
        Ok(())
    }
}

/// Runs a broker until the standard input ends; used by [`Broker::start`].
pub(crate) fn serve(folder: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let broker = store::broker(folder).await?;
        println!("{}", broker.local_addr());
        tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
        Ok(broker.shutdown().await?)
    })
}

/// Returns the broker's seconds for the topic without a filter and the one with a filter, turn by turn.
async fn measure(effort: Effort) -> Result<Vec<[f64; 2]>> {
    let folder = tempfile::tempdir()?;
    let (broker, bootstrap) = Broker::start(folder.path()).await?;
    let admin = Admin::new(ClientConfig::new(&bootstrap))?;
    let topic = |name: &str, stage: Option<&str>| NewTopic {
        name: name.to_owned(),
        partitions: Some(1),
        replication_factor: None,
        configs: stage.map(|stage| ("stage.admit".to_owned(), stage.to_owned())).into_iter().collect(),
    };
    admin
        .create_topics(&[topic("plain", None), topic("filtered", Some(r#"millstream-bench-keyed{"prefix":"key"}"#))])
        .await?;
    let mut config = ProducerConfig::new(&bootstrap);
    for (key, value) in [("batch.size", "262144"), ("linger.ms", "20"), ("acks", "1"), ("enable.idempotence", "false")]
    {
        config.set(key, value)?;
    }
    let producer = Producer::builder(config).build()?;
    for topic in ["plain", "filtered"] {
        produce(&producer, topic).await?;
    }
    let mut turns = Vec::new();
    for turn in 0..effort.rounds {
        let mut seconds = [0.0; 2];
        for topic in if turn % 2 == 0 { [0, 1] } else { [1, 0] } {
            let before = broker.computed()?;
            produce(&producer, ["plain", "filtered"][topic]).await?;
            seconds[topic] = broker.computed()? - before;
        }
        turns.push(seconds);
    }
    broker.stop().await?;
    Ok(turns)
}

async fn produce(producer: &Producer, topic: &str) -> Result<()> {
    let value = [b'v'; VALUE_BYTES];
    let mut deliveries = Vec::with_capacity(RECORDS);
    for row in 0..RECORDS {
        let key = format!("key-{row:012}");
        deliveries.push(producer.send(ProducerRecord::new(topic).key(key.as_bytes()).value(&value)).await?);
    }
    for delivery in deliveries {
        delivery.await?;
    }
    Ok(())
}
