//! A node with two data folders: where partitions are, and what happens when a folder is gone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use millstream_tests::{Broker, BrokerBuilder, wait_until};
use millstream_wire::messages::*;
use millstream_wire::{ConfigResourceType, ErrorCode};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{Raw, SET, Topic, alter_request, batch, fetch_request, fetched, values};

const PATIENCE: Duration = Duration::from_secs(20);

/// The partitions of the topic of a test.
const PARTITIONS: i32 = 4;

/// A broker with the data folders `a` and `b`, and the topic `t` with a record in each partition.
struct TwoFolders {
    broker: Broker,
    a: PathBuf,
    b: PathBuf,
    topic: Topic,
    temporary: TempDir,
}

impl TwoFolders {
    fn start(more: impl FnOnce(BrokerBuilder) -> BrokerBuilder) -> Self {
        let temporary = TempDir::new().expect("a folder");
        let (a, b) = (temporary.path().join("a"), temporary.path().join("b"));
        let broker = more(Broker::builder().folder(&a).more_folder(&b)).start();
        let mut raw = Raw::connect(&broker);
        let topic = Topic::create(&mut raw, "t", PARTITIONS, &[]);
        let this = Self { broker, a, b, topic, temporary };
        for index in 0..PARTITIONS {
            assert_eq!(this.produce(index), ErrorCode::NONE);
        }
        this
    }

    fn produce(&self, index: i32) -> ErrorCode {
        let mut raw = Raw::connect(&self.broker);
        let request = self.topic.produce_request(9, -1, index, batch(&[&format!("record of {index}")]));
        let response = raw.call(9, &request);
        response.responses[0].partition_responses[0].error_code
    }

    /// Returns the first record of a partition, or the error.
    fn read(&self, index: i32) -> Result<String, ErrorCode> {
        let mut raw = Raw::connect(&self.broker);
        let data = fetched(raw.call(12, &fetch_request(12, &[(&self.topic, index, 0, 64 << 20)], 0, 0)));
        match data.error_code {
            ErrorCode::NONE => Ok(values(data.records.as_bytes().expect("records"), 0).remove(0)),
            error => Err(error),
        }
    }

    fn assert_reads(&self, indexes: impl IntoIterator<Item = i32>) {
        for index in indexes {
            assert_eq!(self.read(index), Ok(format!("record of {index}")), "partition {index}");
        }
    }

    fn restart(&mut self) {
        self.broker.stop(Signal::TERM);
        self.broker.restart();
    }

    fn described(&self) -> Vec<DescribeLogDirsResult> {
        Raw::connect(&self.broker).call(5, &DescribeLogDirsRequest { topics: None }).results
    }
}

/// Returns the partitions of a topic that are in a data folder.
fn partitions_in(folder: &Path, topic: &str) -> BTreeSet<i32> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let partition = |name: &str| name.strip_prefix(topic)?.strip_prefix('-')?.parse().ok();
    entries.filter_map(|name| partition(name.to_str()?)).collect()
}

