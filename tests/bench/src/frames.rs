//! Encoded requests that are sent again and again, so that the load costs far less than the broker.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use millstream_record::{BatchBuilder, Codec, Header, TimestampType};
use millstream_wire::frame::{decode_response, encode_request};
use millstream_wire::messages::{
    FetchPartition, FetchRequest, FetchTopic, PartitionProduceData, ProduceRequest, TopicProduceData,
};
use millstream_wire::{Records, Request, RequestHeader};

/// How long a broker may take to start and to respond.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// The versions of the requests: the newest that name topics by name.
const PRODUCE_VERSION: i16 = 12;
const FETCH_VERSION: i16 = 12;

/// The records of a Produce request, one batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch {
    pub(crate) records: usize,
    pub(crate) value_bytes: usize,
    pub(crate) codec: Codec,
}

/// Keeps `in_flight` requests on one connection until `count` responses have arrived. The last one must report success.
/// Returns the bytes that were sent or received.
///
/// # Errors
/// The broker closes the connection, does not respond in time, or rejects a request.
pub(crate) fn replay(
    address: SocketAddr,
    frame: &[u8],
    count: usize,
    in_flight: usize,
    fetches: bool,
) -> Result<usize> {
    let mut stream = connect(address)?;
    let (mut sent, mut received, mut bytes) = (0, 0, 0);
    let mut response = vec![0; 2 << 20];
    // Small frames go out together, as a client that pipelines writes them.
    let burst = if frame.len() < 4096 { (in_flight / 2).max(1) } else { 1 };
    let frames = frame.repeat(burst);
    while received < count {
        while sent < count && sent + burst <= received + in_flight {
            let now = burst.min(count - sent);
            stream.write_all(&frames[..frame.len() * now])?;
            sent += now;
        }
        for _ in 0..burst.min(sent - received) {
            let length = read_response(&mut stream, &mut response)?;
            received += 1;
            bytes += length;
            if received == count {
                check(&response[..length], fetches)?;
            }
        }
    }
    Ok(bytes.max(frame.len() * count))
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

/// Checks that every partition of a response reports success.
///
/// # Errors
/// The response cannot be read, or reports an error.
pub(crate) fn check(response: &[u8], fetches: bool) -> Result<()> {
    let bytes = Bytes::copy_from_slice(response);
    let codes: Vec<_> = if fetches {
        let (_, body) = decode_response::<FetchRequest>(bytes, FETCH_VERSION)?;
        body.responses.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code).collect()
    } else {
        let (_, body) = decode_response::<ProduceRequest>(bytes, PRODUCE_VERSION)?;
        body.responses.iter().flat_map(|topic| &topic.partition_responses).map(|one| one.error_code).collect()
    };
    ensure!(!codes.is_empty() && !codes.iter().any(|code| code.is_err()), "the broker rejects the load: {codes:?}");
    Ok(())
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

/// Returns a Produce request with one batch.
///
/// # Errors
/// The batch cannot be encoded.
pub(crate) fn produce_frame(batch: Batch, acks: i16, topic: &str, partition: i32) -> Result<Vec<u8>> {
    let mut builder = BatchBuilder::new(batch.codec, TimestampType::CreateTime);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
    for row in 0..batch.records {
        // Half random, so that a codec has work to do and does not compress it all away.
        let mut value = vec![b'v'; batch.value_bytes];
        value.iter_mut().step_by(2).enumerate().for_each(|(at, byte)| *byte = (row * 31 + at * 17 + at * at) as u8);
        builder.append(i64::try_from(now)?, None, Some(&value), std::iter::empty::<Header<'_>>())?;
    }
    let records = Records::Bytes(builder.build()?.into());
    let partition_data = vec![PartitionProduceData { index: partition, records }];
    let topic_data = vec![TopicProduceData { name: topic.into(), partition_data, ..Default::default() }];
    frame(&ProduceRequest { acks, timeout_ms: 30_000, topic_data, ..Default::default() }, PRODUCE_VERSION)
}

/// Returns a Fetch request for the start of a partition.
///
/// # Errors
/// It cannot be encoded.
pub(crate) fn fetch_frame(topic: &str, partition: i32) -> Result<Vec<u8>> {
    let partition = FetchPartition { partition, partition_max_bytes: 1 << 20, ..Default::default() };
    let topics = vec![FetchTopic { topic: topic.into(), partitions: vec![partition], ..Default::default() }];
    let request = FetchRequest { max_wait_ms: 500, min_bytes: 1, max_bytes: 1 << 20, topics, ..Default::default() };
    frame(&request, FETCH_VERSION)
}

fn frame<R: Request>(request: &R, version: i16) -> Result<Vec<u8>> {
    let header = RequestHeader::new(R::KEY, version, 1, Some("load".into()));
    let bytes = encode_request(&header, request)?.into_bytes().context("a frame without holes")?;
    Ok(bytes.to_vec())
}
