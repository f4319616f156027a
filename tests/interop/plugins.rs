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

pub(crate) fn output(bootstrap: &str, args: &[&str]) -> String {
    Tool::new(millstream()).args(args).args(["-b", bootstrap]).limit(PATIENCE).succeed()
}

/// Returns a default plug-in with a custom section at its end, which makes it a different version.
fn component(name: &str, version: u8) -> Vec<u8> {
    let plugin = millstream_plugins::find(name).expect("a default plug-in").component();
    [plugin, &[0, 2, 1, version][..]].concat()
}

/// Pushes a version of a default plug-in by a file in a folder of the test's own.
pub(crate) fn push(bootstrap: &str, scratch: &Path, name: &str, version: u8) {
    let file = scratch.join("pushed.wasm");
    fs::write(&file, component(name, version)).expect("a file of the test's own");
    output(bootstrap, &["plugin", "push", file.to_str().expect("a path of ASCII")]);
}

fn backup(python: &str, options: &[&str]) {
    let (source, target) = (Broker::start(), Broker::start());
    let from = source.bootstrap();
    for version in 1..=3 {
        push(&from, source.scratch(), "contains", version);
    }
    push(&from, source.scratch(), "zstd", 1);
    push(&from, source.scratch(), "lz4", 1);
    output(&from, &["plugin", "rollback", "contains"]);
    output(&from, &["plugin", "delete", "contains@1"]);
    output(&from, &["plugin", "rollback", "lz4"]);
    output(&from, &["plugin", "delete", "lz4"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/python/plugins_backup.py");
    Tool::new(python)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(script)
        .args([source.bootstrap(), target.bootstrap()])
        .args(options)
        .limit(PATIENCE)
        .succeed();
    for name in ["contains", "zstd"] {
        let history = |broker| output(&Broker::bootstrap(broker), &["plugin", "history", name, "--json"]);
        assert_eq!(history(&target), history(&source), "{name}");
    }
    let gone = Tool::new(millstream()).args(["plugin", "history", "lz4", "-b", &target.bootstrap()]).run();
    assert!(gone.stderr.contains("has no plug-in `lz4`"), "{}", gone.stderr);
    // It also works: a topic uses it, also after a restart.
    output(
        &target.bootstrap(),
        &["topic", "create", "lines", "-p", "1", "--config", "stage.admit=contains@2{\"text\":\"a\"}"],
    );
    push(&target.bootstrap(), target.scratch(), "contains", 4);
    let history = output(&target.bootstrap(), &["plugin", "history", "contains"]);
    let last: Vec<&str> = history.lines().last().expect("a line").split_whitespace().skip(1).collect();
    assert_eq!(last, ["activated", "contains@4", "(0.1.0)"]);
}
