//! Measures the memory of decoding with the allocator. It never follows a claimed count or length, only the bytes that
//! really arrived.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use millstream_wire::messages::{DeleteTopicsRequest, FetchRequest, FetchResponse, MetadataRequest, ProduceRequest};
use millstream_wire::{Message, Records, WireErrorKind, codec};

use support::{ours, samples};

/// Counts what the thread of a test holds, so that tests may run in parallel.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // The counter is gone while a thread ends; nothing is measured then.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call goes to the system's allocator unchanged; counting neither allocates nor unwinds.
#[allow(unsafe_code, reason = "an allocator cannot be written without")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller upholds the contract, which is that of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above; the pointer came from it.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns the most that was held at once during the call, beyond what was held before, and the call's result.
fn peak<T>(run: impl FnOnce() -> T) -> (usize, T) {
    let before = HELD.get();
    PEAK.set(before);
    let result = run();
    ((PEAK.get() - before) as usize, result)
}

/// An empty compact string is one byte on the wire and 32 in memory, which is the largest factor of any message.
const DENSEST: usize = 32;

#[test]
fn lies_about_counts_cost_nothing() {
    for (bytes, version) in [(&[0x7f, 0xff, 0xff, 0xff, 0][..], 1), (&[0xff, 0xff, 0xff, 0xff, 0x0f, 0], 9)] {
        let body = Bytes::copy_from_slice(bytes);
        let (peak, result) = peak(|| codec::from_bytes::<MetadataRequest>(body, version).map(drop));
        assert!(result.is_err());
        assert!(peak < 1024, "{peak} bytes for a body of {}", bytes.len());
    }
}

/// The bytes at every place of each message in turn claim the largest count, of four bytes and as a varint.
#[test]
fn memory_follows_the_bytes_that_came() {
    let ours = ours();
    for sample in samples() {
        let (_, _, decode) = ours.iter().find(|(name, ..)| *name == sample.name).unwrap();
        for at in 0..sample.bytes.len() {
            for lie in [&[0x7f, 0xff, 0xff, 0xff][..], &[0xff, 0xff, 0xff, 0xff, 0x0f]] {
                let mut bytes = sample.bytes.to_vec();
                let end = bytes.len().min(at + lie.len());
                bytes[at..end].copy_from_slice(&lie[..end - at]);
                let bound = DENSEST * bytes.len() + 2048;
                let body = Bytes::from(bytes);
                let (peak, _) = peak(|| decode(body, sample.version));
                assert!(peak <= bound, "{} v{} at {at}: {peak} bytes, {bound} allowed", sample.name, sample.version);
            }
        }
    }
}

/// A frame of many small elements is rejected if they would take more than twice its length and 8 MiB.
#[test]
fn dense_frames_are_bounded() {
    let length: usize = 2 << 20;
    // Topic names of version 4: a compact count, then empty strings of one byte each.
    let mut body = vec![0x80 | ((length + 1) & 0x7f) as u8, 0x80 | (((length + 1) >> 7) & 0x7f) as u8];
    body.extend([0x80 | (((length + 1) >> 14) & 0x7f) as u8, ((length + 1) >> 21) as u8]);
    body.resize(length + 16, 1);
    let bound = (8 << 20) + 2 * body.len() + 4096;
    let body = Bytes::from(body);
    let (peak, result) = peak(|| codec::from_bytes::<DeleteTopicsRequest>(body, 4).map(drop));
    assert_eq!(result.unwrap_err().kind(), &WireErrorKind::Budget { count: length });
    assert!(peak <= bound, "{peak} bytes, {bound} allowed");
}

/// A Fetch for ten thousand partitions is a valid request.
#[test]
fn ten_thousand_partitions_fit() {
    let partitions = (0..10_000)
        .map(|partition| millstream_wire::messages::FetchPartition { partition, ..Default::default() })
        .collect();
    let topic = millstream_wire::messages::FetchTopic { topic: "orders".into(), partitions, ..Default::default() };
    let request = FetchRequest { topics: vec![topic], ..Default::default() };
    for version in 4..=12 {
        let bytes = codec::to_bytes(&request, version).unwrap();
        assert_eq!(codec::from_bytes::<FetchRequest>(bytes, version), Ok(request.clone()));
    }
}

/// The records of a Produce and of a Fetch response are not copied, neither on decoding nor on encoding.
#[test]
fn records_are_not_copied() {
    let records = Bytes::from(vec![7; 1 << 20]);
    let mut response = FetchResponse::default();
    response.responses.resize_with(1, Default::default);
    response.responses[0].partitions.resize_with(1, Default::default);
    response.responses[0].partitions[0].records = Records::Bytes(records.clone());
    let (out, frame) = peak(|| millstream_wire::frame::encode_response(1, 1, &response, 12).unwrap());
    assert!(out < 4096, "{out} bytes to encode");
    assert_eq!(frame.pieces.len(), 3);

    // A follower decodes the response: its records are a slice of the frame that arrived.
    let body = codec::to_bytes(&response, 12).unwrap();
    let (into, fetched) = peak(|| codec::from_bytes::<FetchResponse>(body.clone(), 12).unwrap());
    assert!(into < 4096, "{into} bytes to decode");
    let slice = fetched.responses[0].partitions[0].records.as_bytes().unwrap();
    assert_eq!(slice, &records);
    assert!(body.as_ptr_range().contains(&slice.as_ptr()), "the records lie outside the frame");

    let mut request = ProduceRequest::default();
    request.topic_data.resize_with(1, Default::default);
    request.topic_data[0].partition_data.resize_with(1, Default::default);
    request.topic_data[0].partition_data[0].records = Records::Bytes(records);
    let body = codec::to_bytes(&request, 9).unwrap();
    let (into, decoded) = peak(|| ProduceRequest::decode(&mut millstream_wire::Reader::new(body.clone()), 9).unwrap());
    assert!(into < 4096, "{into} bytes to decode");
    assert_eq!(decoded, request);
}
