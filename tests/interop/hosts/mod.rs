//! Runs the tests of the packages in `sdk/hosts`, plug-ins inside the Kafka clients of other languages, with plug-ins
//! and a broker.

mod plugins;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libtest_mimic::Trial;
use millstream_tests::{Broker, Tool, millstream};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        crate::trial("hosts::python", "MILLSTREAM_PYTHON", python),
        crate::trial("hosts::node", "MILLSTREAM_HOSTS_NODE", node),
        crate::trial("hosts::go", "MILLSTREAM_HOSTS_GO", go),
        crate::trial("hosts::java", "MILLSTREAM_HOSTS_JAVA", java),
    ]
}

/// Returns the folder of a package.
fn package(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie in the workspace");
    root.join("sdk/hosts").join(name)
}

/// Starts a broker with topics of six partitions and, for each, a view of what contains `error`.
fn broker(topics: &[&str]) -> Broker {
    let broker = Broker::builder().set("group.initial.rebalance.delay.ms", "0").start();
    let run = |arguments: &[&str]| {
        Tool::new(millstream()).args(arguments).args(["-b", &broker.bootstrap()]).succeed();
    };
    for topic in topics {
        run(&["topic", "create", topic, "-p", "6"]);
        run(&["view", "create", &format!("{topic}-view"), "--of", topic, "--filter", r#"contains{"text":"error"}"#]);
    }
    broker
}

/// Gives a program the plug-ins and the broker, and runs it.
fn run(tool: Tool, broker: &Broker) {
    tool.env("MILLSTREAM_PLUGINS", plugins::folder())
        .env("MILLSTREAM_BOOTSTRAP", broker.bootstrap())
        .limit(Duration::from_secs(240))
        .succeed();
}

fn python(python: &str) {
    let broker = broker(&["kafka-python", "confluent"]);
    let package = package("python");
    let tool = Tool::new(python).env("PYTHONDONTWRITEBYTECODE", "1").args(["-m", "unittest", "discover", "-v", "-s"]);
    run(tool.arg(package.join("tests")).arg("-t").arg(package), &broker);
}

/// Runs a copy of the package that lies beside its dependencies: Node finds those of modules only there.
fn node(dependencies: &str) {
    let broker = broker(&["kafkajs"]);
    let copy = tempfile::TempDir::new().expect("a temporary folder");
    millstream_tests::copy_folder(&package("node"), copy.path());
    std::os::unix::fs::symlink(dependencies, copy.path().join("node_modules")).expect("a link in a new folder");
    let tests = fs::read_dir(copy.path().join("test")).expect("the package has tests");
    let tests = tests.map(|entry| entry.expect("an entry").path());
    let tests = tests.filter(|path| path.to_str().is_some_and(|path| path.ends_with(".test.js")));
    run(Tool::new("node").arg("--test").args(tests), &broker);
}

fn go(programs: &str) {
    let broker = broker(&["franz", "sarama"]);
    for program in ["stage", "franz", "sarama"] {
        run(Tool::new(Path::new(programs).join(program).with_extension("test")), &broker);
    }
}

fn java(classpath: &str) {
    let broker = broker(&["java"]);
    let tool = Tool::new("java")
        .args([
            "-Xmx512m",
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
        ])
        .args(["-cp", classpath, "org.junit.platform.console.ConsoleLauncher", "execute"])
        .args(["--disable-banner", "--disable-ansi-colors", "--details=tree", "--select-package=millstream.stage"]);
    run(tool, &broker);
}
