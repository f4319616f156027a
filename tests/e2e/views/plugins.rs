//! Filters that change, are slow, or are missing.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use millstream_tests::{Broker, wait_until};
use millstream_wire::ErrorCode;
use rustix::process::Signal;

use super::{KEEP, Seen, create, fetch, push, view};
use crate::guests::Guest;
use crate::support::{Raw, Topic, batch};

/// Returns a filter that drops the values that begin with this letter.
fn drops(letter: char, version: &str) -> Guest {
    Guest::filter().name("letters").version(version).edit("(i32.const 120)", &format!("(i32.const {})", letter as u32))
}

/// Returns what is shown of a batch of the values `x`, `y` and `z`. It shows which version filtered the batch, and must
/// not be a mixture of two.
fn shown(records: &[Seen], batch: i64) -> String {
    let of_batch = records.iter().filter(|record| record.offset / 3 == batch);
    of_batch.map(|record| record.value.as_ref().map_or('-', |value| char::from(value[0]))).collect()
}

#[test]
fn a_follower_sees_every_batch_by_one_version_while_versions_come() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let source = Topic::create(&mut raw, "source", 1, &[]);
    push(&broker, &drops('x', "1.0.0"));
    let view = view(&mut raw, "view", "source", "letters");
    let done = AtomicBool::new(false);
    let (records, end) = thread::scope(|scope| {
        let follower = scope.spawn(|| {
            let mut raw = Raw::connect(&broker);
            let (mut records, mut offset) = (Vec::new(), 0);
            loop {
                let is_last = done.load(Ordering::Acquire);
                let found = fetch(&mut raw, &view, offset, 1 << 20, 50, 1);
                records.extend(found.records);
                offset = found.next;
                if is_last && offset == found.data.high_watermark {
                    return records;
                }
            }
        });
        let producer = scope.spawn(|| {
            let mut raw = Raw::connect(&broker);
            let mut end = 0;
            while !done.load(Ordering::Acquire) {
                end = source.produce(&mut raw, batch(&["x", "y", "z"])) + 3;
            }
            end
        });
        for (letter, version) in [('y', "2.0.0"), ('x', "3.0.0"), ('y', "4.0.0")] {
            let before = source.end(&mut raw);
            wait_until("records under this version", Duration::from_secs(30), || {
                (source.end(&mut raw) > before + 30).then_some(())
            });
            push(&broker, &drops(letter, version));
        }
        let before = source.end(&mut raw);
        wait_until("records under the last version", Duration::from_secs(30), || {
            (source.end(&mut raw) > before + 30).then_some(())
        });
        done.store(true, Ordering::Release);
        (follower.join().expect("the follower"), producer.join().expect("the producer"))
    });
    assert!(records.windows(2).all(|pair| pair[0].offset < pair[1].offset), "in order, and nothing twice");
    let mut seen: Vec<String> = (0..end / 3).map(|number| shown(&records, number)).collect();
    seen.dedup();
    assert_eq!(seen, ["yz", "xz", "yz", "xz"], "each version from one batch on, none lost");
}

