//! Long gaps in a view: clients get past them, and wait at the end without spinning.

use std::time::{Duration, Instant};

use millstream_record::{BatchBuilder, Codec, TimestampType};
use millstream_tests::{Broker, wait_until};
use millstream_wire::ErrorCode;
use millstream_wire::messages::FetchRequest;

use super::{KEEP, alter, delete, fetch, seen, view};
use crate::support::{Raw, Topic, batch, fetch_request, fetched, now_ms};

/// Room for a loaded machine.
const SLACK: Duration = Duration::from_secs(5);

/// Longer than any test waits.
const FOREVER_MS: i32 = 120_000;

/// Returns a batch of many records that no view shows.
fn filler(records: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    let now = now_ms();
    for _ in 0..records {
        builder.append(now, None, Some(b"drop"), []).expect("room");
    }
    builder.build().expect("a batch")
}

/// Returns the CPU time that the broker has used.
fn cpu(broker: &Broker) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", broker.pid().as_raw_nonzero())).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
    // utime and stime in ticks of 10 ms: fields 14 and 15 of the line; see proc(5).
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(10 * ticks)
}

#[test]
fn a_gap_is_passed_within_one_request_and_ends_in_a_marker() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let source = Topic::create(&mut raw, "source", 1, &[]);
    let view = view(&mut raw, "view", "source", KEEP);
    // 20 MB take many steps.
    let filler = filler(50_000);
    for _ in 0..35 {
        source.produce(&mut raw, filler.clone());
    }
    let at = source.produce(&mut raw, batch(&["keep"]));
    let sent = Instant::now();
    let found = fetch(&mut raw, &view, 0, 1 << 20, FOREVER_MS, 1);
    assert!(sent.elapsed() < 2 * SLACK, "{:?}", sent.elapsed());
    assert_eq!(found.records.iter().map(|record| record.offset).collect::<Vec<_>>(), [at]);

    // Without a match the fetch lasts for the client's max wait, and the client continues behind the gap.
    let end = source.produce(&mut raw, filler.clone()) + 50_000;
    let sent = Instant::now();
    let found = fetch(&mut raw, &view, at + 1, 1 << 20, 700, 1);
    assert!(sent.elapsed() >= Duration::from_millis(700) && sent.elapsed() < SLACK, "{:?}", sent.elapsed());
    assert!(found.records.is_empty());
    assert_eq!((found.next, found.next_of_records), (end, end));
    assert!(found.data.records.len() < 100, "a marker alone");

    // At the end there is no gap to mark.
    let found = fetch(&mut raw, &view, end, 1 << 20, 100, 1);
    assert!(found.data.records.is_empty());
}

#[test]
fn a_request_without_max_wait_still_makes_progress() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let source = Topic::create(&mut raw, "source", 1, &[]);
    let view = view(&mut raw, "view", "source", KEEP);
    let filler = filler(50_000);
    for _ in 0..10 {
        source.produce(&mut raw, filler.clone());
    }
    let (mut offset, mut requests) = (0, 0);
    while offset < 500_000 {
        let found = fetch(&mut raw, &view, offset, 1 << 20, 0, 1);
        assert!(found.next > offset);
        (offset, requests) = (found.next, requests + 1);
    }
    assert!(requests <= 10, "{requests} requests for a gap of 5.5 MB");
}

/// The length of a step depends on what the filter has to read, not on the size on disk.
#[test]
fn a_step_over_well_compressed_batches_is_no_longer_than_others() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let source = Topic::create(&mut raw, "source", 1, &[]);
    let view = view(&mut raw, "view", "source", KEEP);
    let mut builder = BatchBuilder::new(Codec::Zstd, TimestampType::CreateTime);
    let now = now_ms();
    (0..100_000).for_each(|_| builder.append(now, None, Some(b"drop"), []).expect("room"));
    let batch = builder.build().expect("a batch");
    assert!(batch.len() < 400_000, "{}", batch.len());
    for _ in 0..30 {
        source.produce(&mut raw, batch.clone());
    }
    let found = fetch(&mut raw, &view, 0, 1 << 20, 0, 1);
    assert!((100_000..=600_000).contains(&found.next), "{}", found.next);
    let found = fetch(&mut raw, &view, 0, 1 << 20, FOREVER_MS / 20, 1);
    assert_eq!(found.next, 3_000_000, "in the time that it has it gets to the end");
}

