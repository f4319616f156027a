//! The time from the moment at which records are due to be sent until a consumer has them, open loop: a sender that is
//! delayed does not shift the times of what follows.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use millstream_record::{BatchView, Codec};
use millstream_wire::Records;

use super::bench::Bench;
use super::figure::{Better, Figure, Line, number};
use crate::frames::{Batch, FETCH_VERSION, Range, fetch_request, produce_frame};
use crate::measure::median;
use crate::pace::wait_until;
use crate::replay::{Kind, call, check, connect, latencies, read_response};

/// The records of a request, and the requests of a second: 20,000 records a second.
const REQUEST: Batch = Batch { records: 20, value_bytes: 1024, codec: Codec::None };
const REQUESTS_A_SECOND: u32 = 1000;

/// The time that is not measured, and the time that is.
const WARM_UP_SECONDS: usize = 5;
const SECONDS: usize = 15;

/// Measures 20,000 records a second of 1 KiB, from a producer to a consumer.
pub(super) async fn measure(bench: &mut Bench) -> Result<Vec<Figure>> {
    let [warm_up, count] = [WARM_UP_SECONDS, SECONDS].map(|time| bench.part(time * REQUESTS_A_SECOND as usize));
    let measured = bench
        .turns(async |nodes, turn| {
            let topic = format!("end-to-end-{turn}");
            nodes.create(&topic, 1).await?;
            // What was written before is not written back meanwhile.
            rustix::fs::sync();
            let times = stream(nodes.address(1), &topic, warm_up, count)?;
            nodes.delete(&topic).await?;
            Ok([0.5, 0.99, 0.999].map(|share| times.value_at_quantile(share) as f64))
        })
        .await?;
    let line = |name, goal| Line { name, unit: "us", better: Better::Less, goal };
    let mut note = "20 records a request, 1,000 requests a second; the load is on the same cores".to_owned();
    let p999 = |turns: Vec<f64>| number(median(turns.into_iter()));
    note.push_str(&format!("; p99.9 {}", p999(measured.ours(2))));
    if !measured.kafka(2).is_empty() {
        note.push_str(&format!(", Kafka {}", p999(measured.kafka(2))));
    }
    Ok(vec![
        measured.figure(0, line("end to end at 20,000 records/s: p50, us", "120"), "1 KiB, acks=1, open loop"),
        measured.figure(1, line("end to end at 20,000 records/s: p99, us", "400, 5 x"), note),
    ])
}

/// Sends requests on time, while a consumer waits for what is new. Returns the times of all requests but the first.
fn stream(address: SocketAddr, topic: &str, warm_up: usize, count: usize) -> Result<Histogram<u64>> {
    let frame = produce_frame(REQUEST, 1, topic, 0)?;
    let total = warm_up + count;
    let mut producer = connect(address)?;
    let (acknowledgements, consumer) = (producer.try_clone()?, connect(address)?);
    let begun = Instant::now() + Duration::from_millis(20);
    let step = Duration::from_secs(1) / REQUESTS_A_SECOND;
    let due = move |request: usize| begun + step * u32::try_from(request).unwrap_or(u32::MAX);
    thread::scope(|scope| {
        let acknowledged = scope.spawn(move || acknowledged(acknowledgements, total));
        let consumed = scope.spawn(move || consume(consumer, topic, warm_up, total, due));
        for request in 0..total {
            wait_until(due(request));
            producer.write_all(&frame)?;
        }
        acknowledged.join().expect("no panic")?;
        consumed.join().expect("no panic")
    })
}

/// Reads the responses to all requests.
fn acknowledged(mut stream: TcpStream, count: usize) -> Result<()> {
    let mut response = vec![0; 4096];
    for _ in 0..count {
        let length = read_response(&mut stream, &mut response)?;
        check(&response[..length], Kind::Produce)?;
    }
    Ok(())
}

/// Fetches until the records of all requests have come. The offset of a record tells its request.
fn consume(
    mut stream: TcpStream,
    topic: &str,
    warm_up: usize,
    total: usize,
    due: impl Fn(usize) -> Instant,
) -> Result<Histogram<u64>> {
    let mut times = latencies()?;
    let (mut offset, mut request) = (0, 0);
    while request < total {
        let response = call(&mut stream, FETCH_VERSION, &fetch_request(topic, 0, Range::at(offset)))?;
        let arrived = Instant::now();
        let partition = response.responses.into_iter().flat_map(|topic| topic.partitions).next();
        let partition = partition.context("a partition")?;
        ensure!(!partition.error_code.is_err(), "the broker rejects the fetch: {:?}", partition.error_code);
        let Records::Bytes(records) = partition.records else { continue };
        offset = next_offset(&records)?.unwrap_or(offset);
        while request < total && i64::try_from((request + 1) * REQUEST.records)? <= offset {
            if request >= warm_up {
                let time = arrived.saturating_duration_since(due(request));
                times.saturating_record(u64::try_from(time.as_micros())?);
            }
            request += 1;
        }
    }
    Ok(times)
}

/// Returns the offset after the last batch that is complete.
fn next_offset(records: &Bytes) -> Result<Option<i64>> {
    let (mut rest, mut next) = (&records[..], None);
    while let Ok(batch) = BatchView::parse(rest) {
        next = Some(batch.next_offset());
        rest = rest.get(batch.size()..).context("a whole batch")?;
    }
    Ok(next)
}