#[test]
fn partitions_are_spread_over_the_folders_and_stay_where_they_are() {
    let mut two = TwoFolders::start(|broker| broker);
    let places = [&two.a, &two.b].map(|folder| partitions_in(folder, "t"));
    assert_eq!((places[0].len(), places[1].len()), (2, 2), "{places:?}");
    let described = two.described();
    for (result, (folder, place)) in described.iter().zip([&two.a, &two.b].into_iter().zip(&places)) {
        assert_eq!((Path::new(&*result.log_dir), result.error_code), (&**folder, ErrorCode::NONE));
        let named = result.topics.iter().flat_map(|topic| topic.partitions.iter().map(|one| one.partition_index));
        assert_eq!(&named.collect::<BTreeSet<_>>(), place);
    }
    assert_eq!(described.len(), 2);
    for kill in [false, true] {
        if kill {
            two.broker.kill();
            two.broker.restart();
        } else {
            two.restart();
        }
        assert_eq!([&two.a, &two.b].map(|folder| partitions_in(folder, "t")), places);
        two.assert_reads(0..PARTITIONS);
    }
    // Each folder has its own checkpoints and its own id, in the same cluster.
    two.broker.stop(Signal::TERM);
    let meta = |folder: &Path, key: &str| {
        let text = fs::read_to_string(folder.join("meta.properties")).expect("a data folder");
        text.lines().find_map(|line| line.strip_prefix(&format!("{key}="))).expect("a value").to_owned()
    };
    assert_eq!(meta(&two.a, "cluster.id"), meta(&two.b, "cluster.id"));
    assert_ne!(meta(&two.a, "directory.id"), meta(&two.b, "directory.id"));
    for (folder, place) in [(&two.a, &places[0]), (&two.b, &places[1])] {
        let points = fs::read_to_string(folder.join("recovery-point-offset-checkpoint")).expect("a checkpoint");
        let named = points.lines().skip(2).filter_map(|line| line.strip_prefix("t ")?.split(' ').next()?.parse().ok());
        assert_eq!(&named.collect::<BTreeSet<i32>>(), place, "{points}");
        assert!(folder.join(".kafka_cleanshutdown").exists());
    }
    // A topic that is deleted leaves both folders.
    two.broker.restart();
    let mut raw = Raw::connect(&two.broker);
    let request = DeleteTopicsRequest { topic_names: vec!["t".into()], timeout_ms: 10_000, ..Default::default() };
    assert_eq!(raw.call(5, &request).responses[0].error_code, ErrorCode::NONE);
    assert!([&two.a, &two.b].iter().all(|folder| partitions_in(folder, "t").is_empty()));
}

#[test]
fn folders_that_cannot_be_used_together_are_named() {
    let temporary = TempDir::new().expect("a folder");
    let [a, b, c] = ["a", "b", "c"].map(|name| temporary.path().join(name));
    let rejected = |first: &Path, more: &[&Path], settings: &[(&str, &str)]| {
        let builder = more.iter().fold(Broker::builder().folder(first), |builder, folder| builder.more_folder(folder));
        settings.iter().fold(builder, |builder, (key, value)| builder.set(key, value)).rejected()
    };
    let text = |path: &Path| path.display().to_string();
    let twice = rejected(&a, &[&b, &temporary.path().join("b/../a")], &[]);
    assert!(twice.contains("is in log.dirs twice"), "{twice}");
    let nested = rejected(&a, &[&a.join("inner")], &[]);
    assert!(nested.contains("is inside of the data folder"), "{nested}");
    assert!(!a.exists() && !b.exists(), "nothing is created before the check");
    for folder in [&a, &c] {
        Broker::builder().folder(folder).start().stop(Signal::TERM);
    }
    let foreign = rejected(&a, &[&c], &[]);
    assert!(foreign.contains(&text(&c)) && foreign.contains("cluster.id="), "{foreign}");
    let elsewhere = rejected(&b, &[&a], &[]);
    assert!(elsewhere.contains(&format!("set metadata.log.dir={}", text(&a))), "{elsewhere}");
    assert!(!b.exists(), "it is not begun");
    let mut broker = Broker::builder().folder(&b).more_folder(&a).set("metadata.log.dir", &text(&a)).start();
    broker.stop(Signal::TERM);
    // The metadata is lost, and the partitions are there.
    let lost = rejected(&temporary.path().join("new"), &[&b], &[]);
    assert!(lost.contains("its metadata is not there"), "{lost}");
    let other = Broker::builder().folder(&c).start();
    fs::remove_dir_all(&b).expect("removable");
    fs::create_dir(&b).expect("a folder");
    fs::copy(a.join("meta.properties"), b.join("meta.properties")).expect("copied");
    let lock = fs::File::create(b.join(".lock")).expect("a lock");
    lock.try_lock().expect("locked");
    let in_use = rejected(&a, &[&b], &[]);
    assert!(in_use.contains(&text(&b)) && in_use.contains("in use by another broker"), "{in_use}");
    drop(other);
}

