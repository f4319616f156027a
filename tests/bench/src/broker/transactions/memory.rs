//! What the broker keeps of each transactional id, and of each open transaction.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use millstream_record::{BatchBuilder, Codec, TimestampType};
use millstream_wire::ErrorCode;
use millstream_wire::messages::{FindCoordinatorRequest, InitProducerIdRequest, InitProducerIdResponse};

use super::super::bench::Bench;
use super::super::figure::{Better, Figure, Line};
use crate::frames::{PRODUCE_VERSION, now, produce_request};
use crate::process::{self, Memory};
use crate::replay::{call, connect};

const TOPIC: &str = "open";
const IDS: usize = 10_000;

const INIT_VERSION: i16 = 4;
const FIND_VERSION: i16 = 4;

/// The coordinator type of transactions in FindCoordinator.
const TRANSACTION: i8 = 1;

/// How long the coordinators may take to be found.
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures our broker: the heap of a JVM does not tell what each part of it takes.
pub(in super::super) async fn measure(bench: &mut Bench) -> Result<Vec<Figure>> {
    let ids = bench.part(IDS);
    let nodes = bench.start_ours(&[("transaction.max.timeout.ms", "3600000")]).await?;
    nodes.create(TOPIC, 1).await?;
    let process = nodes.process_id(1)?;
    let mut stream = connect(nodes.address(1))?;
    // The coordinators are ready, and every path has been taken.
    let warm_up = ids.div_ceil(10);
    let known = register(&mut stream, "warm-up", warm_up)?;
    open(&mut stream, "warm-up", &known)?;
    let mut sizes = Vec::new();
    let mut before = process::memory(process, Memory::Anonymous)? as f64;
    let mut grown = || -> Result<f64> {
        let now = process::memory(process, Memory::Anonymous)? as f64;
        let grown = (now - before) / ids as f64;
        before = now;
        Ok(grown)
    };
    let known = register(&mut stream, "id", ids)?;
    sizes.push(grown()?);
    open(&mut stream, "id", &known)?;
    sizes.push(grown()?);
    let line = |name, goal| Line { name, unit: "B", better: Better::Less, goal };
    let note = "growth of the heap over 10,000 of them, each with one record in one partition";
    Ok(vec![
        Figure::new(line("memory of an open transaction: B", "2,048"), vec![sizes[1]], Vec::new(), note),
        Figure::new(
            line("memory of a known transactional id: B", "512"),
            vec![sizes[0]],
            Vec::new(),
            "growth of the heap over 10,000 of them, without a transaction",
        ),
    ])
}

/// Registers transactional ids, and returns the producer id and epoch of each.
fn register(stream: &mut TcpStream, prefix: &str, count: usize) -> Result<Vec<(i64, i16)>> {
    let mut known = Vec::with_capacity(count);
    for number in 0..count {
        let id = format!("{prefix}-{number}");
        let request = InitProducerIdRequest {
            transactional_id: Some(id.as_str().into()),
            transaction_timeout_ms: 3_600_000,
            ..Default::default()
        };
        let begun = Instant::now();
        let response = loop {
            let response: InitProducerIdResponse = call(stream, INIT_VERSION, &request)?;
            if response.error_code == ErrorCode::NONE {
                break response;
            }
            ensure!(begun.elapsed() < PATIENCE, "no producer id for {id}: {:?}", response.error_code);
            let find = FindCoordinatorRequest {
                key_type: TRANSACTION,
                coordinator_keys: vec![id.as_str().into()],
                ..Default::default()
            };
            call(stream, FIND_VERSION, &find)?;
        };
        known.push((response.producer_id, response.producer_epoch));
    }
    Ok(known)
}

/// Opens a transaction of each producer, with one record.
fn open(stream: &mut TcpStream, prefix: &str, producers: &[(i64, i16)]) -> Result<()> {
    for (number, (id, epoch)) in producers.iter().enumerate() {
        let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
        builder.append(now()?, None, Some(&[b'v'; 100]), [])?;
        builder.producer(*id, *epoch, 0).transactional(true);
        let mut request = produce_request(builder, 1, TOPIC, 0)?;
        request.transactional_id = Some(format!("{prefix}-{number}").as_str().into());
        let response = call(stream, PRODUCE_VERSION, &request)?;
        let partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
        for partition in partitions {
            ensure!(!partition.error_code.is_err(), "no record of {prefix}-{number}: {:?}", partition.error_code);
        }
    }
    Ok(())
}
