//! Fetches of committed records beside fetches of all records.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millstream_client::ProducerRecord;
use millstream_record::BatchView;
use millstream_wire::Records;

use super::super::bench::Bench;
use super::super::figure::{Better, Figure, Line, number};
use super::transactional;
use crate::frames::{FETCH_VERSION, Range, fetch_frame, fetch_request, value};
use crate::measure::median;
use crate::nodes::Nodes;
use crate::replay::{Kind, call, connect, replay_all};

const TOPIC: &str = "committed";

/// The transactions in the log, and the records of 1 KiB in each. One of a hundred is aborted.
const TRANSACTIONS: usize = 1000;
const RECORDS: usize = 256;
const ABORTED: usize = 100;

/// The responses of 1 MiB that each connection reads, and the connections.
const FETCHES: usize = 1024;
const CONNECTIONS: usize = 4;

/// Measures both isolation levels on the same log.
pub(in super::super) async fn measure(bench: &mut Bench) -> Result<Vec<Figure>> {
    let (transactions, fetches) = (bench.part(TRANSACTIONS).max(ABORTED), bench.part(FETCHES));
    for nodes in bench.warm().await? {
        nodes.create(TOPIC, 1).await?;
        fill(nodes, transactions).await?;
    }
    let measured = bench
        .turns(async |nodes, turn| {
            let offsets = offsets(nodes)?;
            let mut costs = [0.0; 2];
            // Each level is the first of a turn in its turn.
            for place in [turn % 2, (turn + 1) % 2] {
                let committed = place == 1;
                let frame = |offset: &i64| fetch_frame(TOPIC, 0, Range { committed, ..Range::at(*offset) });
                let frames = offsets.iter().map(frame).collect::<Result<Vec<_>>>()?;
                let (computed, _) = (nodes.computed()?, Instant::now());
                let connections = vec![frames; CONNECTIONS];
                let bytes = replay_all(nodes.address(1), &connections, fetches, 1, Kind::Fetch)?.bytes;
                costs[place] = (nodes.computed()? - computed) / (bytes as f64 / 1e9);
            }
            let [all, committed] = costs;
            Ok([committed / all, committed, all])
        })
        .await?;
    for nodes in bench.warm().await? {
        nodes.delete(TOPIC).await?;
    }
    let line =
        Line { name: "read_committed over read_uncommitted: CPU-s/GB", unit: "", better: Better::Less, goal: "1.03" };
    let costs = |[committed, all]: [Vec<f64>; 2]| {
        format!("{} over {}", number(median(committed.into_iter())), number(median(all.into_iter())))
    };
    let mut note = format!("CPU-s/GB {}", costs([measured.ours(1), measured.ours(2)]));
    if !measured.kafka(1).is_empty() {
        note.push_str(&format!(", Kafka {}", costs([measured.kafka(1), measured.kafka(2)])));
    }
    note.push_str("; 1 % of the transactions aborted; responses of 1 MiB from all of the log");
    Ok(vec![measured.figure(0, line, note)])
}

/// Writes transactions, one of a hundred of which is aborted.
async fn fill(nodes: &Nodes, transactions: usize) -> Result<()> {
    let configs = [("batch.size", "262144"), ("linger.ms", "50")];
    let producer = transactional(nodes, TOPIC, &configs).await?;
    let value = value(0, 1024);
    for number in 0..transactions {
        producer.begin_transaction().await?;
        for _ in 0..RECORDS {
            producer.send_and_forget(ProducerRecord::new(TOPIC).partition(0).value(&value)).await?;
        }
        if number % ABORTED == ABORTED / 2 {
            producer.flush().await;
            producer.abort_transaction().await?;
        } else {
            producer.commit_transaction().await?;
        }
    }
    producer.close(Duration::from_secs(10)).await?;
    Ok(())
}

/// Returns the offsets at which responses of 1 MiB begin.
///
/// # Errors
/// The log has no aborted transaction, so that the row would show nothing.
fn offsets(nodes: &Nodes) -> Result<Vec<i64>> {
    let mut stream = connect(nodes.address(1))?;
    let (mut offsets, mut offset, mut aborted) = (Vec::new(), 0, 0);
    loop {
        let request = fetch_request(TOPIC, 0, Range { committed: true, ..Range::at(offset) });
        let response = call(&mut stream, FETCH_VERSION, &request)?;
        let partition = response.responses.into_iter().flat_map(|topic| topic.partitions).next();
        let partition = partition.context("a partition")?;
        ensure!(!partition.error_code.is_err(), "the broker rejects the fetch: {:?}", partition.error_code);
        aborted += partition.aborted_transactions.unwrap_or_default().len();
        let mut rest = match &partition.records {
            Records::Bytes(bytes) => &bytes[..],
            _ => &[],
        };
        let begin = offset;
        while let Ok(batch) = BatchView::parse(rest) {
            offset = batch.next_offset();
            rest = rest.get(batch.size()..).context("a whole batch")?;
        }
        if offset == begin {
            ensure!(aborted > 0, "no transaction was aborted");
            // The end of the log is not a whole response.
            offsets.pop();
            return Ok(offsets);
        }
        offsets.push(begin);
    }
}
