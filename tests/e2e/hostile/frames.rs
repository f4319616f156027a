//! Rows 1 to 4 and 6 to 11: frames and their headers.

use std::time::{Duration, Instant};
use std::{net::TcpStream, thread};

use bytes::Bytes;
use millstream_tests::{Broker, wait_until};
use millstream_wire::messages::{ApiVersionsRequest, ApiVersionsResponse};
use millstream_wire::{ApiKey, ErrorCode, Message, Reader};

use super::Victim;
use crate::support::{Memory, Neighbour, Raw, batch, open_files, request};

const MIB: usize = 1 << 20;

/// Checks that an invalid frame length ends the connection, although the client sends nothing more and waits.
fn closes_on_length(length: i32, settings: &[(&str, &str)]) {
    let mut victim = Victim::with(settings, &[]);
    let memory = victim.memory();
    for more in [&[][..], &[0; 100]] {
        let mut raw = Raw::connect(&victim.broker);
        raw.write(&[&length.to_be_bytes()[..], more].concat());
        raw.assert_closed(&format!("length {length}"));
    }
    // The same within a conversation.
    victim.raw.write(&length.to_be_bytes());
    victim.raw.assert_closed(&format!("length {length} after sound requests"));
    victim.raw = Raw::connect(&victim.broker);
    memory.assert_grew_less_than(16 * MIB, &format!("length {length}"));
    victim.is_well(&format!("length {length}"));
}

#[test]
fn row_01_a_negative_frame_length() {
    closes_on_length(-1, &[]);
    closes_on_length(i32::MIN, &[]);
}

#[test]
fn row_02_a_frame_length_of_zero() {
    closes_on_length(0, &[]);
}

#[test]
fn row_03_the_largest_frame_length() {
    closes_on_length(i32::MAX, &[]);
}

#[test]
fn row_04_one_byte_over_the_cap() {
    closes_on_length(100 * MIB as i32 + 1, &[]);
    closes_on_length(MIB as i32 + 1, &[("socket.request.max.bytes", "1048576")]);
}

#[test]
fn row_04_a_request_of_exactly_the_cap_is_served() {
    let mut victim = Victim::with(&[("socket.request.max.bytes", "1048576")], &[]);
    // Bytes after the end of a request are ignored; see row 17.
    let head = request(ApiKey::ApiVersions, 0, 77, &[]).len();
    let frame = request(ApiKey::ApiVersions, 0, 77, &vec![0; MIB + 4 - head]);
    assert_eq!(frame.len(), MIB + 4);
    victim.raw.write(&frame);
    let answer = victim.raw.read_frame().expect("a response");
    assert_eq!(answer[..4], 77_i32.to_be_bytes());
    victim.is_well("a request of exactly the cap");
}

/// Opens a connection, announces a request of this length, and sends its first bytes.
fn claim(victim: &Victim, length: usize) -> Raw {
    let mut raw = Raw::connect(&victim.broker);
    let mut frame = request(ApiKey::Produce, 9, 1, &[0; 40_000]);
    frame[..4].copy_from_slice(&(length as i32).to_be_bytes());
    raw.write(&frame);
    raw
}

#[test]
fn rows_01_to_04_an_announced_length_takes_no_memory() {
    let mut victim = Victim::start();
    let memory = victim.memory();
    let claims: Vec<Raw> = (0..20).map(|_| claim(&victim, 90 * MIB)).collect();
    victim.is_well("20 claims of 90 MiB");
    memory.assert_grew_less_than(64 * MIB, "20 claims of 90 MiB, little sent of each");
    drop(claims);
}

/// Clients that only announce large requests must not take the memory from those that send them.
#[test]
fn rows_01_to_04_announced_requests_do_not_block_real_ones() {
    let mut victim = Victim::start();
    let claims: Vec<Raw> = (0..50).map(|_| claim(&victim, 90 * MIB)).collect();
    let start = Instant::now();
    let large = "x".repeat(1_000_000);
    for _ in 0..5 {
        victim.topic.produce(&mut victim.raw, batch(&[&large]));
    }
    assert!(start.elapsed() < Duration::from_secs(5), "5 MB took {:?}", start.elapsed());
    drop(claims);
    victim.is_well("claims beside large requests");
}

