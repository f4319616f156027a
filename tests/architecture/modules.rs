//! The arrows between the modules of the broker. A new arrow fails, and so does one of the list that is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use super::root;

/// Every arrow between the modules of the broker, and no others. The only circle is `api` and `net`: a connection
/// starts handlers, and a handler says what the connection does next.
const ARROWS: [(&str, &[&str]); 27] = [
    (
        "api",
        &[
            "blocking",
            "broker",
            "cluster",
            "config",
            "edge",
            "error",
            "fetch_sessions",
            "log_dirs",
            "metrics",
            "net",
            "partition_dirs",
            "produce",
            "replication",
            "security",
            "topics",
            "transactions",
        ],
    ),
    ("apply", &["config", "edge", "error", "log_dirs", "partition_dirs", "placement", "topics"]),
    ("background", &["blocking", "broker", "config", "metrics", "partition_dirs"]),
    ("blocking", &["error"]),
    (
        "broker",
        &[
            "cluster",
            "compute_permits",
            "config",
            "controller",
            "edge",
            "error",
            "fetch_sessions",
            "log_dirs",
            "metrics",
            "net",
            "partition_dirs",
            "produce",
            "producer_ids",
            "replication",
        ],
    ),
    ("cluster", &["config", "error"]),
    ("compute_permits", &["blocking", "error"]),
    ("config", &[]),
    (
        "controller",
        &["apply", "blocking", "cluster", "config", "edge", "error", "log_dirs", "partition_dirs", "placement"],
    ),
    ("detached", &["error"]),
    ("disk_reserve", &[]),
    ("edge", &["blocking", "cluster", "compute_permits", "config", "detached", "error", "produce", "topics"]),
    ("error", &["config"]),
    ("fetch_sessions", &[]),
    ("internal_topic", &["cluster", "topics"]),
    ("log_dirs", &["disk_reserve"]),
    ("metrics", &[]),
    ("net", &["api", "broker", "cluster", "config", "metrics"]),
    ("partition_dirs", &["log_dirs", "topics"]),
    ("placement", &["log_dirs", "partition_dirs"]),
    ("produce", &["compute_permits", "config", "error", "topics"]),
    ("producer_ids", &["error"]),
    ("replication", &["config", "error"]),
    ("security", &[]),
    (
        "server",
        &[
            "api",
            "apply",
            "background",
            "broker",
            "cluster",
            "compute_permits",
            "config",
            "controller",
            "edge",
            "error",
            "fetch_sessions",
            "internal_topic",
            "log_dirs",
            "metrics",
            "net",
            "partition_dirs",
            "placement",
            "producer_ids",
            "replication",
            "transactions",
        ],
    ),
    ("topics", &["config", "error"]),
    ("transactions", &["edge", "error", "produce", "replication"]),
];

/// The core: what a broker without stages and without connections would keep.
const CORE: [&str; 15] = [
    "blocking",
    "compute_permits",
    "config",
    "detached",
    "error",
    "fetch_sessions",
    "internal_topic",
    "log_dirs",
    "metrics",
    "partition_dirs",
    "placement",
    "produce",
    "producer_ids",
    "security",
    "topics",
];

/// The modules that may hold the state that all handlers share.
const USE_BROKER: [&str; 4] = ["api", "background", "net", "server"];

/// Returns the names after `crate::` in the code of a file, without its comments and unit tests.
fn modules_used(code: &str) -> BTreeSet<String> {
    let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let uses = lines.flat_map(|line| line.split("crate::").skip(1));
    let name =
        |rest: &str| rest.split(|letter: char| !(letter.is_alphanumeric() || letter == '_')).next().map(str::to_owned);
    uses.filter_map(name).collect()
}

/// Returns the source files of the broker with the names of their modules. Files of unit tests are left out.
fn files() -> Vec<(String, PathBuf)> {
    let source = root().join("host/broker/src");
    let mut folders = vec![source.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the broker") {
            let path = entry.expect("an entry").path();
            let name = path.file_stem().and_then(|name| name.to_str()).expect("a name in UTF-8");
            if path.is_dir() {
                folders.push(path);
            } else if !name.ends_with("tests") {
                let inside = path.strip_prefix(&source).expect("a file of the broker");
                let module = inside.iter().next().and_then(|first| first.to_str()).expect("a name in UTF-8");
                files.push((module.trim_end_matches(".rs").to_owned(), path));
            }
        }
    }
    files
}

/// Returns what each module of the broker uses, but for the root of the crate.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, path) in files() {
        let code = fs::read_to_string(&path).expect("a source file");
        let used = modules_used(&code).into_iter().filter(|used| *used != module);
        arrows.entry(module.clone()).or_default().extend(used);
    }
    arrows.remove("lib");
    arrows
}

#[test]
fn modules_of_the_broker_use_what_the_architecture_allows() {
    let names = |used: &[&str]| used.iter().map(|used| (*used).to_owned()).collect::<BTreeSet<_>>();
    let listed: BTreeMap<String, _> = ARROWS.iter().map(|(module, used)| ((*module).to_owned(), names(used))).collect();
    let found = arrows();
    for (module, used) in &found {
        let allowed = listed.get(module).cloned().unwrap_or_default();
        let wrong: Vec<_> = used.difference(&allowed).collect();
        assert!(wrong.is_empty(), "module {module} of the broker may not use {wrong:?}");
    }
    assert_eq!(found, listed, "the list has arrows that are gone: remove them");
}

#[test]
fn the_core_of_the_broker_does_not_know_the_edge() {
    let found = arrows();
    let uses = |module: &str, used: &str| found.get(module).is_some_and(|all| all.contains(used));
    for module in CORE {
        assert!(found.contains_key(module), "the core has no module {module}");
        for outside in ["api", "apply", "controller", "edge", "net"] {
            assert!(!uses(module, outside), "module {module} of the core uses {outside}");
        }
    }
    for outside in ["api", "apply", "broker", "controller", "net"] {
        assert!(!uses("edge", outside), "the edge uses {outside}");
    }
    let holds_broker: Vec<_> =
        found.iter().filter(|(_, used)| used.contains("broker")).map(|(module, _)| module).collect();
    assert_eq!(holds_broker, USE_BROKER);
}

#[test]
fn uses_are_found_wherever_they_stand() {
    let code = "use crate::config::{A, B};\n// crate::api\n#[cfg(test)]\nmod a_tests;\n\
                fn f(x: crate::edge::X) {}\n#[cfg(test)]\nmod tests {\nuse crate::net;\n}\n";
    let used: Vec<_> = modules_used(code).into_iter().collect();
    assert_eq!(used, ["config", "edge"]);
}
