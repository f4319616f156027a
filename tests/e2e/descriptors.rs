//! File descriptors: limits, and what happens when none is left.

use std::time::Duration;

use millstream_tests::{Broker, wait_until};
use millstream_wire::ErrorCode;
use millstream_wire::messages::*;
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use crate::support::{Raw, Topic, batch};

/// The longest time of a "quick" operation on a loaded machine.
const QUICK: Duration = Duration::from_secs(10);

/// Connects until the broker closes a connection. Returns the connections that it serves.
fn connect_until_refused(broker: &Broker, most: usize) -> Vec<Raw> {
    let mut served = Vec::new();
    for _ in 0..most {
        let mut raw = Raw::connect(broker);
        let is_served = raw.try_send(0, &ApiVersionsRequest::default()).is_ok()
            && raw.try_receive::<ApiVersionsRequest>(0, 1).is_some();
        if !is_served {
            return served;
        }
        served.push(raw);
    }
    panic!("{most} connections are served, and none is closed");
}

#[test]
fn the_soft_limit_of_open_files_is_raised_to_the_hard_limit() {
    let broker = Broker::builder().open_files(64, 1_000).start();
    let mut served: Vec<Raw> = (0..300).map(|_| Raw::connect(&broker)).collect();
    for raw in &mut served {
        assert_eq!(raw.call(0, &ApiVersionsRequest::default()).error_code, ErrorCode::NONE);
    }
}

#[test]
fn connections_beyond_the_limit_of_open_files_are_closed_and_the_others_served() {
    let broker = Broker::builder().open_files(160, 160).start();
    broker.allow("connections rejected: ");
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[]);
    let mut served = connect_until_refused(&broker, 160);
    assert!(served.len() > 60, "{} connections are served", served.len());
    for _ in 0..20 {
        Raw::connect(&broker).assert_closed("a connection beyond the limit");
    }
    // Files can still be opened, and the existing connections work.
    let other = Topic::create(&mut raw, "other", 2, &[]);
    other.produce(&mut raw, batch(&["value"]));
    topic.produce(&mut raw, batch(&["value"]));
    for raw in &mut served {
        raw.call(0, &ApiVersionsRequest::default());
    }
    let log = broker.log();
    let refusals = log.lines().filter(|line| line.contains("limit of open files (ulimit -n) is reached")).count();
    assert!((1..=3).contains(&refusals), "{refusals} lines:\n{log}");
    // A closed connection makes room.
    drop(served);
    wait_until("room for a connection", QUICK, || {
        let mut raw = Raw::connect(&broker);
        raw.try_send(0, &ApiVersionsRequest::default()).ok()?;
        raw.try_receive::<ApiVersionsRequest>(0, 1)
    });
}

/// Files use up the reserved descriptors until accept fails.
#[test]
fn connections_are_closed_where_no_descriptor_is_left_at_all() {
    let broker = Broker::builder().open_files(160, 160).start();
    broker.allow("connections rejected: ");
    let mut raw = Raw::connect(&broker);
    let _served = connect_until_refused(&broker, 160);
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic { name: "many".into(), num_partitions: 100, ..CreatableTopic::default() }],
        timeout_ms: 10_000,
        ..CreateTopicsRequest::default()
    };
    raw.call(7, &request);
    for _ in 0..20 {
        Raw::connect(&broker).assert_closed("a connection beyond the limit");
    }
    assert_eq!(raw.call(0, &ApiVersionsRequest::default()).error_code, ErrorCode::NONE);
}

/// A roll opens files, and so does the first sync of a new log.
#[test]
fn a_broker_that_can_open_no_more_files_loses_nothing_and_goes_on() {
    let mut broker = Broker::start();
    broker.allow("Too many open files");
    let mut raw = Raw::connect(&broker);
    let rolled = Topic::create(&mut raw, "rolled", 1, &[("segment.bytes", "1048576")]);
    let fresh = Topic::create(&mut raw, "fresh", 1, &[]);
    let value = |number: usize| format!("{number} {}", "x".repeat(300_000));
    let mut stored = vec![value(0)];
    rolled.produce(&mut raw, batch(&[&stored[0]]));
    let maximum = getrlimit(Resource::Nofile).maximum;
    let before = prlimit(Some(broker.pid()), Resource::Nofile, Rlimit { current: Some(3), maximum });
    let before = before.expect("the limit of a child");
    let rejected = (1..20).find_map(|number| {
        let answer = rolled.produce_by(&mut raw, 9, batch(&[&value(number)]));
        if answer.error_code == ErrorCode::NONE {
            stored.push(value(number));
        }
        answer.error_code.is_err().then_some(answer.error_code)
    });
    // Clients retry this error.
    assert_eq!(rejected, Some(ErrorCode::KAFKA_STORAGE_ERROR));
    assert_eq!(rolled.read(&mut raw, 0), stored, "reads go on");
    let first = fresh.produce_by(&mut raw, 9, batch(&["first"])).error_code;
    prlimit(Some(broker.pid()), Resource::Nofile, before).expect("the limit of a child");
    assert_eq!(rolled.produce(&mut raw, batch(&["after"])), stored.len() as i64);
    stored.push("after".to_owned());
    // Whether the first record was stored is only known if it was acknowledged.
    let end = fresh.produce(&mut raw, batch(&["next"]));
    assert!(end == 1 || first.is_err(), "an acknowledged record is gone");
    broker.kill();
    broker.restart();
    let mut raw = Raw::connect(&broker);
    assert_eq!(rolled.read(&mut raw, 0), stored);
    assert_eq!(fresh.read(&mut raw, end), ["next"]);
}