#[test]
fn a_waiting_fetch_scans_new_records_once_and_ends_only_with_a_match() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let source = Topic::create(&mut raw, "source", 1, &[]);
    let view = view(&mut raw, "view", "source", KEEP);
    let mut waiting = Raw::connect(&broker);
    let correlation = waiting.send(12, &fetch_request(12, &[(&view, 0, 0, 1 << 20)], FOREVER_MS, 1));
    for _ in 0..20 {
        source.produce(&mut raw, batch(&["drop"]));
    }
    assert!(waiting.is_silent_for(Duration::from_millis(300)));
    let sent = Instant::now();
    let at = source.produce(&mut raw, batch(&["keep"]));
    let found = seen(fetched(waiting.receive::<FetchRequest>(12, correlation)), 0);
    assert!(sent.elapsed() < SLACK);
    assert_eq!(found.records.iter().map(|record| record.offset).collect::<Vec<_>>(), [at]);

    // It sleeps while it waits.
    let correlation = waiting.send(12, &fetch_request(12, &[(&view, 0, 0, 1 << 20)], 2_000, 1 << 20));
    let before = cpu(&broker);
    let found = seen(fetched(waiting.receive::<FetchRequest>(12, correlation)), 0);
    assert_eq!(found.records.len(), 1, "min_bytes that is never reached ends with what there is");
    let used = cpu(&broker) - before;
    assert!(used < Duration::from_millis(500), "{used:?} of CPU time in a wait of 2 s");
}

#[test]
fn min_bytes_counts_what_is_shown() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let source = Topic::create(&mut raw, "source", 1, &[]);
    let view = view(&mut raw, "view", "source", KEEP);
    let kept = batch(&[&format!("keep {}", "x".repeat(500))]);
    let mut waiting = Raw::connect(&broker);
    let min_bytes = 3 * kept.len() as i32;
    let correlation = waiting.send(12, &fetch_request(12, &[(&view, 0, 0, 1 << 20)], FOREVER_MS, min_bytes));
    let dropped = batch(&[&format!("drop {}", "x".repeat(5_000))]);
    for _ in 0..2 {
        source.produce(&mut raw, dropped.clone());
        source.produce(&mut raw, kept.clone());
    }
    assert!(waiting.is_silent_for(Duration::from_millis(500)), "two of three");
    source.produce(&mut raw, kept);
    let found = seen(fetched(waiting.receive::<FetchRequest>(12, correlation)), 0);
    assert_eq!(found.records.len(), 3);
}

#[test]
fn a_filter_that_changes_is_in_force_at_the_next_batch() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let source = Topic::create(&mut raw, "source", 1, &[]);
    let view = view(&mut raw, "view", "source", KEEP);
    let mut waiting = Raw::connect(&broker);
    let correlation = waiting.send(12, &fetch_request(12, &[(&view, 0, 0, 1 << 20)], FOREVER_MS, 1));
    assert!(waiting.is_silent_for(Duration::from_millis(200)));
    assert_eq!(alter(&mut raw, "view", &[("stage.filter", Some(r#"contains{"text":"other"}"#))]).1, "");
    source.produce(&mut raw, batch(&["keep"]));
    source.produce(&mut raw, batch(&["other"]));
    let found = seen(fetched(waiting.receive::<FetchRequest>(12, correlation)), 0);
    assert_eq!(found.records.iter().map(|record| record.offset).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_wait_on_a_deleted_view_ends_and_the_source_is_still_served() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let source = Topic::create(&mut raw, "source", 1, &[]);
    let view = view(&mut raw, "view", "source", KEEP);
    let parked = |topic: &Topic| {
        let mut waiting = Raw::connect(&broker);
        let correlation = waiting.send(12, &fetch_request(12, &[(topic, 0, 0, 1 << 20)], FOREVER_MS, 1));
        assert!(waiting.is_silent_for(Duration::from_millis(200)));
        (waiting, correlation)
    };
    let (mut on_view, of_view) = parked(&view);
    let (mut on_source, of_source) = parked(&source);
    assert_eq!(delete(&mut raw, "view"), (ErrorCode::NONE, String::new()));
    let data = fetched(on_view.receive::<FetchRequest>(12, of_view));
    assert_eq!(data.error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert!(on_source.is_silent_for(Duration::from_millis(200)));
    source.produce(&mut raw, batch(&["on"]));
    assert_eq!(seen(fetched(on_source.receive::<FetchRequest>(12, of_source)), 0).records.len(), 1);
}

#[test]
fn retention_under_a_view_is_an_offset_out_of_range() {
    let broker = Broker::builder()
        .set("log.segment.bytes", "1048576")
        .set("log.retention.bytes", "1048576")
        .set("log.retention.check.interval.ms", "50")
        .start();
    let mut raw = Raw::connect(&broker);
    let source = Topic::create(&mut raw, "source", 1, &[]);
    let view = view(&mut raw, "view", "source", KEEP);
    let filler = filler(50_000);
    for _ in 0..8 {
        source.produce(&mut raw, filler.clone());
    }
    wait_until("retention", Duration::from_secs(30), || (source.start(&mut raw) > 0).then_some(()));
    assert_eq!(view.start(&mut raw), source.start(&mut raw));
    let data = fetched(raw.call(12, &fetch_request(12, &[(&view, 0, 0, 1 << 20)], FOREVER_MS, 1)));
    assert_eq!(data.error_code, ErrorCode::OFFSET_OUT_OF_RANGE);
}
