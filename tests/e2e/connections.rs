//! Connections: the order of responses, idle connections, limits, and a stop that waits for no client.

use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use millstream_record::Codec;
use millstream_tests::{Broker, wait_until};
use millstream_wire::messages::*;
use millstream_wire::{ApiKey, ErrorCode};
use rustix::process::Signal;

use crate::support::{Raw, Topic, batch, compressed, fetch_request, fetched, request};

/// The longest time of a "quick" operation on a loaded machine.
const QUICK: Duration = Duration::from_secs(10);

#[test]
fn responses_to_pipelined_requests_are_in_order() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[]);
    // Slow requests (an fsync, a fetch that waits) come before quick ones.
    let mut sent = Vec::new();
    for round in 0..100 {
        let correlation = match round % 4 {
            0 => raw.send(9, &topic.produce_request(9, -1, 0, batch(&["value"]))),
            1 => raw.send(12, &MetadataRequest::default()),
            2 => raw.send(12, &fetch_request(12, &[(&topic, 0, 0, 100)], 20, i32::MAX)),
            _ => raw.send(0, &ApiVersionsRequest::default()),
        };
        sent.push(correlation);
    }
    for correlation in sent {
        let frame = raw.read_frame().expect("a response");
        assert_eq!(frame[..4], correlation.to_be_bytes());
    }
    assert_eq!(topic.end(&mut raw), 25);
}

#[test]
fn pipelined_batches_keep_their_order() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[]);
    let values: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    let sent: Vec<i32> =
        values.iter().map(|value| raw.send(9, &topic.produce_request(9, -1, 0, batch(&[value])))).collect();
    for (offset, correlation) in sent.into_iter().enumerate() {
        let answer = raw.receive::<ProduceRequest>(9, correlation);
        assert_eq!(answer.responses[0].partition_responses[0].base_offset, offset as i64);
    }
    assert_eq!(topic.read(&mut raw, 0), values);
}

/// Batches that the broker recodes take longer. Batches that are stored unchanged must not overtake them.
#[test]
fn pipelined_batches_keep_their_order_where_some_are_recoded() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[("compression.type", "gzip")]);
    let filler = "x".repeat(50_000);
    let values: Vec<String> = (0..100).map(|number| format!("{number}-{filler}")).collect();
    let mut sent = Vec::new();
    for (number, value) in values.iter().enumerate() {
        let codec = [Codec::Zstd, Codec::Gzip, Codec::None, Codec::Lz4][number % 4];
        let acks = if number % 5 == 4 { 0 } else { -1 };
        let correlation = raw.send(9, &topic.produce_request(9, acks, 0, compressed(codec, &[value])));
        if acks != 0 {
            sent.push((number, correlation));
        }
    }
    for (offset, correlation) in sent {
        let answer = raw.receive::<ProduceRequest>(9, correlation);
        assert_eq!(answer.responses[0].partition_responses[0].base_offset, offset as i64);
    }
    assert!(topic.read(&mut raw, 0) == values);
}

/// All requests, more than a broker keeps in flight, are written before the first response is read.
#[test]
fn ten_thousand_requests_at_once_all_get_a_response() {
    let mut broker = Broker::start();
    let memory = crate::support::Memory::watch(&broker);
    let mut raw = Raw::connect(&broker);
    let one = request(ApiKey::ApiVersions, 0, 7, &[]);
    let many = one.repeat(10_000);
    let mut writer = raw.second_handle();
    let sending = std::thread::spawn(move || writer.write(&many));
    for _ in 0..10_000 {
        assert_eq!(raw.read_frame().expect("a response")[..4], 7_i32.to_be_bytes());
    }
    sending.join().expect("all is sent");
    assert!(broker.is_running());
    memory.assert_grew_less_than(32 << 20, "10,000 requests at once");
}

#[test]
fn an_idle_connection_is_closed_and_a_parked_one_is_not() {
    let broker = Broker::builder().set("connections.max.idle.ms", "700").start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[]);
    let mut parked = Raw::connect(&broker);
    let correlation = parked.send(12, &fetch_request(12, &[(&topic, 0, 0, 100)], 3000, 1));
    let start = Instant::now();
    let mut silent = Raw::connect(&broker);
    raw.assert_closed("idle after a request");
    silent.assert_closed("idle from the start");
    assert!(start.elapsed() < Duration::from_millis(2500), "{:?}", start.elapsed());
    assert!(fetched(parked.receive::<FetchRequest>(12, correlation)).records.is_empty());
}

#[test]
fn connections_above_the_cap_are_closed_and_the_others_served() {
    let broker = Broker::builder().set("max.connections.per.ip", "5").start();
    broker.allow("connections rejected: ");
    let mut within: Vec<Raw> = (0..5)
        .map(|_| {
            let mut raw = Raw::connect(&broker);
            raw.call(0, &ApiVersionsRequest::default());
            raw
        })
        .collect();
    Raw::connect(&broker).assert_closed("the sixth connection");
    for raw in &mut within {
        raw.call(0, &ApiVersionsRequest::default());
    }
    // A closed connection makes room for a new one.
    drop(within.pop());
    wait_until("a place", QUICK, || {
        let mut raw = Raw::connect(&broker);
        raw.try_write(&request(ApiKey::ApiVersions, 0, 1, &[])).ok()?;
        raw.read_frame().map(drop)
    });
}

