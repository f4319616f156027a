//! Encodes requests that a load sends again and again.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use millstream_record::{BatchBuilder, Codec, Header, TimestampType};
use millstream_wire::frame::encode_request;
use millstream_wire::messages::{
    FetchPartition, FetchRequest, FetchTopic, PartitionProduceData, ProduceRequest, TopicProduceData,
};
use millstream_wire::{Records, Request, RequestHeader};

/// The versions of the requests: the newest that name topics by name.
pub(crate) const PRODUCE_VERSION: i16 = 12;
pub(crate) const FETCH_VERSION: i16 = 12;

/// The most bytes of a response to a Fetch request.
pub(crate) const FETCH_BYTES: i32 = 1 << 20;

/// The records of a Produce request, one batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch {
    pub(crate) records: usize,
    pub(crate) value_bytes: usize,
    pub(crate) codec: Codec,
}

/// What a Fetch request asks of a partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    pub(crate) offset: i64,
    pub(crate) bytes: i32,
    /// Whether only committed records are wanted.
    pub(crate) committed: bool,
}

impl Range {
    /// Returns the range that begins at this offset, of 1 MiB and with all records.
    pub(crate) fn at(offset: i64) -> Self {
        Self { offset, bytes: FETCH_BYTES, committed: false }
    }
}

/// Returns a Produce request with one batch.
///
/// # Errors
/// The batch cannot be encoded.
pub(crate) fn produce_frame(batch: Batch, acks: i16, topic: &str, partition: i32) -> Result<Vec<u8>> {
    let mut builder = BatchBuilder::new(batch.codec, TimestampType::CreateTime);
    let now = now()?;
    for row in 0..batch.records {
        builder.append(now, None, Some(&value(row, batch.value_bytes)), std::iter::empty::<Header<'_>>())?;
    }
    batch_frame(builder, acks, topic, partition)
}

/// Returns a Produce request with a batch that has been filled.
///
/// # Errors
/// The batch cannot be encoded.
pub(crate) fn batch_frame(builder: BatchBuilder, acks: i16, topic: &str, partition: i32) -> Result<Vec<u8>> {
    frame(&produce_request(builder, acks, topic, partition)?, PRODUCE_VERSION)
}

/// Returns a Produce request with a batch that has been filled, not encoded yet.
///
/// # Errors
/// The batch cannot be built.
pub(crate) fn produce_request(builder: BatchBuilder, acks: i16, topic: &str, partition: i32) -> Result<ProduceRequest> {
    let records = Records::Bytes(builder.build()?.into());
    let partition_data = vec![PartitionProduceData { index: partition, records }];
    let topic_data = vec![TopicProduceData { name: topic.into(), partition_data, ..Default::default() }];
    Ok(ProduceRequest { acks, timeout_ms: 30_000, topic_data, ..Default::default() })
}

/// Returns a Fetch request for a range of a partition, which waits half a second for a record.
///
/// # Errors
/// It cannot be encoded.
pub(crate) fn fetch_frame(topic: &str, partition: i32, range: Range) -> Result<Vec<u8>> {
    frame(&fetch_request(topic, partition, range), FETCH_VERSION)
}

/// Returns the request of [`fetch_frame`], not encoded yet.
pub(crate) fn fetch_request(topic: &str, partition: i32, range: Range) -> FetchRequest {
    let Range { offset: fetch_offset, bytes, committed } = range;
    let partition = FetchPartition { partition, fetch_offset, partition_max_bytes: bytes, ..Default::default() };
    let topics = vec![FetchTopic { topic: topic.into(), partitions: vec![partition], ..Default::default() }];
    FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: bytes,
        isolation_level: i8::from(committed),
        topics,
        ..Default::default()
    }
}

/// Returns the frames of one connection for each partition, which sends the same frame again and again.
///
/// # Errors
/// A frame cannot be encoded.
pub(crate) fn connections(partitions: i32, frame: impl Fn(i32) -> Result<Vec<u8>>) -> Result<Vec<Vec<Vec<u8>>>> {
    (0..partitions).map(|partition| Ok(vec![frame(partition)?])).collect()
}

/// Returns a value that is half random, so that a codec has work to do and does not compress it all away.
pub(crate) fn value(row: usize, bytes: usize) -> Vec<u8> {
    let mut value = vec![b'v'; bytes];
    value.iter_mut().step_by(2).enumerate().for_each(|(at, byte)| *byte = (row * 31 + at * 17 + at * at) as u8);
    value
}

/// Returns the time in milliseconds since the epoch.
///
/// # Errors
/// The clock is wrong.
pub(crate) fn now() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}

fn frame<R: Request>(request: &R, version: i16) -> Result<Vec<u8>> {
    let header = RequestHeader::new(R::KEY, version, 1, Some("load".into()));
    let bytes = encode_request(&header, request)?.into_bytes().context("a frame without holes")?;
    Ok(bytes.to_vec())
}
