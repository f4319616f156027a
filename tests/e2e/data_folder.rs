//! Broken files beside the logs: each error names the file and says what to do, without a panic.

use std::fs;
use std::path::Path;

use millstream_record::{BatchBuilder, Codec, TimestampType, batches};
use millstream_tests::{Broker, copy_folder};
use millstream_wire::ErrorCode;
use millstream_wire::messages::{MetadataRequest, MetadataRequestTopic, MetadataResponsePartition};
use rustix::process::Signal;

use crate::support::{Raw, Topic, batch, refused};

/// Returns the folder of a stopped broker, with one topic of one record.
fn folder_in_use_before(kill: bool) -> (tempfile::TempDir, Topic) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut broker = Broker::builder().folder(folder.path().join("data")).start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[]);
    topic.produce(&mut raw, batch(&["value"]));
    if kill {
        broker.kill();
    } else {
        broker.stop(Signal::TERM);
    }
    (folder, topic)
}

fn refused_on(folder: &Path) -> String {
    refused([Path::new("--data-dir"), folder])
}

#[test]
fn meta_properties_that_cannot_be_used_are_named() {
    let (folder, topic) = folder_in_use_before(false);
    let data = folder.path().join("data");
    let path = data.join("meta.properties");
    let written = fs::read_to_string(&path).expect("meta.properties");
    // By hand, without the comment that has the checksum.
    let sound =
        written.lines().filter(|line| !line.starts_with('#')).fold(String::new(), |all, line| all + line + "\n");
    let without = |key: &str| {
        sound.lines().filter(|line| !line.starts_with(key)).fold(String::new(), |all, line| all + line + "\n")
    };
    for (what, text) in [
        ("garbage", b"\xff\xfe\x00garbage".to_vec()),
        ("nothing", Vec::new()),
        ("no cluster id", without("cluster.id").into_bytes()),
        ("no node id", without("node.id").into_bytes()),
        ("a node id that is none", sound.replace("node.id=0", "node.id=many").into_bytes()),
        ("a version of the future", sound.replace("version=1", "version=7").into_bytes()),
    ] {
        fs::write(&path, &text).expect("written");
        let words = refused_on(&data);
        assert!(words.contains("meta.properties"), "{what}: {words}");
        assert_eq!(fs::read(&path).expect("it is there"), text, "{what}: it is not overwritten");
    }
    // The folder of another broker.
    fs::write(&path, sound.replace("node.id=0", "node.id=7")).expect("written");
    let words = refused_on(&data);
    assert!(words.contains("node.id") && words.contains('7'), "{words}");
    // Once repaired, it works as before.
    fs::write(&path, &sound).expect("written");
    let broker = Broker::builder().folder(data).start();
    assert_eq!(topic.read(&mut Raw::connect(&broker), 0), ["value"]);
}

#[test]
fn an_invalid_data_folder_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "text").expect("written");
    for place in [file.clone(), file.join("below"), Path::new("/proc/no/such/place").to_owned()] {
        let words = refused_on(&place);
        assert!(words.contains(&place.display().to_string()), "{words}");
    }
}

#[test]
fn a_damaged_metadata_log_stops_the_start_and_is_named() {
    for kill in [true, false] {
        let (folder, topic) = folder_in_use_before(kill);
        let data = folder.path().join("data");
        let path = data.join("__cluster_metadata-0").join("00000000000000000000.log");
        let sound = fs::read(&path).expect("the metadata log");
        // Within the first of several batches, so it cannot be a torn tail.
        for place in [8, 17, 61, 70] {
            let mut bytes = sound.clone();
            bytes[place] ^= 0x20;
            fs::write(&path, &bytes).expect("damaged");
            let words = refused_on(&data);
            assert!(words.contains("__cluster_metadata-0"), "byte {place}, kill: {kill}: {words}");
            assert_eq!(fs::read(&path).expect("it is there"), bytes, "it is not repaired by forgetting");
        }
        fs::write(&path, &sound).expect("mended");
        let broker = Broker::builder().folder(data).start();
        assert_eq!(topic.read(&mut Raw::connect(&broker), 0), ["value"]);
    }
}

#[test]
fn garbage_in_the_checkpoints_costs_time_and_no_data() {
    for kill in [true, false] {
        let (folder, topic) = folder_in_use_before(kill);
        let data = folder.path().join("data");
        let names =
            ["recovery-point-offset-checkpoint", "log-start-offset-checkpoint", "replication-offset-checkpoint"];
        for text in [
            "garbage",
            "0\n1\ntopic zero five\n",
            "0\n5\ntopic 0 1\n",
            "9\n1\ntopic 0 1\n",
            "0\n-1\n",
            "0\n99999999999\n",
        ] {
            for name in names {
                fs::write(data.join(name), text).expect("written");
            }
            let mut broker = Broker::builder().folder(&data).start();
            broker.allow("a checkpoint is ignored");
            assert_eq!(topic.read(&mut Raw::connect(&broker), 0), ["value"], "{text:?}, kill: {kill}");
            let named = broker.log().lines().any(|line| line.contains("WARN") && line.contains("checkpoint"));
            assert!(named, "{text:?}: the log names it:\n{}", broker.log());
            if kill {
                broker.kill();
            } else {
                broker.stop(Signal::TERM);
            }
        }
    }
}

