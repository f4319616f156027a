//! Work at full speed and at a steady rate: acks=all from encoded frames, to the leaders of three partitions.

use std::io::Write;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millstream_record::Codec;

use super::NODES;
use crate::frames::{Batch, produce_frame};
use crate::nodes::{Nodes, partitions};
use crate::pace::wait_until;
use crate::replay::{Kind, check, connect, read_response, replay};

/// A request of about 256 KiB.
const LARGE: Batch = Batch { records: 248, value_bytes: 1024, codec: Codec::None };
const LARGE_IN_FLIGHT: usize = 8;

/// The records of a request at the steady rate, and the requests of a second.
const STEADY: Batch = Batch { records: 5, value_bytes: 1024, codec: Codec::None };
const STEADY_REQUESTS_A_SECOND: u32 = 1000;

/// What sending at full speed has cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Throughput {
    /// Seconds of processor time of all nodes for each gigabyte that clients have sent.
    pub(crate) computed: f64,
    pub(crate) megabytes_a_second: f64,
}

/// Sends this many bytes, on a topic of its own.
///
/// # Errors
/// The topic cannot be created, or a node rejects a request.
pub(crate) async fn full_speed(nodes: &Nodes, topic: &str, bytes: usize) -> Result<Throughput> {
    let frames = frames(nodes, topic, LARGE).await?;
    let count = bytes / frames[0].1.len() / frames.len();
    let (computed, begun) = (nodes.computed()?, Instant::now());
    let sent = send_all(&frames, count)?;
    let (computed, elapsed) = (nodes.computed()? - computed, begun.elapsed().as_secs_f64());
    nodes.admin()?.delete_topics(&[topic.to_owned()]).await?;
    let gigabytes = sent as f64 / 1e9;
    Ok(Throughput { computed: computed / gigabytes, megabytes_a_second: 1000.0 * gigabytes / elapsed })
}

/// Sends this many bytes to a topic that exists, one connection for each partition.
///
/// # Errors
/// A node rejects a request.
pub(crate) async fn fill(nodes: &Nodes, topic: &str, bytes: usize) -> Result<()> {
    let found = partitions(&nodes.admin()?, topic).await?;
    let frames = frames_of(nodes, topic, &found, LARGE)?;
    send_all(&frames, bytes / frames[0].1.len() / frames.len())?;
    Ok(())
}

fn send_all(frames: &[(SocketAddr, Vec<u8>)], count: usize) -> Result<usize> {
    thread::scope(|scope| {
        let send = |(address, frame): &(SocketAddr, Vec<u8>)| -> Result<usize> {
            Ok(replay(*address, std::slice::from_ref(frame), count, LARGE_IN_FLIGHT, Kind::Produce)?.bytes)
        };
        let threads: Vec<_> = frames.iter().map(|frame| scope.spawn(move || send(frame))).collect();
        threads.into_iter().map(|thread| thread.join().expect("the load does not panic")).sum()
    })
}

/// Creates a topic, and returns a request for each partition.
async fn frames(nodes: &Nodes, topic: &str, batch: Batch) -> Result<Vec<(SocketAddr, Vec<u8>)>> {
    let partitions = nodes.create(topic, i32::try_from(NODES)?).await?;
    frames_of(nodes, topic, &partitions, batch)
}

/// Returns a request for each partition, with the address of its leader.
fn frames_of(
    nodes: &Nodes,
    topic: &str,
    partitions: &[millstream_client::PartitionDescription],
    batch: Batch,
) -> Result<Vec<(SocketAddr, Vec<u8>)>> {
    let frame = |one: &millstream_client::PartitionDescription| {
        let leader = usize::try_from(one.leader.context("the partition has a leader")?)?;
        Ok((nodes.address(leader), produce_frame(batch, -1, topic, one.partition)?))
    };
    partitions.iter().map(frame).collect()
}

/// Sends 5,000 records of 1 KiB a second, whether or not responses come in time. Returns the time from the moment at
/// which each request was due to its response, in ascending order.
///
/// # Errors
/// The topic cannot be created, or a node rejects a request.
pub(crate) async fn steady(nodes: &Nodes, topic: &str, seconds: u32) -> Result<Vec<Duration>> {
    let frames = frames(nodes, topic, STEADY).await?;
    let each = (STEADY_REQUESTS_A_SECOND * seconds) as usize / frames.len();
    let mut streams = frames.iter().map(|(address, _)| connect(*address)).collect::<Result<Vec<_>>>()?;
    let begun = Instant::now() + Duration::from_millis(10);
    let step = Duration::from_secs(1) / STEADY_REQUESTS_A_SECOND;
    let due = move |place: usize, number: usize| begun + step * u32::try_from(number * NODES + place).unwrap_or(0);
    let mut latencies = thread::scope(|scope| -> Result<Vec<Duration>> {
        let mut readers = Vec::new();
        for (place, stream) in streams.iter().enumerate() {
            let mut stream = stream.try_clone()?;
            readers.push(scope.spawn(move || -> Result<Vec<Duration>> {
                let mut response = vec![0; 4096];
                let mut latencies = Vec::with_capacity(each);
                for number in 0..each {
                    let length = read_response(&mut stream, &mut response)?;
                    latencies.push(due(place, number).elapsed());
                    check(&response[..length], Kind::Produce)?;
                }
                Ok(latencies)
            }));
        }
        send_on_time(&mut streams, &frames, each, due)?;
        let mut all = Vec::new();
        for reader in readers {
            all.extend(reader.join().expect("a reader does not panic")?);
        }
        Ok(all)
    })?;
    ensure!(!latencies.is_empty(), "nothing was sent");
    latencies.sort_unstable();
    nodes.admin()?.delete_topics(&[topic.to_owned()]).await?;
    Ok(latencies)
}

fn send_on_time(
    streams: &mut [std::net::TcpStream],
    frames: &[(SocketAddr, Vec<u8>)],
    each: usize,
    due: impl Fn(usize, usize) -> Instant,
) -> Result<()> {
    for number in 0..each {
        for (place, (stream, (_, frame))) in streams.iter_mut().zip(frames).enumerate() {
            wait_until(due(place, number));
            stream.write_all(frame)?;
        }
    }
    Ok(())
}

/// Returns the MB/s of clients that the disk could take, if three nodes did nothing but write and sync.
///
/// Each node has the logs of three partitions. All that is in flight of a partition is one write and one sync.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn disk_alone() -> Result<f64> {
    const LOGS: usize = NODES * NODES;
    const WRITE: usize = LARGE_IN_FLIGHT * (256 << 10);
    const WRITES: usize = 160;
    let begun = Instant::now();
    thread::scope(|scope| {
        let log = || -> Result<()> {
            let mut file = tempfile::tempfile()?;
            let bytes = vec![1; WRITE];
            for _ in 0..WRITES {
                file.write_all(&bytes)?;
                file.sync_data()?;
            }
            Ok(())
        };
        let logs: Vec<_> = (0..LOGS).map(|_| scope.spawn(log)).collect();
        logs.into_iter().try_for_each(|log| log.join().expect("no panic"))
    })?;
    // Each byte of a client is written by every node.
    let bytes = LOGS * WRITES * WRITE / NODES;
    Ok(bytes as f64 / 1e6 / begun.elapsed().as_secs_f64())
}
