//! `stage.compressor`: which codec is stored, which codec clients get, and how long stored batches can be read.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use millstream_record::{BatchView, Codec, batches};
use millstream_tests::{Broker, Tool, millstream, wait_until};
use millstream_wire::ErrorCode;
use rustix::process::Signal;
use tempfile::TempDir;

use super::{NOT_NEGATIVE, alter, rows, set, stored, stored_codecs, values};
use crate::guests::Guest;
use crate::support::{Raw, Topic, batch_at, builder, compressed, fetch_request, fetched, now_ms};

const PATIENCE: Duration = Duration::from_secs(60);

const TEXTS: [&str; 4] = ["a first text, a first text, a first text", "a second", "", "the last, the last, the last"];

/// Returns a guest that "compresses" into a private format.
fn private() -> Guest {
    Guest::compressor().name("own-format")
}

fn folder_with(guests: &[(&str, &Guest)]) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    for (file, guest) in guests {
        std::fs::write(folder.path().join(file).with_extension("wasm"), guest.build()).expect("written");
    }
    folder
}

fn started(plugins: Option<&Path>, options: &[(&str, &str)]) -> (Broker, Raw, Topic) {
    let builder = plugins.iter().fold(Broker::builder(), |builder, folder| builder.plugins(folder));
    let broker = builder.start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[]);
    set(&mut raw, &topic, options);
    (broker, raw, topic)
}

fn is_private(batch: BatchView<'_>) -> bool {
    batch.attributes() & 7 == 7
}

/// Fetches with one version. Returns the codecs of the response's batches, and their values.
fn given(raw: &mut Raw, topic: &Topic, version: i16) -> (Vec<Codec>, Vec<String>) {
    let data = fetched(raw.call(version, &fetch_request(version, &[(topic, 0, 0, 1 << 20)], 0, 0)));
    assert_eq!(data.error_code, ErrorCode::NONE, "v{version}");
    let bytes = data.records.as_bytes().expect("records").clone();
    let codecs = batches(&bytes).map(|batch| batch.expect("sound").codec().expect("one of Kafka's")).collect();
    (codecs, crate::support::values(&bytes, 0))
}

#[test]
fn a_standard_format_is_stored_as_that_codec_and_sent_unchanged() {
    for (plugin, codec) in
        [("gzip", Codec::Gzip), ("snappy", Codec::Snappy), ("lz4", Codec::Lz4), ("zstd", Codec::Zstd)]
    {
        let (broker, mut raw, topic) = started(None, &[("stage.compressor", plugin)]);
        for sent in Codec::ALL {
            topic.produce(&mut raw, compressed(sent, &TEXTS));
        }
        assert_eq!(stored_codecs(&broker, &topic), [codec; 5]);
        let data = topic.fetch(&mut raw, 0);
        assert_eq!(data.records.as_bytes().expect("records"), &stored(&broker, &topic), "what is stored is sent");
        assert_eq!(values(&mut raw, &topic).len(), 20);
    }
}

#[test]
fn a_private_format_is_fetched_in_the_codec_that_was_sent() {
    let folder = folder_with(&[("own-format", &private())]);
    let (broker, mut raw, topic) = started(Some(folder.path()), &[("stage.compressor", "own-format")]);
    for codec in Codec::ALL {
        topic.produce(&mut raw, compressed(codec, &TEXTS));
    }
    let on_disk = stored(&broker, &topic);
    assert!(batches(&on_disk).all(|batch| is_private(batch.expect("sound"))));
    let all: Vec<String> = TEXTS.iter().cycle().take(20).map(|text| (*text).to_owned()).collect();
    for version in [4, 9, 10, 12] {
        let (codecs, read) = given(&mut raw, &topic, version);
        let zstd = if version < 10 { Codec::Lz4 } else { Codec::Zstd };
        assert_eq!(codecs, [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, zstd], "v{version}");
        assert_eq!(read, all, "v{version}");
    }
    assert_eq!(rows(&mut raw, &topic).iter().map(|row| row.offset).collect::<Vec<_>>(), (0..20).collect::<Vec<i64>>());
}

#[test]
fn records_are_found_by_time_within_a_private_batch() {
    let folder = folder_with(&[("own-format", &private())]);
    let (_broker, mut raw, topic) = started(Some(folder.path()), &[("stage.compressor", "own-format")]);
    topic.produce(&mut raw, batch_at(Codec::None, &[1000, 2000, 3000]));
    topic.produce(&mut raw, batch_at(Codec::Lz4, &[4000, 9000, 5000]));
    for (time, offset, timestamp) in [(0, 0, 1000), (1500, 1, 2000), (3000, 2, 3000), (4500, 4, 9000), (9001, -1, -1)] {
        let found = topic.offset_for(&mut raw, 0, time);
        assert_eq!((found.offset, found.timestamp), (offset, timestamp), "{time}");
    }
    let newest = topic.offset_for(&mut raw, 0, -3);
    assert_eq!((newest.offset, newest.timestamp), (4, 9000));
}