#[test]
fn a_folder_that_is_taken_off_the_list_takes_only_its_partitions_along() {
    let mut two = TwoFolders::start(|broker| broker.allow("the partition is offline").allow("cannot be used"));
    let (in_a, in_b) = (partitions_in(&two.a, "t"), partitions_in(&two.b, "t"));
    two.broker.stop(Signal::TERM);
    two.broker.set_more_folders(&[]);
    two.broker.restart();
    two.assert_reads(in_a.iter().copied());
    for index in &in_b {
        assert_eq!(two.read(*index), Err(ErrorCode::KAFKA_STORAGE_ERROR));
        assert_eq!(two.produce(*index), ErrorCode::KAFKA_STORAGE_ERROR);
    }
    assert!(two.broker.log().contains("is not in log.dirs"), "{}", two.broker.log());
    // Nothing took the place of the only copies.
    assert_eq!(partitions_in(&two.a, "t"), in_a);
    let (other, b) = (two.temporary.path().join("other"), two.b.clone());
    two.broker.stop(Signal::TERM);
    two.broker.set_more_folders(&[&other, &b]);
    two.broker.restart();
    two.assert_reads(0..PARTITIONS);
    let mut raw = Raw::connect(&two.broker);
    Topic::create(&mut raw, "next", 2, &[]);
    assert_eq!(partitions_in(&other, "next").len(), 2, "the new folder has the fewest partitions");
}

#[test]
fn a_folder_that_cannot_be_opened_is_offline_and_the_rest_is_served() {
    let mut two = TwoFolders::start(|broker| broker.allow("is offline").allow("cannot be used"));
    let (in_a, in_b) = (partitions_in(&two.a, "t"), partitions_in(&two.b, "t"));
    two.broker.stop(Signal::TERM);
    let away = two.temporary.path().join("away");
    fs::rename(&two.b, &away).expect("renamed");
    fs::write(&two.b, "not a folder").expect("a file");
    two.broker.restart();
    two.assert_reads(in_a.iter().copied());
    in_b.iter().for_each(|index| assert_eq!(two.read(*index), Err(ErrorCode::KAFKA_STORAGE_ERROR)));
    let described = two.described();
    assert_eq!(described[0].error_code, ErrorCode::NONE);
    assert_eq!((described[1].error_code, described[1].topics.len()), (ErrorCode::KAFKA_STORAGE_ERROR, 0));
    assert_eq!(Path::new(&*described[1].log_dir), two.b);
    let mut raw = Raw::connect(&two.broker);
    Topic::create(&mut raw, "next", 2, &[]);
    assert_eq!(partitions_in(&two.a, "next").len(), 2);
    two.broker.stop(Signal::TERM);
    fs::remove_file(&two.b).expect("removable");
    fs::rename(&away, &two.b).expect("renamed");
    two.broker.restart();
    two.assert_reads(0..PARTITIONS);
    assert!(two.described().iter().all(|folder| folder.error_code.is_ok()));
}

#[test]
fn a_folder_that_fails_while_the_broker_runs_takes_only_its_partitions_out_of_service() {
    let mut two = TwoFolders::start(|broker| {
        let parts = ["is offline", "cannot write the", "cannot be used"];
        let broker = broker.set("log.flush.offset.checkpoint.interval.ms", "100");
        parts.iter().fold(broker, |broker, part| broker.allow(part))
    });
    let (in_a, in_b) = (partitions_in(&two.a, "t"), partitions_in(&two.b, "t"));
    let away = two.temporary.path().join("away");
    fs::rename(&two.b, &away).expect("renamed");
    wait_until("the folder to be offline", PATIENCE, || {
        (two.described()[1].error_code == ErrorCode::KAFKA_STORAGE_ERROR).then_some(())
    });
    wait_until("its partitions to be offline", PATIENCE, || {
        let errors = in_b.iter().map(|index| two.read(*index));
        errors.into_iter().all(|read| read == Err(ErrorCode::KAFKA_STORAGE_ERROR)).then_some(())
    });
    in_b.iter().for_each(|index| assert_eq!(two.produce(*index), ErrorCode::KAFKA_STORAGE_ERROR));
    two.assert_reads(in_a.iter().copied());
    in_a.iter().for_each(|index| assert_eq!(two.produce(*index), ErrorCode::NONE));
    assert!(two.broker.is_running());
    fs::rename(&away, &two.b).expect("renamed");
    two.restart();
    two.assert_reads(0..PARTITIONS);
}

#[test]
fn the_node_ends_with_the_folder_of_its_metadata() {
    let mut two = TwoFolders::start(|broker| {
        let parts = ["is offline", "cannot write the", "No such file or directory"];
        let broker = broker.set("log.flush.offset.checkpoint.interval.ms", "100");
        parts.iter().fold(broker, |broker, part| broker.allow(part))
    });
    let away = two.temporary.path().join("away");
    fs::rename(&two.a, &away).expect("renamed");
    wait_until("the node to end", PATIENCE, || (!two.broker.is_running()).then_some(()));
    assert!(two.broker.log().contains("the data folder of the metadata"), "{}", two.broker.log());
    fs::rename(&away, &two.a).expect("renamed");
    two.broker.kill();
    two.broker.restart();
    two.assert_reads(0..PARTITIONS);
}