/// Unknown files and folders are left alone, or set aside with a log line, and stop nothing.
#[test]
fn strangers_in_the_folder_stop_nothing() {
    let (folder, topic) = folder_in_use_before(true);
    let data = folder.path().join("data");
    fs::write(data.join("notes.txt"), "mine").expect("written");
    fs::create_dir(data.join("lost+found")).expect("made");
    fs::create_dir(data.join("unknown-0")).expect("made");
    fs::write(data.join("unknown-0").join("00000000000000000000.log"), "data").expect("written");
    fs::write(data.join("topic-0").join("notes.txt"), "mine").expect("written");
    fs::write(data.join("topic-0").join("00000000000000000099.index"), "an index without a log").expect("written");
    let broker = Broker::builder().folder(&data).start();
    broker.allow("belongs to no partition of this broker");
    let mut raw = Raw::connect(&broker);
    assert_eq!(topic.read(&mut raw, 0), ["value"]);
    assert_eq!(fs::read_to_string(data.join("notes.txt")).expect("kept"), "mine");
    // A topic of the same name does not get the unknown folder's data.
    let unknown = Topic::create(&mut raw, "unknown", 1, &[]);
    assert_eq!(unknown.produce(&mut raw, batch(&["value"])), 0);
    let kept = fs::read_dir(&data).expect("the folder").flatten().any(|entry| {
        let path = entry.path().join("00000000000000000000.log");
        fs::read(path).is_ok_and(|bytes| bytes == b"data")
    });
    assert!(kept, "unknown data is not removed");
}

/// Looks up a topic by its name.
fn lookup(raw: &mut Raw, name: &str) -> (Topic, Vec<MetadataResponsePartition>) {
    let requested = MetadataRequestTopic { name: Some(name.into()), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![requested]), ..Default::default() };
    let found = raw.call(12, &request).topics.remove(0);
    assert_eq!(found.error_code, ErrorCode::NONE, "{name}");
    (Topic { name: name.into(), id: found.topic_id }, found.partitions)
}

/// The fixture comes from a program whose metadata records had no versions. It has a topic, a view of it, a deleted
/// topic, changed configs and a group, and it was killed once.
#[test]
fn a_folder_of_the_first_metadata_format_opens_and_keeps_its_format() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    copy_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/data-folder-1"), &data);
    let mut broker = Broker::builder().folder(data.clone()).start();
    let mut raw = Raw::connect(&broker);
    let (orders, partitions) = lookup(&mut raw, "orders");
    let found: Vec<_> = partitions.iter().map(|one| (one.leader_id, one.leader_epoch, &one.isr_nodes[..])).collect();
    assert_eq!(found, [(0, 1, &[0][..]), (0, 1, &[0][..])], "the kill has raised the leader epoch");
    let (view, _) = lookup(&mut raw, "orders-view");
    assert_eq!(orders.read(&mut raw, 0), ["d", "e"]);
    assert_eq!(view.read(&mut raw, 0), ["d", "e"]);
    let new = Topic::create(&mut raw, "new", 2, &[]);
    new.produce(&mut raw, batch(&["value"]));
    broker.stop(Signal::TERM);
    // An upgrade can be undone: new metadata is written in the format of the folder.
    let log = fs::read(data.join("__cluster_metadata-0/00000000000000000000.log")).expect("the metadata log");
    let log = String::from_utf8_lossy(&log);
    assert!(log.contains(r#""name":"new""#) && !log.contains("version"), "{log}");
    let broker = Broker::builder().folder(data).start();
    assert_eq!(new.read(&mut Raw::connect(&broker), 0), ["value"]);
}

#[test]
fn a_metadata_record_of_a_newer_program_is_named() {
    let (folder, _) = folder_in_use_before(false);
    let data = folder.path().join("data");
    let path = data.join("__cluster_metadata-0/00000000000000000000.log");
    let sound = fs::read(&path).expect("the metadata log");
    for (record, expected) in [
        (r#"{"type":"topic_created","version":3}"#, "metadata record topic_created has version 3"),
        (r#"{"type":"broker_painted","id":1}"#, "does not know the metadata record broker_painted"),
        (r#"{"type":"feature_level_set","level":9}"#, "feature level 9"),
    ] {
        let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
        let offset = batches(&sound).last().expect("a batch").expect("a whole batch").next_offset();
        builder.base_offset(offset).leader_epoch(0);
        builder.append(0, None, Some(record.as_bytes()), []).expect("a small record");
        let added = builder.build().expect("a small batch");
        fs::write(&path, [&sound[..], &added[..]].concat()).expect("written");
        let message = refused_on(&data);
        assert!(message.contains(expected), "{message}");
    }
}

/// A partition folder of another broker goes on here: the topic has an id of its own, and older leader epochs.
#[test]
fn a_partition_folder_of_another_broker_goes_on_here() {
    let mut other = Broker::start();
    let topic = Topic::create(&mut Raw::connect(&other), "topic", 1, &[]);
    for value in ["0", "1", "2"] {
        topic.produce(&mut Raw::connect(&other), batch(&[value]));
        // Each start after a kill has a later epoch.
        other.kill();
        other.restart();
    }
    topic.produce(&mut Raw::connect(&other), batch(&["3"]));
    assert_eq!(other.stop(Signal::TERM).code(), Some(0));

    let mut broker = Broker::start();
    let topic = Topic::create(&mut Raw::connect(&broker), "topic", 1, &[]);
    assert_eq!(broker.stop(Signal::TERM).code(), Some(0));
    millstream_tests::move_partition(&other.folder().join("topic-0"), &broker.folder().join("topic-0"));
    broker.restart();
    let mut raw = Raw::connect(&broker);
    assert_eq!(topic.read(&mut raw, 0), ["0", "1", "2", "3"]);
    assert_eq!(topic.produce(&mut raw, batch(&["4"])), 4);
    broker.kill();
    broker.restart();
    let mut raw = Raw::connect(&broker);
    assert_eq!(topic.read(&mut raw, 0), ["0", "1", "2", "3", "4"]);
    // The epochs of the other broker are known, and clients receive a later one.
    let latest = topic.offset_for(&mut raw, 0, -1);
    assert!(latest.leader_epoch >= 3, "{latest:?}");
}
