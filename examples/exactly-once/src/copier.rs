//! The program that is killed: it reads orders, changes them by a stage and writes them to another topic, exactly once.
//! Each transaction holds the records of one poll and the offsets behind them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use millstream_client::{
    Consumer, ConsumerConfig, ConsumerRecord, Error, IsolationLevel, OffsetReset, Producer, ProducerConfig,
    ProducerRecord, Remedy,
};
use millstream_stage::{Engine, EngineConfig, Kind, Library, Stage, StageSpec};

use crate::{GROUP, SINK, SOURCE};

/// What the program prints after each transaction that it has committed.
pub(crate) const COMMITTED: &str = "committed";

/// Copies until it is killed.
///
/// # Errors
/// The producer is fenced, or something fails for good.
pub(crate) async fn copy(bootstrap: &str, stage: &Path) -> Result<()> {
    let (consumer, producer) = (consumer(bootstrap)?, producer(bootstrap, stage)?);
    // Aborts what the program has left open when it was killed.
    producer.init_transactions().await?;
    consumer.subscribe([SOURCE])?;
    loop {
        let records = match consumer.poll(Duration::from_millis(200)).await {
            Ok(records) => records,
            Err(error) if error.retriable() => continue,
            Err(error) => bail!(error),
        };
        if records.is_empty() {
            continue;
        }
        producer.begin_transaction().await?;
        match transfer(&consumer, &producer, &records).await {
            Ok(()) => println!("{COMMITTED} {}", records.len()),
            Err(error) if error.remedy() == Remedy::Abort => {
                eprintln!("aborting: {error}");
                until_known(async || producer.abort_transaction().await).await?;
                rewind(&consumer).await?;
            }
            Err(error) => bail!(error),
        }
    }
}

/// Writes the changed records and the positions behind them in one transaction.
async fn transfer(consumer: &Consumer, producer: &Producer, records: &[ConsumerRecord]) -> Result<(), Error> {
    for record in records {
        let order = ProducerRecord::new(SINK).partition(record.partition).value(record.value.as_deref().unwrap_or(b""));
        // Its failure fails the commit.
        producer.send_and_forget(order).await?;
    }
    producer.send_offsets_to_transaction(&consumer.positions(), &consumer.group_metadata()?).await?;
    until_known(async || producer.commit_transaction().await).await
}

/// Repeats the end of a transaction until its outcome is known.
async fn until_known(end: impl AsyncFn() -> Result<(), Error>) -> Result<(), Error> {
    loop {
        match end().await {
            Err(error) if error.remedy() == Remedy::Retry => eprintln!("once more: {error}"),
            outcome => return outcome,
        }
    }
}

/// Lets the consumer read the records of an aborted transaction again.
async fn rewind(consumer: &Consumer) -> Result<()> {
    let partitions = consumer.assignment();
    let committed = consumer.committed(&partitions).await?;
    for partition in &partitions {
        match committed.get(partition) {
            Some(committed) => consumer.seek(partition, committed.offset)?,
            None => consumer.seek_to_beginning(partition)?,
        }
    }
    Ok(())
}

fn consumer(bootstrap: &str) -> Result<Consumer> {
    let mut config = ConsumerConfig::new(bootstrap);
    config.group_id = Some(GROUP.to_owned());
    // A static member: the program gets its partitions at once after it was killed.
    config.group_instance_id = Some("copier".to_owned());
    config.enable_auto_commit = false;
    config.auto_offset_reset = OffsetReset::Earliest;
    config.isolation_level = IsolationLevel::ReadCommitted;
    Ok(Consumer::builder(config).build()?)
}

fn producer(bootstrap: &str, stage: &Path) -> Result<Producer> {
    let mut config = ProducerConfig::new(bootstrap);
    config.transactional_id = Some("copier".to_owned());
    let stage = cents(stage).context("cannot use the serializer")?;
    Ok(Producer::builder(config).serializer(stage).build()?)
}

/// Returns the serializer. It is compiled once; a later start of the program finds the code beside it.
fn cents(path: &Path) -> Result<Arc<Stage>> {
    let cache_dir = path.parent().map(|folder| folder.join("compiled"));
    let library = Library::new(Engine::new(EngineConfig { cache_dir, ..EngineConfig::default() })?);
    let spec = StageSpec::parse(&path.display().to_string())?;
    Ok(library.resolve(&spec, Kind::Serializer)?)
}