/// The broker stops with everything open: waiting fetches, half a request, a client that does not read, and an idle
/// client.
#[test]
fn a_stop_is_quick_whatever_is_open_and_loses_nothing() {
    let mut broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[]);
    let large = "x".repeat(1_000_000);
    for _ in 0..16 {
        topic.produce(&mut raw, batch(&[&large]));
    }
    let idle: Vec<Raw> = (0..50).map(|_| Raw::connect(&broker)).collect();
    let end = topic.end(&mut raw);
    let mut parked: Vec<Raw> = (0..50).map(|_| Raw::connect(&broker)).collect();
    for raw in &mut parked {
        raw.send(12, &fetch_request(12, &[(&topic, 0, end, 100)], 600_000, 1));
    }
    let mut half = Raw::connect(&broker);
    half.write(&request(ApiKey::Metadata, 1, 1, &[0; 4])[..9]);
    let mut deaf = Raw::connect(&broker);
    for _ in 0..4 {
        deaf.send(12, &fetch_request(12, &[(&topic, 0, 0, 64 << 20)], 0, 1));
    }
    // This record is acknowledged just before the stop.
    topic.produce(&mut raw, batch(&["last"]));
    let start = Instant::now();
    assert_eq!(broker.stop(Signal::TERM).code(), Some(0));
    assert!(start.elapsed() < QUICK, "the stop took {:?}", start.elapsed());
    for raw in &mut parked {
        raw.read_to_end();
    }
    half.assert_closed("half a request");
    drop(idle);
    assert!(!broker.log().contains("panicked"), "{}", broker.log());

    broker.restart();
    let mut raw = Raw::connect(&broker);
    assert_eq!(topic.end(&mut raw), end + 1);
    assert_eq!(topic.read(&mut raw, end), ["last"]);
    assert!(!broker.log().contains("torn"), "a clean stop leaves nothing to recover:\n{}", broker.log());
}

/// Producers send while the broker stops. Every acknowledged record is there afterwards.
#[test]
fn a_stop_in_the_middle_of_produce_keeps_what_was_acknowledged() {
    let mut broker = Broker::start();
    let topic = Topic::create(&mut Raw::connect(&broker), "topic", 1, &[]);
    let producers: Vec<_> = (0..4)
        .map(|_| {
            let mut raw = Raw::connect(&broker);
            let topic = topic.clone();
            std::thread::spawn(move || {
                let mut acknowledged = Vec::new();
                loop {
                    if raw.try_send(9, &topic.produce_request(9, -1, 0, batch(&["value"]))).is_err() {
                        return acknowledged;
                    }
                    match raw.try_receive::<ProduceRequest>(9, raw.correlation()) {
                        Some(answer) => {
                            let answer = &answer.responses[0].partition_responses[0];
                            if answer.error_code == ErrorCode::NONE {
                                acknowledged.push(answer.base_offset);
                            }
                        }
                        None => return acknowledged,
                    }
                }
            })
        })
        .collect();
    let mut raw = Raw::connect(&broker);
    wait_until("some records", QUICK, || (topic.end(&mut raw) > 200).then_some(()));
    let start = Instant::now();
    assert_eq!(broker.stop(Signal::TERM).code(), Some(0));
    assert!(start.elapsed() < QUICK, "the stop took {:?}", start.elapsed());
    let mut acknowledged: Vec<i64> =
        producers.into_iter().flat_map(|producer| producer.join().expect("a producer")).collect();
    acknowledged.sort_unstable();
    broker.restart();
    let mut raw = Raw::connect(&broker);
    let end = topic.end(&mut raw);
    assert!(acknowledged.len() > 100);
    assert!(acknowledged.windows(2).all(|pair| pair[0] < pair[1]), "an offset twice");
    assert!(acknowledged.last().is_some_and(|last| *last < end), "{acknowledged:?} of {end}");
    assert_eq!(topic.read(&mut raw, 0).len() as i64, end);
}

/// Returns the host that Metadata and FindCoordinator name to a client of this address.
fn advertised_to(address: SocketAddr) -> String {
    let mut raw = Raw::to(address);
    let metadata = raw.call(12, &MetadataRequest::default());
    let found = raw.call(3, &FindCoordinatorRequest { key: "group".into(), ..FindCoordinatorRequest::default() });
    assert_eq!(metadata.brokers[0].host, found.host);
    metadata.brokers[0].host.to_string()
}

#[test]
fn a_listener_without_a_host_serves_ipv4_and_ipv6() {
    let broker = Broker::builder().listen(":0").start();
    let port = broker.address().port();
    assert_eq!(advertised_to(SocketAddr::from(([127, 0, 0, 1], port))), "127.0.0.1");
    let has_ipv6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if has_ipv6 {
        assert_eq!(advertised_to(SocketAddr::from((Ipv6Addr::LOCALHOST, port))), "::1");
    }
    assert_eq!(broker.address().is_ipv6(), has_ipv6);
}

#[test]
fn a_client_over_ipv4_gets_an_ipv4_address() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return;
    }
    let broker = Broker::builder().listen("[::]:0").start();
    assert_eq!(advertised_to(SocketAddr::from(([127, 0, 0, 1], broker.address().port()))), "127.0.0.1");
}