#[test]
fn a_partition_in_two_folders_is_used_where_it_is_known_to_be() {
    let mut two = TwoFolders::start(|broker| broker.allow("an old copy is set aside"));
    let in_b = partitions_in(&two.b, "t");
    let index = *in_b.first().expect("a partition");
    two.broker.stop(Signal::TERM);
    let copy = two.a.join(format!("t-{index}"));
    fs::create_dir(&copy).expect("a folder");
    two.broker.restart();
    two.assert_reads(0..PARTITIONS);
    assert!(!copy.exists());
    let names: Vec<String> = fs::read_dir(&two.a)
        .expect("a folder")
        .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
        .collect();
    assert_eq!(names.iter().filter(|name| name.ends_with("-stray")).count(), 1, "{names:?}");
    // Without the file that says where partitions are, none of the two is better than the other.
    two.broker.stop(Signal::TERM);
    fs::create_dir(&copy).expect("a folder");
    fs::remove_file(two.a.join("partition-directories")).expect("removable");
    let rejected = Broker::builder().folder(&two.a).more_folder(&two.b).rejected();
    assert!(rejected.contains(&format!("the partition t-{index} is in")), "{rejected}");
    fs::remove_dir(&copy).expect("removable");
    two.broker.restart();
    two.assert_reads(0..PARTITIONS);
}

#[test]
fn a_cordoned_folder_gets_no_new_partitions() {
    let mut two = TwoFolders::start(|broker| broker);
    let b = two.b.to_str().expect("text").to_owned();
    two.broker.set("cordoned.log.dirs", &b);
    two.restart();
    assert_eq!(two.described().iter().map(|folder| folder.is_cordoned).collect::<Vec<_>>(), [false, true]);
    Topic::create(&mut Raw::connect(&two.broker), "next", 3, &[]);
    assert_eq!((partitions_in(&two.a, "next").len(), partitions_in(&two.b, "next").len()), (3, 0));
    two.broker.set("cordoned.log.dirs", "");
    two.restart();
    Topic::create(&mut Raw::connect(&two.broker), "last", 2, &[]);
    assert_eq!((partitions_in(&two.a, "last").len(), partitions_in(&two.b, "last").len()), (0, 2));
    // While the broker runs, the same folders are allowed.
    let mut raw = Raw::connect(&two.broker);
    for (value, words) in [("/no/such/folder", &*b), (&format!("{},{b}", two.a.display()), "`*`")] {
        let mut request = alter_request("0", &[("cordoned.log.dirs", SET, Some(value))]);
        request.resources[0].resource_type = ConfigResourceType::Broker as i8;
        let response = raw.call(1, &request).responses.remove(0);
        let message = response.error_message.map(|text| text.to_string()).unwrap_or_default();
        assert!(!response.error_code.is_ok() && message.contains(words), "{value}: {message}");
    }
}

fn alter_log_dirs(raw: &mut Raw, folder: &Path, partitions: &[i32]) -> Vec<ErrorCode> {
    let topics = vec![AlterReplicaLogDirTopic { name: "t".into(), partitions: partitions.to_vec() }];
    let dirs = vec![AlterReplicaLogDir { path: folder.to_str().expect("text").into(), topics }];
    let response = raw.call(2, &AlterReplicaLogDirsRequest { dirs });
    response.results.into_iter().flat_map(|topic| topic.partitions).map(|one| one.error_code).collect()
}

