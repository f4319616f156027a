//! Jobs of stream processors with exactly-once processing: each is ended abruptly twice, and then run to the end. The
//! job checks what it has written. Each runs on our broker and, as a proof of the check, on Apache Kafka.

use std::path::{Path, PathBuf};
use std::time::Duration;

use libtest_mimic::Trial;
use millstream_tests::{Broker, KAFKA_CLASSPATH, KafkaNode, Tool};
use tempfile::TempDir;

/// The configs of a broker for a job that is ended and started again: groups and transactions are soon given up.
const CONFIGS: [(&str, &str); 3] = [
    ("group.initial.rebalance.delay.ms", "0"),
    ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "500"),
    ("group.min.session.timeout.ms", "1000"),
];

/// The updates after which each of the first runs ends.
const ENDS: [u32; 2] = [500, 900];

/// A job: its name, the variable that names what it needs, and the command that runs it.
type Job = (&'static str, &'static str, fn(&str) -> Tool);

const JOBS: [Job; 2] =
    [("kafka_streams", KAFKA_CLASSPATH, kafka_streams), ("quix_streams", "MILLSTREAM_QUIX", quix_streams)];

pub(crate) fn trials() -> Vec<Trial> {
    let ours = JOBS.iter().map(|&(name, variable, job)| {
        crate::trial(&format!("exactly_once::{name}"), variable, move |value| {
            let broker = CONFIGS.iter().fold(Broker::builder(), |builder, (key, value)| builder.set(key, value));
            run(&|| job(value), &broker.start().bootstrap());
        })
    });
    let theirs = JOBS.iter().map(|&(name, variable, job)| {
        crate::trial(&format!("exactly_once::beside_kafka::{name}"), variable, move |value| {
            let classpath = std::env::var(KAFKA_CLASSPATH).expect("the class path of Apache Kafka");
            let kafka = KafkaNode::start_release(&classpath, &[], &CONFIGS);
            run(&|| job(value), &kafka.bootstrap());
        })
    });
    ours.chain(theirs).collect()
}

fn run(job: &dyn Fn() -> Tool, bootstrap: &str) {
    let folder = TempDir::new().expect("a temporary folder");
    let limit = Duration::from_secs(180);
    let output = job().args(["prepare", bootstrap]).limit(limit).succeed();
    assert!(output.ends_with("prepare: ok\n"), "{output}");
    let count = || job().args(["count", bootstrap]).arg(folder.path()).limit(limit);
    for updates in ENDS {
        let end = count().arg(updates.to_string()).run();
        assert_eq!(end.code, Some(9), "it did not end after {updates} updates: {}{}", end.stdout, end.stderr);
    }
    let output = count().succeed();
    assert!(output.ends_with("count: ok\n"), "{output}");
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop").join(name)
}

fn kafka_streams(classpath: &str) -> Tool {
    // Java compiles the file itself.
    let options = ["-Xmx256m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"];
    Tool::new("java").args(options).args(["-cp", classpath]).arg(file("java/WordCounts.java"))
}

fn quix_streams(python: &str) -> Tool {
    Tool::new(python).env("PYTHONDONTWRITEBYTECODE", "1").arg(file("python/with_quix_streams.py"))
}
