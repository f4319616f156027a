//! The parsers of files and texts: checkpoints, ids, configurations, the records of plug-ins, plug-ins themselves, and
//! the log of the quorum. Any bytes give a value or an error.

use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use bolero::{TypeGenerator, produce};
use bytes::Bytes;
use millstream_broker::{HostPort, RawConfig};
use millstream_log::{Log, LogConfig, MetaProperties, OffsetCheckpoint, OpenOptions, PartitionDirectories};
use millstream_quorum::storage::{FileDisk, Wal, snapshot};
use millstream_record::KafkaUuid;
use millstream_registry::format::{Key, Manifest, parse_stage_configs};
use millstream_stage::{Digest, Limits, StageSpec, scan};

use crate::TEST_TIME;
use crate::damage::{Damage, damaged};
use crate::folder::{files, read_all, tempdir};

/// A text: one of some valid ones, damaged, or arbitrary bytes.
#[derive(Clone, Debug, TypeGenerator)]
struct Text {
    valid: Option<u8>,
    #[generator(produce::<Vec<Damage>>().with().len(0..4usize))]
    damages: Vec<Damage>,
}

impl Text {
    fn of(&self, valid: &[&str]) -> Vec<u8> {
        let text = self.valid.map_or("", |at| valid[usize::from(at) % valid.len()]);
        damaged(text.as_bytes(), &self.damages)
    }
}

/// The smallest valid files of each kind.
const CHECKPOINTS: [&str; 6] = [
    "0\n2\norders 0 1200\norders 1 37\n",
    "0\n0\n",
    "0\n1\norders 0 AAAAAAAAAAAAAAAAAAAABw AAAAAAAAAAAAAAAAAAAACQ\n",
    "#\ncluster.id=c\ndirectory.id=AAAAAAAAAAAAAAAAAAAABw\nnode.id=1\nversion=1\n",
    "0\n2\n0 0\n3 17\n",
    "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAABw",
];

#[test]
fn checkpoints_and_ids_are_rejected_or_make_a_round_trip() {
    let dir = tempdir();
    let dir = dir.path().to_owned();
    fs::create_dir_all(&dir).expect("a folder");
    bolero::check!().with_test_time(TEST_TIME).with_type().for_each(|text: &Text| {
        let bytes = text.of(&CHECKPOINTS);
        let checkpoint = OffsetCheckpoint::new(&dir, OffsetCheckpoint::RECOVERY_POINT);
        fs::write(checkpoint.path(), &bytes).expect("a writable folder");
        match checkpoint.read() {
            Ok(offsets) => {
                let entries = offsets.iter().map(|((topic, partition), offset)| (topic.as_str(), *partition, *offset));
                checkpoint.write(entries).expect("a writable folder");
                assert_eq!(checkpoint.read().expect("it was just written"), offsets);
            }
            Err(error) => assert!(error.to_string().contains(OffsetCheckpoint::RECOVERY_POINT), "{error}"),
        }
        let directories = PartitionDirectories::new(&dir);
        fs::write(dir.join("partition-directories"), &bytes).expect("a writable folder");
        if let Ok(Some(found)) = directories.read() {
            directories.write(&found).expect("a writable folder");
            assert_eq!(directories.read().expect("it was just written"), Some(found));
        }
        fs::write(dir.join("meta.properties"), &bytes).expect("a writable folder");
        if let Ok(meta) = MetaProperties::read(&dir) {
            assert!(meta.is_some_and(|meta| meta.cluster_id.len() <= bytes.len()));
        }
        let text = String::from_utf8_lossy(&bytes);
        for part in text.split([' ', '\n', '=']) {
            if let Ok(id) = part.parse::<KafkaUuid>() {
                assert_eq!(id.to_string().parse::<KafkaUuid>().map(|again| again.0), Ok(id.0));
            }
        }
    });
}

/// Damage to the files beside the segments.
#[derive(Clone, Debug, TypeGenerator)]
struct Caches {
    #[generator(produce::<Vec<(u8, Text)>>().with().len(1..5usize))]
    contents: Vec<(u8, Text)>,
    is_clean: bool,
}

/// The names of the files beside the first segment.
const BESIDE: [&str; 6] = [
    "00000000000000000000.index",
    "00000000000000000000.timeindex",
    "00000000000000000000.txnindex",
    "00000000000000000014.snapshot",
    "leader-epoch-checkpoint",
    "partition.metadata",
];