/// The requests together exceed the memory for requests, and all are sent at the same time. All are served in the end.
#[test]
fn rows_01_to_04_large_requests_that_do_not_fit_together_are_all_served() {
    let settings = [("queued.max.request.bytes", "8388608"), ("socket.request.max.bytes", "6291456")];
    let mut victim = Victim::with(&settings, &[("max.message.bytes", "6000000")]);
    let memory = victim.memory();
    let large = "x".repeat(5_000_000);
    let senders: Vec<_> = (0..8)
        .map(|_| {
            let mut raw = Raw::connect(&victim.broker);
            let (topic, sent) = (victim.topic.clone(), batch(&[&large]));
            thread::spawn(move || topic.produce(&mut raw, sent))
        })
        .collect();
    let mut offsets: Vec<i64> = senders.into_iter().map(|sender| sender.join().expect("a sender")).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, (3..11).collect::<Vec<_>>());
    memory.assert_grew_less_than(48 * MIB, "8 requests of 5 MB with memory for less than two");
    victim.is_well("large requests that do not fit together");
}

#[test]
fn row_06_a_header_at_one_byte_a_second() {
    let mut victim = Victim::start();
    let frame = request(ApiKey::ApiVersions, 0, 1, &[]);
    let mut raw = Raw::connect(&victim.broker);
    let start = Instant::now();
    // The slow drip is the attack, so this is the one test that sleeps on purpose.
    let end = frame[..frame.len() - 1].iter().cycle().find(|byte| {
        let sent = raw.try_write(&[**byte]);
        sent.is_err() || !raw.is_silent_for(Duration::from_secs(1))
    });
    assert!(end.is_some());
    raw.assert_closed("a header of one byte a second");
    let took = start.elapsed();
    assert!(took < Duration::from_secs(20), "a header may drip for {took:?}");
    victim.is_well("a drip");
}

#[test]
fn row_06_many_slow_clients_delay_no_other_client() {
    let mut victim = Victim::start();
    let frame = request(ApiKey::ApiVersions, 0, 1, &[]);
    let slow: Vec<Raw> = (0..200)
        .map(|part| {
            let mut raw = Raw::connect(&victim.broker);
            raw.write(&frame[..part % (frame.len() - 1) + 1]);
            raw
        })
        .collect();
    victim.is_well("200 clients that wait within a request");
    // A slow client that completes its frame in time is served.
    for (part, mut raw) in slow.into_iter().enumerate().take(20) {
        raw.write(&frame[part % (frame.len() - 1) + 1..]);
        assert_eq!(raw.read_frame().expect("a response")[..4], 1_i32.to_be_bytes());
    }
}

/// Sends half of a large frame and ends the connection with `end`, over and over. Checks that neither memory nor
/// sockets leak.
fn half_a_frame(what: &str, end: fn(Raw)) {
    const FRAME: usize = 64 * MIB;
    let mut victim = Victim::start();
    let frame = request(ApiKey::Produce, 9, 1, &vec![0; FRAME]);
    let files = open_files(&victim.broker);
    let memory = victim.memory();
    for _ in 0..8 {
        let mut raw = Raw::connect(&victim.broker);
        raw.write(&frame[..FRAME / 2]);
        end(raw);
    }
    wait_until("the sockets to be closed", Duration::from_secs(20), || {
        (open_files(&victim.broker) <= files).then_some(())
    });
    wait_until("the buffers to be freed", Duration::from_secs(20), || (memory.growth() < FRAME / 2).then_some(()));
    memory.assert_grew_less_than(2 * FRAME * 2, what);
    victim.is_well(what);
}

#[test]
fn row_07_half_a_frame_and_a_fin() {
    half_a_frame("half a frame and a FIN", |mut raw| {
        raw.finish();
        raw.assert_closed("half a frame and a FIN");
    });
}

#[test]
fn row_07_half_a_frame_and_an_rst() {
    half_a_frame("half a frame and an RST", Raw::reset);
}