#[test]
fn a_replica_moves_to_another_folder_while_it_takes_records() {
    const RECORDS: usize = 2000;
    let mut two = TwoFolders::start(|broker| broker);
    let mut raw = Raw::connect(&two.broker);
    let (in_a, in_b) = (partitions_in(&two.a, "t"), partitions_in(&two.b, "t"));
    let moved = *in_a.first().expect("a partition");
    assert_eq!(alter_log_dirs(&mut raw, Path::new("/no/such/folder"), &[moved]), [ErrorCode::LOG_DIR_NOT_FOUND]);
    assert_eq!(alter_log_dirs(&mut raw, &two.a, &[moved, 77]), [ErrorCode::NONE, ErrorCode::REPLICA_NOT_AVAILABLE]);
    let big = "x".repeat(4000);
    let mut sent = 1;
    let mut produce = |raw: &mut Raw, count: usize| {
        for _ in 0..count {
            let request = two.topic.produce_request(9, -1, moved, batch(&[&format!("{sent} {big}")]));
            let response = &raw.call(9, &request).responses[0].partition_responses[0];
            // A producer retries while the last records are copied.
            match response.error_code {
                ErrorCode::NONE => {
                    assert_eq!(response.base_offset, i64::try_from(sent).expect("small"));
                    sent += 1;
                }
                error => assert_eq!(error, ErrorCode::NOT_LEADER_OR_FOLLOWER),
            }
        }
    };
    produce(&mut raw, RECORDS);
    assert_eq!(alter_log_dirs(&mut raw, &two.b, &[moved]), [ErrorCode::NONE]);
    wait_until("the replica to move", PATIENCE, || {
        produce(&mut raw, 5);
        (partitions_in(&two.b, "t").contains(&moved) && !partitions_in(&two.a, "t").contains(&moved)).then_some(())
    });
    produce(&mut raw, 20);
    let whole = |two: &TwoFolders, count: usize| {
        let mut raw = Raw::connect(&two.broker);
        let mut values_read = Vec::new();
        while values_read.len() < count {
            let from = i64::try_from(values_read.len()).expect("small");
            let data = fetched(raw.call(12, &fetch_request(12, &[(&two.topic, moved, from, 64 << 20)], 0, 0)));
            assert_eq!(data.error_code, ErrorCode::NONE);
            values_read.extend(values(data.records.as_bytes().expect("records"), from));
        }
        assert_eq!(values_read[0], format!("record of {moved}"));
        let numbers = values_read[1..].iter().map(|value| value.split(' ').next().expect("a number").to_owned());
        assert_eq!(numbers.collect::<Vec<_>>(), (1..count).map(|number| number.to_string()).collect::<Vec<_>>());
    };
    whole(&two, sent);
    let described = two.described();
    let copies = described.iter().flat_map(|dir| &dir.topics).flat_map(|topic| &topic.partitions);
    assert!(copies.into_iter().all(|one| !one.is_future_key), "{described:?}");
    for kill in [true, false] {
        if kill {
            two.broker.kill();
            two.broker.restart();
        } else {
            two.restart();
        }
        whole(&two, sent);
        let expected: BTreeSet<i32> = in_b.iter().copied().chain([moved]).collect();
        assert_eq!(partitions_in(&two.b, "t"), expected);
    }
}

#[test]
fn a_move_that_was_cut_off_leaves_the_replica_where_it_was() {
    let mut two = TwoFolders::start(|broker| broker);
    let moved = *partitions_in(&two.a, "t").first().expect("a partition");
    two.broker.kill();
    let copy = two.b.join(format!("t-{moved}"));
    fs::create_dir(&copy).expect("a folder");
    fs::write(copy.join("future"), "").expect("a marker");
    two.broker.restart();
    two.assert_reads(0..PARTITIONS);
    assert!(!copy.exists());
}

/// The tool that moves replicas to brokers names the folder before a replica is there.
#[test]
fn a_new_replica_is_created_in_the_folder_that_was_asked_for() {
    let two = TwoFolders::start(|broker| broker);
    let mut raw = Raw::connect(&two.broker);
    let next = i32::try_from(partitions_in(&two.a, "t").len() + partitions_in(&two.b, "t").len()).expect("small");
    let fewest = alter_log_dirs(&mut raw, &two.b, &[next, next + 1]);
    assert_eq!(fewest, [ErrorCode::REPLICA_NOT_AVAILABLE; 2]);
    let topics = vec![CreatePartitionsTopic { name: "t".into(), count: next + 2, assignments: None }];
    let request = CreatePartitionsRequest { topics, timeout_ms: 10_000, validate_only: false };
    assert_eq!(raw.call(3, &request).results[0].error_code, ErrorCode::NONE);
    assert!(partitions_in(&two.b, "t").is_superset(&BTreeSet::from([next, next + 1])));
}