#[test]
fn stored_batches_can_be_read_after_the_configs_the_folder_and_the_process_are_gone() {
    let folder = folder_with(&[("own-format", &private())]);
    let (mut broker, mut raw, topic) = started(Some(folder.path()), &[("stage.compressor", "own-format")]);
    broker.allow("is needed to read what topic");
    topic.produce(&mut raw, compressed(Codec::Gzip, &TEXTS));
    // Another version takes over; the first version still decompresses what it has packed.
    let second = private().version("2.0.0").edit("(i32.const 83)", "(i32.const 84)");
    std::fs::write(folder.path().join("own-format.wasm"), second.build()).expect("written");
    wait_until("the second version to pack", PATIENCE, || {
        topic.produce(&mut raw, compressed(Codec::None, &TEXTS));
        let on_disk = stored(&broker, &topic);
        let digest = |batch: BatchView<'_>| batch.payload()[5..37].to_vec();
        let mut digests: Vec<_> = batches(&on_disk).map(|batch| digest(batch.expect("sound"))).collect();
        digests.dedup();
        (digests.len() == 2).then_some(())
    });
    let before = values(&mut raw, &topic);
    let (code, message) = alter(&mut raw, &topic.name, &[("stage.compressor", None)]);
    assert_eq!(code, ErrorCode::NONE, "{message}");
    let plain = topic.produce(&mut raw, compressed(Codec::Snappy, &["plain"]));
    broker.stop(Signal::TERM);
    drop(folder);
    broker.without_plugins();
    for _ in 0..2 {
        broker.restart();
        let mut raw = Raw::connect(&broker);
        let mut after = values(&mut raw, &topic);
        assert_eq!(after.remove(&plain).as_deref(), Some("plain"));
        assert_eq!(after, before);
        let refused = Tool::new(millstream()).args(["plugin", "delete", "own-format", "-b", &broker.bootstrap()]).run();
        assert_ne!(refused.code, Some(0), "{}{}", refused.stdout, refused.stderr);
        assert!(refused.stderr.contains("topic topic"), "{}", refused.stderr);
        broker.kill();
    }
}

#[test]
fn a_waiting_fetch_does_not_get_what_it_cannot_read() {
    let folder = folder_with(&[("own-format", &private())]);
    let (broker, mut raw, topic) = started(Some(folder.path()), &[]);
    topic.produce(&mut raw, compressed(Codec::None, &["plain"]));
    let mut waiting = Raw::connect(&broker);
    let correlation = waiting.send(12, &fetch_request(12, &[(&topic, 0, 1, 1 << 20)], 60_000, 1));
    set(&mut raw, &topic, &[("stage.compressor", "own-format")]);
    topic.produce(&mut raw, compressed(Codec::None, &["packed"]));
    let data = fetched(waiting.receive::<millstream_wire::messages::FetchRequest>(12, correlation));
    assert_eq!(data.error_code, ErrorCode::NOT_LEADER_OR_FOLLOWER);
    assert_eq!(topic.read(&mut waiting, 0), ["plain", "packed"]);
}

#[test]
fn a_batch_that_does_not_decompress_is_never_acknowledged() {
    // Each passes the probe, which is a text that begins with an a.
    let loses = private().hook(
        "compressed",
        "(if (i32.ne (i32.load8_u (local.get $data)) (i32.const 97))
           (then (i32.store8 (i32.add (local.get $out) (i32.const 9)) (i32.const 255))))",
    );
    // It decompresses its own bytes, but they are not in the format that it declares.
    const LZ4: u8 = 2;
    let lies = Guest::compressor().name("liar").format(LZ4);
    let folder = folder_with(&[("own-format", &loses), ("liar", &lies)]);
    for plugin in ["own-format", "liar"] {
        let (_broker, mut raw, topic) = started(Some(folder.path()), &[("stage.compressor", plugin)]);
        let answer = topic.produce_by(&mut raw, 9, compressed(Codec::Gzip, &TEXTS));
        assert_eq!(answer.error_code, ErrorCode::INVALID_RECORD, "{plugin}");
        let message = answer.error_message.as_deref().unwrap_or_default();
        assert!(message.contains(plugin) && message.contains("does not decompress to the same"), "{message}");
        assert_eq!(topic.end(&mut raw), 0);
    }
}

