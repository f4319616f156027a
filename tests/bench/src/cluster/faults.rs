//! What a producer notices when nodes die, and how long the others and the node itself take.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millstream_client::{Delivery, NewTopic, Producer, ProducerConfig, ProducerRecord};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{NODES, load};
use crate::nodes::{Nodes, partitions, until};

/// The interval between two records.
const PACE: Duration = Duration::from_millis(2);

/// The records before a fault.
const WARM: usize = 500;

/// How long is watched after a fault: Kafka needs a session of nine seconds, and more.
const WATCH: Duration = Duration::from_secs(16);

/// The partitions of the row about many.
const MANY: i32 = 1000;

/// What happens to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    KillLeader,
    KillFollower,
    StopLeader,
}

/// Returns the longest gap between acknowledgements of an acks=all producer around a fault of a node.
///
/// # Errors
/// The cluster does not go on.
pub(crate) async fn gap(nodes: &mut Nodes, topic: &str, fault: Fault) -> Result<Duration> {
    let partition = nodes.create(topic, 1).await?.remove(0);
    let leader = usize::try_from(partition.leader.context("a leader")?)?;
    let mut followers = partition.replicas.iter().filter_map(|id| usize::try_from(*id).ok()).filter(|id| *id != leader);
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let producing =
        tokio::spawn(produce(nodes.bootstrap(), topic.to_owned(), Arc::clone(&stop), Arc::clone(&acknowledged)));
    until("acknowledgements", async || Ok((acknowledged.load(Ordering::Relaxed) >= WARM).then_some(()))).await?;
    let victim = match fault {
        Fault::KillFollower => followers.next_back().context("a follower")?,
        _ => leader,
    };
    match fault {
        Fault::StopLeader => nodes.terminate(victim)?,
        _ => nodes.kill(victim)?,
    }
    sleep(WATCH).await;
    let seen = acknowledged.load(Ordering::Relaxed);
    until("more acknowledgements", async || Ok((acknowledged.load(Ordering::Relaxed) >= seen + WARM).then_some(())))
        .await?;
    stop.store(true, Ordering::Relaxed);
    let gap = producing.await??;
    if fault == Fault::StopLeader {
        nodes.stopped(victim).await?;
    }
    nodes.bring_back(victim, topic).await?;
    nodes.admin()?.delete_topics(&[topic.to_owned()]).await?;
    Ok(gap)
}

/// Sends a record at each pace until `stop`, and returns the longest gap between acknowledgements.
async fn produce(bootstrap: String, topic: String, stop: Arc<AtomicBool>, count: Arc<AtomicUsize>) -> Result<Duration> {
    let mut config = ProducerConfig::new(&bootstrap);
    config.set("linger.ms", "0")?;
    let producer = Producer::builder(config).build()?;
    let (sent, mut deliveries) = mpsc::channel::<Delivery>(100_000);
    let settled = tokio::spawn(async move {
        let (mut longest, mut last) = (Duration::ZERO, None::<Instant>);
        while let Some(delivery) = deliveries.recv().await {
            delivery.await?;
            let now = Instant::now();
            longest = longest.max(last.replace(now).map_or(Duration::ZERO, |before| now - before));
            count.fetch_add(1, Ordering::Relaxed);
        }
        anyhow::Ok(longest)
    });
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.load(Ordering::Relaxed) && !settled.is_finished() {
        ticks.tick().await;
        sent.send(producer.send(ProducerRecord::new(&topic).value(&[b'v'; 1024])).await?).await.ok();
    }
    drop(sent);
    let longest = settled.await??;
    producer.close(Duration::from_secs(10)).await?;
    Ok(longest)
}

/// Returns the longest time between two topics that could be created, around a kill of the active controller.
///
/// # Errors
/// No topic can be created in the end.
pub(crate) async fn controller_gap(nodes: &mut Nodes, prefix: &str) -> Result<Duration> {
    let controller = nodes.admin()?.describe_quorum().await?.leader.context("a controller")?;
    let controller = usize::try_from(controller)?;
    let stop = Arc::new(AtomicBool::new(false));
    let (bootstrap, prefix, stopped) = (nodes.admin()?, prefix.to_owned(), Arc::clone(&stop));
    let creating = tokio::spawn(async move {
        let (admin, mut longest, mut last) = (bootstrap, Duration::ZERO, Instant::now());
        for number in 0.. {
            if stopped.load(Ordering::Relaxed) {
                break;
            }
            let name = format!("{prefix}-{number}");
            let new = NewTopic { name, partitions: Some(1), replication_factor: Some(2), ..Default::default() };
            if admin.create_topics(&[new]).await.is_ok() {
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
            sleep(Duration::from_millis(5)).await;
        }
        (longest, last.elapsed())
    });
    sleep(Duration::from_secs(2)).await;
    nodes.kill(controller)?;
    sleep(WATCH).await;
    stop.store(true, Ordering::Relaxed);
    let (longest, since) = creating.await?;
    ensure!(since < WATCH / 2, "no topic could be created after the kill of the controller");
    let topic = format!("after-{controller}");
    nodes.launch(controller)?;
    nodes.create(&topic, 1).await?;
    Ok(longest)
}

/// Returns the time from the start of a follower that has missed these bytes until it is in sync everywhere.
///
/// # Errors
/// It does not come back in time.
pub(crate) async fn catch_up(nodes: &mut Nodes, topic: &str, bytes: usize) -> Result<Duration> {
    nodes.create(topic, i32::try_from(NODES)?).await?;
    let victim = NODES;
    nodes.terminate(victim)?;
    nodes.stopped(victim).await?;
    let admin = nodes.admin()?;
    let led_by_others = async || {
        let found = partitions(&admin, topic).await?;
        Ok(found.iter().all(|one| one.leader.is_some_and(|id| usize::try_from(id) != Ok(victim))).then_some(()))
    };
    until("leaders among the others", led_by_others).await?;
    load::fill(nodes, topic, bytes).await?;
    let begun = Instant::now();
    nodes.launch(victim)?;
    until("the follower in sync", async || {
        Ok(partitions(&admin, topic).await?.iter().all(|one| one.in_sync.len() == NODES).then_some(()))
    })
    .await?;
    let elapsed = begun.elapsed();
    admin.delete_topics(&[topic.to_owned()]).await?;
    Ok(elapsed)
}

/// Returns the time from the kill of a node until all of 1,000 partitions have leaders that are alive.
///
/// # Errors
/// A partition gets no leader in time.
pub(crate) async fn many_leaders(nodes: &mut Nodes, topic: &str) -> Result<Duration> {
    nodes.create(topic, MANY).await?;
    let admin = nodes.admin()?;
    let victim = NODES;
    let begun = Instant::now();
    nodes.kill(victim)?;
    until("leaders", async || {
        let found = partitions(&admin, topic).await?;
        Ok(found.iter().all(|one| one.leader.is_some_and(|id| usize::try_from(id) != Ok(victim))).then_some(()))
    })
    .await?;
    let elapsed = begun.elapsed();
    nodes.bring_back(victim, topic).await?;
    Ok(elapsed)
}
