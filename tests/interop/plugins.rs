//! Backs up plug-ins with a plain Kafka client, and restores them into a new broker.

use std::fs;
use std::path::Path;
use std::time::Duration;

use libtest_mimic::Trial;
use millstream_tests::{Broker, Tool, millstream};

const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn trials() -> Vec<Trial> {
    [("whole", &[][..]), ("compacted", &["--compacted"])]
        .map(|(name, options)| {
            let name = format!("python::plugins_backup::{name}");
            crate::trial(&name, "MILLSTREAM_PYTHON", move |python| backup(python, options))
        })
        .into()
}

fn output(broker: &Broker, args: &[&str]) -> String {
    Tool::new(millstream()).args(args).args(["-b", &broker.bootstrap()]).limit(PATIENCE).succeed()
}

/// Returns a default plug-in with a custom section at its end, which makes it a different version.
fn component(name: &str, version: u8) -> Vec<u8> {
    let (_, plugin) = millstream_plugins::DEFAULTS.iter().find(|(default, _)| *default == name).expect("a default");
    [plugin, &[0, 2, 1, version][..]].concat()
}

fn push(broker: &Broker, name: &str, version: u8) {
    let file = broker.scratch().join("pushed.wasm");
    fs::write(&file, component(name, version)).expect("a file of the test's own");
    output(broker, &["plugin", "push", file.to_str().expect("a path of ASCII")]);
}

fn backup(python: &str, options: &[&str]) {
    let (source, target) = (Broker::start(), Broker::start());
    for version in 1..=3 {
        push(&source, "contains", version);
    }
    push(&source, "zstd", 1);
    push(&source, "lz4", 1);
    output(&source, &["plugin", "rollback", "contains"]);
    output(&source, &["plugin", "delete", "contains@1"]);
    output(&source, &["plugin", "rollback", "lz4"]);
    output(&source, &["plugin", "delete", "lz4"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/python/plugins_backup.py");
    Tool::new(python)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(script)
        .args([source.bootstrap(), target.bootstrap()])
        .args(options)
        .limit(PATIENCE)
        .succeed();
    for name in ["contains", "zstd"] {
        let history = |broker| output(broker, &["plugin", "history", name, "--json"]);
        assert_eq!(history(&target), history(&source), "{name}");
    }
    let gone = Tool::new(millstream()).args(["plugin", "history", "lz4", "-b", &target.bootstrap()]).run();
    assert!(gone.stderr.contains("has no plug-in `lz4`"), "{}", gone.stderr);
    // It also works: a topic uses it, also after a restart.
    output(&target, &["topic", "create", "lines", "-p", "1", "--config", "stage.admit=contains@2{\"text\":\"a\"}"]);
    push(&target, "contains", 4);
    let history = output(&target, &["plugin", "history", "contains"]);
    let last: Vec<&str> = history.lines().last().expect("a line").split_whitespace().skip(1).collect();
    assert_eq!(last, ["activated", "contains@4", "(0.1.0)"]);
}
