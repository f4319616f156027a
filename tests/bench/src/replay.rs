//! Sends encoded requests again and again, so that the load costs far less than the broker.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use millstream_wire::frame::{decode_response, encode_request};
use millstream_wire::messages::{FetchRequest, ProduceRequest};
use millstream_wire::{Request, RequestHeader};

use crate::frames::{FETCH_VERSION, PRODUCE_VERSION};

/// How long a broker may take for a response. A JVM on a busy machine is slow.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(120);

/// The requests of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Produce,
    Fetch,
}

/// What a load has sent and received.
pub(crate) struct Replayed {
    /// The bytes of the requests or of the responses, whichever are more.
    pub(crate) bytes: usize,
    /// From a request to its response, in microseconds.
    pub(crate) latencies: Histogram<u64>,
}

/// Keeps `in_flight` requests on one connection until `count` responses have arrived. The requests take turns. The last
/// response must report success.
///
/// # Errors
/// The broker closes the connection, does not respond in time, or rejects the last request.
pub(crate) fn replay(
    address: SocketAddr,
    frames: &[Vec<u8>],
    count: usize,
    in_flight: usize,
    kind: Kind,
) -> Result<Replayed> {
    let mut stream = connect(address)?;
    let mut latencies = latencies()?;
    let (mut sent, mut received, mut bytes_sent, mut bytes_received) = (0, 0, 0, 0);
    let mut times = VecDeque::with_capacity(in_flight);
    let mut response = vec![0; 2 << 20];
    // Small frames go out together, as a client that pipelines writes them.
    let burst = if frames.len() == 1 && frames[0].len() < 4096 { (in_flight / 2).max(1) } else { 1 };
    let repeated = if burst > 1 { frames[0].repeat(burst) } else { Vec::new() };
    while received < count {
        while sent < count && sent + burst <= received + in_flight {
            let now = burst.min(count - sent);
            let frame = &frames[sent % frames.len()];
            let out = if burst > 1 { &repeated[..frame.len() * now] } else { frame };
            times.extend(std::iter::repeat_n(Instant::now(), now));
            stream.write_all(out)?;
            bytes_sent += out.len();
            sent += now;
        }
        for _ in 0..burst.min(sent - received) {
            let length = read_response(&mut stream, &mut response)?;
            let begun = times.pop_front().context("a request")?;
            latencies.saturating_record(u64::try_from(begun.elapsed().as_micros())?);
            received += 1;
            bytes_received += length;
            if received == count {
                check(&response[..length], kind)?;
            }
        }
    }
    Ok(Replayed { bytes: bytes_sent.max(bytes_received), latencies })
}

/// Runs [`replay`] for each list of frames on a connection of its own, all at once.
///
/// # Errors
/// As [`replay`].
pub(crate) fn replay_all(
    address: SocketAddr,
    connections: &[Vec<Vec<u8>>],
    count: usize,
    in_flight: usize,
    kind: Kind,
) -> Result<Replayed> {
    let mut all = Replayed { bytes: 0, latencies: latencies()? };
    thread::scope(|scope| -> Result<()> {
        let send = |frames| scope.spawn(move || replay(address, frames, count, in_flight, kind));
        let threads: Vec<_> = connections.iter().map(|frames| send(frames)).collect();
        for thread in threads {
            let one = thread.join().expect("the load does not panic")?;
            all.bytes += one.bytes;
            all.latencies.add(one.latencies)?;
        }
        Ok(())
    })?;
    Ok(all)
}

/// Returns an empty histogram of microseconds up to two minutes, exact to a thousandth.
pub(crate) fn latencies() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_max(120_000_000, 3)?)
}

/// Connects to a broker.
///
/// # Errors
/// The broker cannot be reached.
pub(crate) fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
    Ok(stream)
}

/// Sends one request and waits for its response.
///
/// # Errors
/// The broker closes the connection, or its response cannot be read.
pub(crate) fn call<R: Request>(stream: &mut TcpStream, version: i16, request: &R) -> Result<R::Response> {
    let header = RequestHeader::new(R::KEY, version, 1, Some("load".into()));
    stream.write_all(&encode_request(&header, request)?.into_bytes().context("a frame without holes")?)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length))?];
    stream.read_exact(&mut frame)?;
    Ok(decode_response::<R>(Bytes::from(frame), version)?.1)
}

/// Reads one response. Returns its length.
///
/// # Errors
/// The connection ends, or the response is larger than the buffer.
pub(crate) fn read_response(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<usize> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(i32::from_be_bytes(length))?;
    ensure!(length <= buffer.len(), "a response of {length} bytes");
    stream.read_exact(&mut buffer[..length])?;
    Ok(length)
}

/// Checks that every partition of a response reports success.
///
/// # Errors
/// The response cannot be read, or reports an error.
pub(crate) fn check(response: &[u8], kind: Kind) -> Result<()> {
    let bytes = Bytes::copy_from_slice(response);
    let codes: Vec<_> = match kind {
        Kind::Fetch => {
            let (_, body) = decode_response::<FetchRequest>(bytes, FETCH_VERSION)?;
            body.responses.iter().flat_map(|topic| &topic.partitions).map(|one| one.error_code).collect()
        }
        Kind::Produce => {
            let (_, body) = decode_response::<ProduceRequest>(bytes, PRODUCE_VERSION)?;
            body.responses.iter().flat_map(|topic| &topic.partition_responses).map(|one| one.error_code).collect()
        }
    };
    ensure!(!codes.is_empty() && !codes.iter().any(|code| code.is_err()), "the broker rejects the load: {codes:?}");
    Ok(())
}
