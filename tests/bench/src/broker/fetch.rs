//! Fetch requests: large cached ranges, and single records that are waited for.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::Result;

use super::bench::{Bench, LARGE, SMALL};
use super::figure::{Better, Figure, Line};
use crate::frames::{Range, connections, fetch_frame, produce_frame};
use crate::replay::{Kind, check, connect, read_response, replay_all};

/// The connections that read, each from a partition of its own.
const CONNECTIONS: i32 = 4;

/// The batches that are stored in each partition.
const STORED: usize = 64;

/// The partitions of the row with long polls. Each has a connection that produces and one that fetches.
const POLLED: i32 = 16;

/// Measures responses of 1 MiB from the page cache.
pub(super) async fn raw(bench: &mut Bench) -> Result<Vec<Figure>> {
    let count = bench.part(2048);
    let topic = "raw-fetch";
    for nodes in bench.warm().await? {
        nodes.create(topic, CONNECTIONS).await?;
        let stored = connections(CONNECTIONS, |partition| produce_frame(LARGE, 1, topic, partition))?;
        replay_all(nodes.address(1), &stored, STORED, 8, Kind::Produce)?;
    }
    let connections = connections(CONNECTIONS, |partition| fetch_frame(topic, partition, Range::at(0)))?;
    let measured = bench
        .turns(async |nodes, _| {
            let (computed, begun) = (nodes.computed()?, Instant::now());
            let replayed = replay_all(nodes.address(1), &connections, count, 1, Kind::Fetch)?;
            let (computed, seconds) = (nodes.computed()? - computed, begun.elapsed().as_secs_f64());
            let gigabytes = replayed.bytes as f64 / 1e9;
            Ok([computed / gigabytes, gigabytes / seconds])
        })
        .await?;
    for nodes in bench.warm().await? {
        nodes.delete(topic).await?;
    }
    let cost =
        Line { name: "cached fetch of 1 MiB: CPU-s/GB", unit: "CPU-s/GB", better: Better::Less, goal: "0.12, 2.5 x" };
    let speed = Line { name: "cached fetch of 1 MiB: GB/s", unit: "GB/s", better: Better::More, goal: "8" };
    let note = "4 connections, one request at a time on each";
    Ok(vec![measured.figure(0, cost, note), measured.figure(1, speed, "the reader is on the same cores")])
}

/// Measures fetches that wait for one record of 100 B.
pub(super) async fn long_poll(bench: &mut Bench) -> Result<Vec<Figure>> {
    let rounds = bench.part(4000);
    let measured = bench
        .turns(async |nodes, turn| {
            let topic = format!("long-poll-{turn}");
            nodes.create(&topic, POLLED).await?;
            let mut polled = Polled::new(nodes.address(1), &topic)?;
            polled.rounds(0..rounds.div_ceil(10))?;
            let (computed, begun) = (nodes.computed()?, Instant::now());
            polled.rounds(rounds.div_ceil(10)..rounds)?;
            let fetches = ((rounds - rounds.div_ceil(10)) * POLLED as usize).max(1) as f64;
            let (computed, seconds) = (nodes.computed()? - computed, begun.elapsed().as_secs_f64());
            nodes.delete(&topic).await?;
            Ok([fetches / seconds, computed * 1e6 / fetches])
        })
        .await?;
    let rate =
        Line { name: "long poll of one record: requests/s", unit: "requests/s", better: Better::More, goal: "6 x" };
    let cost = Line { name: "long poll of one record: CPU-us", unit: "us", better: Better::Less, goal: "" };
    let note = "16 partitions; a fetch waits at each, then one record of 100 B is produced to each";
    Ok(vec![measured.figure(0, rate, note), measured.figure(1, cost, "a record produced and fetched")])
}

/// Connections that produce one record to each partition, and fetch it.
struct Polled {
    topic: String,
    producers: Vec<(TcpStream, Vec<u8>)>,
    consumers: Vec<TcpStream>,
}

impl Polled {
    fn new(address: SocketAddr, topic: &str) -> Result<Self> {
        let producer = |partition| Ok((connect(address)?, produce_frame(SMALL, 1, topic, partition)?));
        let producers = (0..POLLED).map(producer).collect::<Result<_>>()?;
        let consumers = (0..POLLED).map(|_| connect(address)).collect::<Result<_>>()?;
        Ok(Self { topic: topic.to_owned(), producers, consumers })
    }

    /// Asks for the next offset of every partition, produces one record to each, and reads all responses.
    fn rounds(&mut self, offsets: std::ops::Range<usize>) -> Result<()> {
        let mut response = vec![0; 4096];
        for offset in offsets {
            for (consumer, partition) in self.consumers.iter_mut().zip(0..) {
                let range = Range { bytes: 4096, ..Range::at(i64::try_from(offset)?) };
                consumer.write_all(&fetch_frame(&self.topic, partition, range)?)?;
            }
            for (producer, frame) in &mut self.producers {
                producer.write_all(frame)?;
            }
            for (producer, _) in &mut self.producers {
                let length = read_response(producer, &mut response)?;
                check(&response[..length], Kind::Produce)?;
            }
            for consumer in &mut self.consumers {
                let length = read_response(consumer, &mut response)?;
                check(&response[..length], Kind::Fetch)?;
            }
        }
        Ok(())
    }
}