#[test]
fn a_compressor_that_fails_rejects_the_batch_or_leaves_it() {
    // Traps on records, but not on the probe, which is a text.
    let guest =
        private().hook("compress", "(if (i32.ne (i32.load8_u (local.get $data)) (i32.const 97)) (then unreachable))");
    let folder = folder_with(&[("own-format", &guest)]);
    let (broker, mut raw, topic) = started(Some(folder.path()), &[("stage.compressor", "own-format")]);
    broker.allow("there is no rollback");
    broker.allow("fails too often");
    let answer = topic.produce_by(&mut raw, 9, compressed(Codec::Gzip, &TEXTS));
    assert_eq!(answer.error_code, ErrorCode::INVALID_RECORD);
    assert!(answer.error_message.as_deref().is_some_and(|message| message.contains("own-format")), "{answer:?}");
    assert!(answer.record_errors.is_empty());
    assert_eq!(topic.end(&mut raw), 0);
    set(&mut raw, &topic, &[("stage.compressor.failure.policy", "pass")]);
    topic.produce(&mut raw, compressed(Codec::Gzip, &TEXTS));
    assert_eq!(stored_codecs(&broker, &topic), [Codec::Gzip]);
}

#[test]
fn a_filter_and_a_compressor_work_together() {
    let folder = folder_with(&[("own-format", &private())]);
    let options = [
        ("stage.admit", NOT_NEGATIVE),
        ("stage.admit.failure.policy", "skip"),
        ("stage.compressor", "own-format"),
        ("message.timestamp.type", "LogAppendTime"),
    ];
    let (_broker, mut raw, topic) = started(Some(folder.path()), &options);
    topic.produce(&mut raw, compressed(Codec::Zstd, &[r#"{"n":1}"#, "no json", r#"{"n":2}"#]));
    topic.produce(&mut raw, compressed(Codec::Zstd, &["no json", "no json"]));
    let answer = topic.produce_by(&mut raw, 9, compressed(Codec::None, &[r#"{"n":3}"#]));
    assert_eq!((answer.error_code, answer.base_offset), (ErrorCode::NONE, 5));
    let read = rows(&mut raw, &topic);
    let offsets: Vec<i64> = read.iter().map(|row| row.offset).collect();
    assert_eq!(offsets, [0, 2, 5]);
    assert_eq!(read[2].timestamp, answer.log_append_time_ms);
    // A view of the topic shows the same.
    let view = Topic::create(&mut raw, "view", 1, &[("view.of", "topic"), ("stage.filter", r#"contains{"text":"2"}"#)]);
    assert_eq!(values(&mut raw, &view).into_iter().collect::<Vec<_>>(), [(2, r#"{"n":2}"#.to_owned())]);
}

/// A compacted topic in a private format: the plug-in reads the batches, and of those that lose records the rest is
/// stored in the codec that was sent.
#[test]
fn a_private_format_is_compacted() {
    let folder = folder_with(&[("own-format", &private())]);
    let broker = Broker::builder()
        .plugins(folder.path())
        .set("log.cleaner.backoff.ms", "20")
        .set("log.cleaner.min.cleanable.ratio", "0.01")
        .start();
    let mut raw = Raw::connect(&broker);
    let configs = [("cleanup.policy", "compact"), ("internal.segment.bytes", "2000")];
    let topic = Topic::create(&mut raw, "topic", 1, &configs);
    set(&mut raw, &topic, &[("stage.compressor", "own-format")]);
    const RECORDS: usize = 300;
    const KEYS: usize = 7;
    for number in (0..RECORDS).step_by(2) {
        let mut batch = builder(Codec::Lz4, &[]);
        for number in [number, number + 1] {
            let (key, value) = (format!("key-{}", number % KEYS), format!("value-{number}"));
            batch.append(now_ms(), Some(key.as_bytes()), Some(value.as_bytes()), []).expect("room");
        }
        topic.produce(&mut raw, batch.build().expect("a batch"));
    }
    let found = wait_until("compaction", PATIENCE, || {
        let found = rows(&mut raw, &topic);
        (found.len() < RECORDS / 3).then_some(found)
    });
    let last: BTreeMap<_, _> = found.iter().map(|row| (row.key.clone().expect("a key"), row)).collect();
    assert_eq!(last.len(), KEYS);
    for number in RECORDS - KEYS..RECORDS {
        let row = last[&format!("key-{}", number % KEYS)];
        assert_eq!((row.offset, row.value.as_deref()), (number as i64, Some(&*format!("value-{number}"))));
    }
}