#[test]
fn row_08_other_protocols() {
    let hello = [&[0x16, 3, 1, 0, 0x30, 1, 0, 0, 0x2c, 3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0]].concat();
    let spoken: [(&str, &[u8], &str); 5] = [
        ("an HTTP request", b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP"),
        ("an HTTP post", b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "HTTP"),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP"),
        ("a TLS hello on a plaintext listener", &hello, "TLS"),
        ("an SSH banner", b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", "SSH"),
    ];
    let mut victim = Victim::start();
    let memory = victim.memory();
    for (what, bytes, named) in spoken {
        let mut raw = Raw::connect(&victim.broker);
        let peer = raw.local().to_string();
        raw.write(bytes);
        raw.assert_closed(what);
        let lines = wait_until(&format!("a log line about {what}"), Duration::from_secs(5), || {
            let log = victim.broker.log();
            let lines: Vec<_> = log.lines().filter(|line| line.contains(&peer)).map(str::to_owned).collect();
            (!lines.is_empty()).then_some(lines)
        });
        assert_eq!(lines.len(), 1, "{what}: one log line, no more: {lines:?}");
        assert!(lines[0].contains(named), "{what}: {lines:?}");
    }
    memory.assert_grew_less_than(16 * MIB, "other protocols");
    victim.is_well("other protocols");
}

#[test]
fn row_08_random_bytes() {
    let mut victim = Victim::start();
    let memory = victim.memory();
    // xorshift64 from a fixed seed: the same bytes in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..500 {
        let body: Vec<u8> = (0..next() % 300).map(|_| next() as u8).collect();
        let api = millstream_wire::apis()[next() as usize % millstream_wire::apis().len()];
        let version = api.min + (next() % (api.max - api.min + 1) as u64) as i16;
        let frame = match round % 3 {
            0 => body,
            1 => [&(body.len() as i32).to_be_bytes()[..], &body].concat(),
            _ => request(api.key, version, round, &body),
        };
        let mut raw = Raw::connect(&victim.broker);
        // The broker may close before all is written, or wait for the rest of a frame, which the FIN ends.
        raw.try_write(&frame).ok();
        raw.finish();
        raw.read_to_end();
    }
    memory.assert_grew_less_than(32 * MIB, "500 random requests");
    victim.is_well("500 random requests");
}

#[test]
fn row_09_an_unknown_api_key() {
    let mut victim = Victim::start();
    // Negative keys, cluster-internal keys of other brokers, keys of the future.
    for key in [-1, i16::MIN, 4, 5, 6, 7, 58, 999, i16::MAX] {
        for version in [0, 1, 12, -1, i16::MAX] {
            let mut frame = request(ApiKey::Metadata, 0, 5, &[0; 20]);
            frame[4..6].copy_from_slice(&i16::to_be_bytes(key));
            frame[6..8].copy_from_slice(&i16::to_be_bytes(version));
            let mut raw = Raw::connect(&victim.broker);
            raw.write(&frame);
            raw.assert_closed(&format!("API key {key} v{version}"));
        }
    }
    victim.is_well("unknown API keys");
}

#[test]
fn row_10_an_api_versions_request_of_the_future() {
    let mut victim = Victim::start();
    for (correlation, version) in [6, 7, 99, i16::MAX].into_iter().enumerate() {
        let correlation = correlation as i32;
        // The content of a future body is unknown.
        victim.raw.write(&request(ApiKey::ApiVersions, version, correlation, b"\x05name\x04one\x00and more"));
        let answer = victim.raw.read_frame().expect("a response in version 0");
        let (header, body) = answer.split_at(4);
        assert_eq!(header, correlation.to_be_bytes(), "v{version}");
        let mut reader = Reader::new(Bytes::copy_from_slice(body));
        let response = ApiVersionsResponse::decode(&mut reader, 0).expect("a body of version 0");
        assert_eq!(reader.remaining(), 0, "v{version}");
        assert_eq!(response.error_code, ErrorCode::UNSUPPORTED_VERSION, "v{version}");
        let own = response.api_keys.iter().find(|api| api.api_key == ApiKey::ApiVersions as i16);
        let own = own.expect("the versions of ApiVersions itself");
        assert_eq!((own.min_version, own.max_version), (0, 5), "v{version}");
        // The client asks again on the same connection, with a version that exists.
        let again = victim.raw.call(0, &ApiVersionsRequest::default());
        assert_eq!(again.error_code, ErrorCode::NONE, "v{version}");
    }
    victim.is_well("requests of the future");
}

#[test]
fn row_11_an_unsupported_version_of_another_api() {
    let mut victim = Victim::start();
    let served = victim.raw.call(0, &ApiVersionsRequest::default()).api_keys;
    for api in served.iter().filter(|api| api.api_key != ApiKey::ApiVersions as i16) {
        let key = ApiKey::try_from(api.api_key).expect("an API that the codec knows");
        for version in [api.min_version - 1, api.max_version + 1, i16::MAX, i16::MIN] {
            let mut raw = Raw::connect(&victim.broker);
            raw.write(&request(key, version, 5, &[0; 40]));
            raw.assert_closed(&format!("{key} v{version}"));
        }
    }
    victim.is_well("unsupported versions");
}

#[test]
fn connections_that_come_and_go_leave_nothing_behind() {
    let mut broker = Broker::start();
    let mut neighbour = Neighbour::of(&broker);
    neighbour.is_served(&mut broker, "the start");
    let files = open_files(&broker);
    let memory = Memory::watch(&broker);
    let address = broker.address();
    let storms: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                for _ in 0..500 {
                    drop(TcpStream::connect(address));
                }
            })
        })
        .collect();
    neighbour.is_served(&mut broker, "the first of 2,000 connections");
    storms.into_iter().for_each(|storm| storm.join().expect("the storm passes"));
    neighbour.is_served(&mut broker, "2,000 connections");
    wait_until("the sockets to be closed", Duration::from_secs(20), || (open_files(&broker) <= files).then_some(()));
    memory.assert_grew_less_than(32 * MIB, "2,000 connections");
}