#[test]
fn files_beside_a_log_may_hold_anything() {
    // Three batches that Apache Kafka wrote, of which one transaction was aborted.
    let kafkas = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../host/log/tests/kafka_4_2");
    let made = files(&kafkas);
    let config = LogConfig { index_interval_bytes: 1, ..LogConfig::default() };
    let expected = {
        let dir = write(&made);
        read_all(&Log::open(dir.path(), config.clone(), OpenOptions::default()).expect("Kafka's log"), 700)
            .expect("Kafka's log is sound")
    };
    let end = expected.last().expect("it has batches").next_offset;
    bolero::check!().with_test_time(TEST_TIME).with_type().for_each(|input: &Caches| {
        let dir = write(&made);
        for (file, text) in &input.contents {
            let name = BESIDE[usize::from(*file) % BESIDE.len()];
            let valid = made.get(name).cloned().unwrap_or_default();
            let content = match text.valid {
                Some(_) => damaged(&valid, &text.damages),
                None => text.of(&CHECKPOINTS),
            };
            fs::write(dir.path().join(name), content).expect("a writable folder");
        }
        let options = OpenOptions {
            clean_shutdown: input.is_clean,
            recovery_point: if input.is_clean { end } else { 0 },
            ..OpenOptions::default()
        };
        let log = Log::open(dir.path(), config.clone(), options).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(read_all(&log, 700).expect("the segment is sound"), expected);
    });
}

/// Writes files into a new folder.
fn write(files: &crate::folder::Files) -> tempfile::TempDir {
    let dir = tempdir();
    for (name, content) in files {
        fs::write(dir.path().join(name), content).expect("a writable folder");
    }
    dir
}

/// Lines of configurations, with every kind of value.
const CONFIGS: [&str; 8] = [
    "node.id=1\nprocess.roles=broker,controller\ncontroller.quorum.voters=1@localhost:9093\n",
    "listeners=PLAINTEXT://:9092,CONTROLLER://[::1]:9093\nadvertised.listeners=PLAINTEXT://b\\u00e9:9092\n",
    "log.dirs=/a,/b\nlog.retention.hours=168\nlog.retention.bytes=-1\n",
    "log.cleaner.io.buffer.load.factor=0.9\nmin.insync.replicas:2\ncompression.type zstd\n",
    "inter.broker.listener.name=X\nlistener.security.protocol.map=X:PLAINTEXT,Y:PLAINTEXT\n",
    "# a comment\n! another\nauto.create.topics.enable = false\\\n  \n",
    "controller.quorum.bootstrap.servers=a:1,b:2\ncontroller.listener.names=CONTROLLER\nprocess.roles=controller\n",
    "transaction.max.timeout.ms=900000\nlog.cleanup.policy=compact,delete\nlog.message.timestamp.type=LogAppendTime",
];

#[test]
fn configurations_are_rejected_by_name_or_read() {
    let dir = tempdir();
    let path = dir.path().join("server.properties");
    bolero::check!().with_test_time(TEST_TIME).with_type().for_each(|(first, second): &(Text, Text)| {
        let bytes = [first.of(&CONFIGS), second.of(&CONFIGS)].concat();
        fs::write(&path, &bytes).expect("a writable folder");
        let mut config = RawConfig::default();
        match config.load_file(&path) {
            Ok(()) => drop(config.check()),
            Err(error) => assert!(error.to_string().contains("server.properties"), "{error}"),
        }
        let text = String::from_utf8_lossy(&bytes);
        // The error for an unknown key looks for the nearest one, which takes long.
        for line in text.lines().take(2) {
            let _ = RawConfig::default().set_pair(line);
        }
        for part in text.split([',', '=', '/', '\n']) {
            if let Ok(address) = part.parse::<HostPort>() {
                assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    });
}

/// Records of the topic of plug-ins, and texts of stages.
const PLUGINS: [&str; 8] = [
    concat!(
        r#"{"name":"a","revision":3,"kind":"filter","active":1,"next":2,"versions":[{"number":1,"digest":""#,
        r#"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","size":100,"chunks":1,"version":"1.0","#,
        r#""pushed_ms":5,"bad":null}],"history":[{"at_ms":5,"event":"pushed","version":1,"reason":"r"}]}"#
    ),
    r#"{"stage.partitioner":"murmur2","stage.compressor":"lz4@1{\"level\":3}"}"#,
    "chunk/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef/7",
    "plugin/a",
    "topic/orders",
    r#"contains{"text":"a | b}{"} | json-compare@1{"x":[1,{"y":"}"}]} | last"#,
    r#"./mine.wasm{"limit":7}"#,
    "murmur2",
];

#[test]
fn records_of_plugins_are_rejected_or_make_a_round_trip() {
    bolero::check!().with_test_time(TEST_TIME).with_type().for_each(|text: &Text| {
        let bytes = text.of(&PLUGINS);
        if let Ok(key) = Key::parse(Some(&bytes)) {
            assert_eq!(key.to_string().as_bytes(), bytes, "each key has one spelling");
        }
        if let Ok(manifest) = Manifest::parse("a", &bytes) {
            assert_eq!(Manifest::parse("a", &manifest.to_bytes()).as_ref(), Ok(&manifest));
        }
        if let Ok(stages) = parse_stage_configs(&bytes) {
            assert!(stages.values().all(|stage| StageSpec::parse(stage).is_ok()));
        }
        let text = String::from_utf8_lossy(&bytes);
        match StageSpec::parse_chain(&text) {
            Ok(chain) => {
                let written: Vec<String> = chain.iter().map(ToString::to_string).collect();
                assert_eq!(StageSpec::parse_chain(&written.join(" | ")), Ok(chain));
            }
            Err(error) => assert!(error.at <= text.chars().count(), "{error:?}"),
        }
        for part in text.split(['/', '"']) {
            if let Ok(digest) = part.parse::<Digest>() {
                assert_eq!(digest.to_string().parse(), Ok(digest));
            }
        }
    });
}

/// A component with each kind of section that the scan measures.
static COMPONENT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let text = r#"(component
        (core module $m
            (import "a" "b" (func (param i32)))
            (memory (export "memory") 1 2)
            (table 3 funcref)
            (global (mut i32) (i32.const 1))
            (func (export "f") (param i32) (result i32) (local i64) local.get 0 i32.const 7 i32.add)
            (data (i32.const 0) "some data"))
        (import "x:y/z@1.0.0" (instance (export "f" (func (param "p" string) (result (list u8)))))))"#;
    wat::parse_str(text).expect("a component")
});

