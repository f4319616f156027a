//! The sources of configs (a properties file, `--set`, flags), and how bad ones are rejected.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use millstream_tests::{millstream, wait_until};
use millstream_wire::messages::*;
use tempfile::TempDir;

use crate::support::refused;

/// A running `millstream serve` with some arguments, and the address that it prints. The process ends when this is
/// dropped.
struct Started {
    child: std::process::Child,
    address: std::net::SocketAddr,
    /// It prints a line for each listener, so the pipe stays open.
    _stdout: BufReader<ChildStdout>,
}

impl Started {
    fn with(args: &[&str]) -> Self {
        let mut child = Command::new(millstream())
            .arg("serve")
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("millstream starts");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        stdout.read_line(&mut line).expect("a line");
        let address = line.trim_end().strip_prefix("listening on ").and_then(|address| address.parse().ok());
        let Some(address) = address else {
            child.kill().ok();
            panic!("expected `listening on HOST:PORT`, got {line:?}");
        };
        Self { child, address, _stdout: stdout }
    }

    /// Returns the value of a broker config and its source.
    fn setting(&self, key: &str) -> (String, i8) {
        let mut raw = crate::support::Raw::to(self.address);
        let resource = DescribeConfigsResource {
            resource_type: 4,
            resource_name: raw.call(12, &MetadataRequest::default()).brokers[0].node_id.to_string().into(),
            configuration_keys: Some(vec![key.into()]),
        };
        let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
        let config = raw.call(4, &request).results.remove(0).configs.remove(0);
        (config.value.as_deref().unwrap_or_default().to_owned(), config.config_source)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn file(folder: &TempDir, text: impl AsRef<[u8]>) -> String {
    let path = folder.path().join("server.properties");
    fs::write(&path, text).expect("written");
    path.display().to_string()
}

fn data(folder: &TempDir) -> String {
    folder.path().join("data").display().to_string()
}

#[test]
fn a_properties_file_as_java_reads_it() {
    let folder = TempDir::new().expect("a folder");
    let text = "# a comment\n! another\n\n  num.partitions = 5  \nlog.retention.ms:7200000\nmessage.max.bytes 123456\n\
        log.cleanup.policy=delete,\\\n    compact\nbroker.rack=r\\u00e4ck\\ 1\r\nlog.roll.ms=1000\nlog.roll.ms=2000\n";
    let config = file(&folder, text);
    let started = Started::with(&["--config", &config, "--data-dir", &data(&folder), "--listen", "127.0.0.1:0"]);
    for (key, value) in [
        ("num.partitions", "5"),
        ("log.retention.ms", "7200000"),
        ("message.max.bytes", "123456"),
        ("log.cleanup.policy", "delete,compact"),
        ("broker.rack", "räck 1"),
        ("log.roll.ms", "2000"),
    ] {
        assert_eq!(started.setting(key), (value.to_owned(), 4), "{key}");
    }
}

#[test]
fn set_is_stronger_than_the_file_and_flags_are_strongest() {
    let folder = TempDir::new().expect("a folder");
    let elsewhere = folder.path().join("elsewhere");
    let text = format!(
        "num.partitions=5\nlog.roll.ms=1000\nlog.dirs={}\nlisteners=PLAINTEXT://127.0.0.1:1\n",
        elsewhere.display()
    );
    let config = file(&folder, text);
    let started = Started::with(&[
        "--set",
        "num.partitions=6",
        "--config",
        &config,
        "--set",
        "num.partitions=7",
        "--data-dir",
        &data(&folder),
        "--listen",
        "127.0.0.1:0",
    ]);
    assert_eq!(started.setting("num.partitions").0, "7");
    assert_eq!(started.setting("log.roll.ms").0, "1000");
    assert_ne!(started.address.port(), 1);
    assert!(folder.path().join("data").join("meta.properties").exists());
    assert!(!elsewhere.exists());
}

/// The broker accepts the file that comes with Kafka, as far as it knows the keys.
#[test]
fn a_file_that_was_written_for_kafka_is_accepted() {
    let folder = TempDir::new().expect("a folder");
    let port = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port();
    let text = "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.bootstrap.servers=localhost:9093\n\
        listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://:9093\ninter.broker.listener.name=PLAINTEXT\n\
        advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093\n\
        controller.listener.names=CONTROLLER\n\
        listener.security.protocol.map=\
         CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL\n\
        num.network.threads=3\nnum.io.threads=8\nsocket.send.buffer.bytes=102400\nsocket.receive.buffer.bytes=102400\n\
        socket.request.max.bytes=104857600\nnum.partitions=1\nnum.recovery.threads.per.data.dir=1\n\
        offsets.topic.replication.factor=1\nshare.coordinator.state.topic.replication.factor=1\n\
        share.coordinator.state.topic.min.isr=1\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
        log.retention.hours=168\nlog.segment.bytes=1073741824\nlog.retention.check.interval.ms=300000\n";
    let text = text.replace("9093", &port.to_string());
    let config = file(&folder, format!("{text}log.dirs={}\n", data(&folder)));
    let started = Started::with(&["--config", &config]);
    // It is a cluster of one, and the broker has to register.
    let metadata = wait_until("the broker to register", Duration::from_secs(30), || {
        let metadata = crate::support::Raw::to(started.address).call(12, &MetadataRequest::default());
        (!metadata.brokers.is_empty()).then_some(metadata)
    });
    assert_eq!(metadata.brokers[0].node_id, 1);
    assert_eq!((metadata.brokers[0].host.as_str(), metadata.brokers[0].port), ("localhost", 9092));
}

#[test]
fn a_bad_file_is_named_with_its_line() {
    let folder = TempDir::new().expect("a folder");
    for (text, named, line) in [
        ("num.partitions=1\nnum.partition=3\n", "num.partition", "2"),
        ("\n\n# x\nnum.partitions=many\n", "num.partitions", "4"),
        ("log.cleanup.policy=burn\n", "log.cleanup.policy", "1"),
        ("num.partitions=\\u12\n", "server.properties", "1"),
        ("num.partitions=0\n", "num.partitions", "1"),
        ("log.roll.ms=99999999999999999999\n", "log.roll.ms", "1"),
        ("auto.create.topics.enable=maybe\n", "auto.create.topics.enable", "1"),
    ] {
        let config = file(&folder, text);
        let words = refused(["--config", &config, "--data-dir", &data(&folder)]);
        assert!(words.contains(named), "{text:?}: {words}");
        assert!(words.contains("server.properties") && words.contains(&format!("line {line}")), "{text:?}: {words}");
    }
    let config = file(&folder, b"num.partitions=\xff\n");
    let words = refused(["--config", &config, "--data-dir", &data(&folder)]);
    assert!(words.contains("server.properties"), "{words}");
    assert!(!folder.path().join("data").exists(), "nothing is made before the settings are right");
}

#[test]
fn a_missing_file_is_named() {
    let folder = TempDir::new().expect("a folder");
    for path in [folder.path().join("absent.properties"), folder.path().to_owned()] {
        let words = refused(["--config", &path.display().to_string(), "--data-dir", &data(&folder)]);
        assert!(words.contains(&path.display().to_string()), "{words}");
    }
}

#[test]
fn a_bad_pair_is_named_with_a_hint() {
    let folder = TempDir::new().expect("a folder");
    for (pair, named) in [
        ("num.partitions", "KEY=VALUE"),
        ("num.partition=3", "num.partitions"),
        ("retention.ms=1", "log.retention.ms"),
        ("num.partitions=-1", "num.partitions"),
        ("listeners=SSL://127.0.0.1:0", "SSL"),
        ("listeners=nonsense", "listeners"),
        ("advertised.listeners=PLAINTEXT://0.0.0.0:9092", "advertised.listeners"),
        ("flush.mode=never", "flush.mode"),
        ("compression.lz4.level=3", "compression.lz4.level: expected 9, the only value that is supported"),
        ("remote.log.storage.system.enable=true", "remote.log.storage.system.enable"),
        ("log.dirs=/a,,/b", "log.dirs"),
    ] {
        let args = ["--data-dir", &data(&folder), "--set", pair];
        let args = if pair.starts_with("log.dirs") { &args[2..] } else { &args[..] };
        let words = refused(args);
        assert!(words.contains(named), "{pair}: {words}");
    }
}

#[test]
fn an_address_in_use_or_invalid_is_named() {
    let folder = TempDir::new().expect("a folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let end = millstream_tests::Tool::new(millstream())
        .args(["serve", "--data-dir", &data(&folder), "--listen", &address])
        .run();
    assert_eq!(end.code, Some(1), "{}", end.stderr);
    assert!(end.stderr.contains(&address), "{}", end.stderr);
}