/// While many clients wait for a slow filter, others are served at the usual speed: on plain topics and on other views.
#[test]
fn a_slow_filter_slows_its_own_view_alone() {
    let broker = Broker::start();
    broker.allow("there is no rollback");
    broker.allow("fails too often");
    let mut raw = Raw::connect(&broker);
    let source = Topic::create(&mut raw, "source", 1, &[]);
    let spin = "(local.set $row (i32.const 4000000))
        (loop $spin (local.set $row (i32.sub (local.get $row) (i32.const 1))) (br_if $spin (local.get $row)))";
    push(&broker, &drops('x', "1.0.0").hook_with_rows("filter", spin));
    let slow = view(&mut raw, "slow", "source", "letters");
    let fast = view(&mut raw, "fast", "source", KEEP);
    for _ in 0..600 {
        source.produce(&mut raw, batch(&["x"]));
    }
    source.produce(&mut raw, batch(&["keep"]));
    let plain = Topic::create(&mut raw, "plain", 1, &[]);
    let reading = AtomicBool::new(true);
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let mut raw = Raw::connect(&broker);
                while reading.load(Ordering::Acquire) {
                    fetch(&mut raw, &slow, 0, 1 << 20, 2_000, 1);
                }
            });
        }
        // The time that one of them takes alone.
        let begun = Instant::now();
        fetch(&mut Raw::connect(&broker), &slow, 0, 1 << 20, 20_000, 1);
        let slowness = begun.elapsed();
        let mut worst = Duration::ZERO;
        for _ in 0..50 {
            let begun = Instant::now();
            let offset = plain.produce(&mut raw, batch(&["news"]));
            assert_eq!(fetch(&mut raw, &plain, offset, 1 << 20, 1_000, 1).records.len(), 1);
            assert_eq!(fetch(&mut raw, &fast, 0, 1 << 20, 1_000, 1).records.len(), 1);
            worst = worst.max(begun.elapsed());
        }
        reading.store(false, Ordering::Release);
        assert!(slowness > Duration::from_millis(500), "the filter is not slow: {slowness:?}");
        // A request that waited behind even one of the readers would take longer.
        assert!(worst < slowness, "a neighbour waited {worst:?}, beside {slowness:?}");
    });
}

/// A view whose filter is missing shows nothing rather than everything, and its source is served.
#[test]
fn a_filter_that_is_not_there_at_the_start_takes_its_view_alone_out_of_service() {
    let mut broker = Broker::start();
    broker.allow("a stage cannot be started");
    let mut raw = Raw::connect(&broker);
    let source = Topic::create(&mut raw, "source", 1, &[]);
    source.produce(&mut raw, batch(&["x", "y"]));
    let file = broker.scratch().join("filter.wasm");
    fs::write(&file, drops('x', "1.0.0").build()).expect("written");
    let text = file.display().to_string();
    let created = create(&mut raw, "view", -1, &[("view.of", "source"), ("stage.filter", &text)]);
    assert_eq!(created.error_code, ErrorCode::NONE, "{:?}", created.error_message);
    let view = Topic { name: "view".into(), id: created.topic_id };
    assert_eq!(view.read(&mut raw, 0), ["y"]);

    let aside = broker.scratch().join("aside.wasm");
    fs::rename(&file, &aside).expect("moved");
    broker.stop(Signal::TERM);
    broker.restart();
    let mut raw = Raw::connect(&broker);
    // Clients retry after this error, so they continue once the filter is back.
    assert_eq!(view.fetch(&mut raw, 0).error_code, ErrorCode::KAFKA_STORAGE_ERROR);
    assert_eq!(source.read(&mut raw, 0), ["x", "y"]);
    assert!(broker.log().contains("filter.wasm"), "{}", broker.log());

    fs::rename(&aside, &file).expect("moved back");
    broker.kill();
    broker.restart();
    assert_eq!(view.read(&mut Raw::connect(&broker), 0), ["y"]);
}

/// One poison record hides none of its neighbours.
#[test]
fn a_record_that_traps_is_hidden_alone() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let source = Topic::create(&mut raw, "source", 1, &[]);
    let is_x = "(i32.eq (i32.load8_u (i32.add (local.get $data) (local.get $start))) (i32.const 120))";
    let trap = format!("(if (result i32) {is_x} (then unreachable) (else (i32.const 0)))");
    push(&broker, &Guest::filter().name("letters").edit(is_x, &trap));
    let view = view(&mut raw, "view", "source", "letters");
    let mut values: Vec<String> = (0..300).map(|number| format!("good {number}")).collect();
    values[137] = "x".to_owned();
    source.produce(&mut raw, batch(&values.iter().map(String::as_str).collect::<Vec<_>>()));
    values.remove(137);
    assert_eq!(view.read(&mut raw, 0), values);
}