#[test]
fn any_bytes_pass_the_scan_of_plugins_or_are_rejected_with_a_reason() {
    let limits = Limits::default();
    bolero::check!().with_test_time(TEST_TIME).with_type().for_each(|text: &Text| {
        let bytes = match text.valid {
            Some(_) => damaged(&COMPONENT, &text.damages),
            None => text.of(&PLUGINS),
        };
        match scan::scan(&bytes, &limits) {
            Ok(_) => assert!(scan::inspect(&bytes, &limits).refusals.is_empty()),
            Err(refusals) => {
                assert!(!refusals.first().to_string().is_empty());
                assert!(!scan::inspect(&bytes, &limits).refusals.is_empty());
            }
        }
    });
}

#[derive(Clone, Debug, TypeGenerator)]
struct DamagedQuorum {
    #[generator(produce::<Vec<Vec<u8>>>().with().len(1..12usize))]
    entries: Vec<Vec<u8>>,
    #[generator(100..2000u64)]
    segment_bytes: u64,
    file: u8,
    #[generator(produce::<Vec<Damage>>().with().len(1..3usize))]
    damages: Vec<Damage>,
}

#[test]
fn a_damaged_log_of_the_quorum_is_rejected_or_begins_with_what_was_written() {
    bolero::check!().with_test_time(TEST_TIME).with_type().for_each(|input: &DamagedQuorum| {
        let dir = tempdir();
        let disk = Arc::new(FileDisk::open(dir.path()).expect("a folder"));
        let mut wal = Wal::open(disk.clone(), input.segment_bytes).expect("an empty folder");
        let entries: Vec<Bytes> = input.entries.iter().map(|entry| Bytes::copy_from_slice(entry)).collect();
        for (index, entry) in (0..).zip(&entries) {
            wal.append(index, vec![entry.clone()]).expect("a working disk");
        }
        drop(wal);
        let state = snapshot::StoredSnapshot { description: entries[0].clone(), state: Bytes::from_static(b"state") };
        snapshot::save(&*disk, &state).expect("a working disk");
        let all = files(dir.path());
        let (name, content) = all.iter().nth(usize::from(input.file) % all.len()).expect("it has files");
        fs::write(dir.path().join(name), damaged(content, &input.damages)).expect("a writable folder");
        match snapshot::load(&*disk) {
            Ok(found) => assert!(found.is_none_or(|found| found == state)),
            Err(error) => assert!(error.to_string().contains(dir.path().to_str().expect("a plain path")), "{error}"),
        }
        let opened = Wal::open(Arc::new(FileDisk::open(dir.path()).expect("a folder")), input.segment_bytes);
        match opened {
            Ok(wal) => {
                let found: Vec<Bytes> = wal.entries(0..wal.end()).cloned().collect();
                assert!(entries.starts_with(&found), "{found:?}");
            }
            Err(error) => assert!(error.to_string().contains(dir.path().to_str().expect("a plain path")), "{error}"),
        }
    });
}
