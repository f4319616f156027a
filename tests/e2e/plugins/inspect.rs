//! `millstream plugin inspect`: every figure with its limit, and every reason why a broker rejects a file.

use std::fs;

use millstream_tests::{Finished, Tool, millstream};
use serde_json::Value;
use tempfile::TempDir;

use super::PATIENCE;
use crate::guests::Guest;

/// Inspects a file of these bytes.
fn inspect(bytes: &[u8], options: &[&str]) -> Finished {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("plugin.wasm");
    fs::write(&file, bytes).expect("a file of the test's own");
    Tool::new(millstream()).args(["plugin", "inspect"]).arg(&file).args(options).limit(PATIENCE).run()
}

fn json(bytes: &[u8], code: i32) -> Value {
    let end = inspect(bytes, &["--json"]);
    assert_eq!(end.code, Some(code), "{}{}", end.stdout, end.stderr);
    serde_json::from_str(&end.stdout).expect("JSON")
}

/// Returns the reasons for which a broker rejects a file.
fn reasons(bytes: &[u8]) -> Vec<String> {
    let report = json(bytes, 1);
    let reasons = report["rejected"].as_array().expect("a list");
    reasons.iter().map(|reason| reason.as_str().expect("a text").to_owned()).collect()
}

#[test]
fn a_rejected_file_is_described_with_every_reason() {
    let guest = Guest::filter().memory("300").hook("module", "(table 20000 funcref)").build();
    let memory = "initial memory in bytes: 19660800 is over the limit of 16777216";
    let table = "initial table elements: 20000 is over the limit of 10000";
    let found = reasons(&guest);
    assert!(found.len() == 2 && found[0].starts_with(memory) && found[1].starts_with(table), "{found:?}");
    let report = json(&guest, 1);
    assert_eq!(report["figures"]["table_elements_min"], serde_json::json!({ "have": 20_000, "limit": 10_000 }));
    assert_eq!(report["kind"], "filter");
    let end = inspect(&guest, &[]);
    assert_eq!(end.code, Some(1), "{}", end.stdout);
    for text in [memory, table, "20000 (limit 10000, exceeded)", "configure, describe, filter"] {
        let exports = text.split(", ").all(|word| end.stdout.contains(word));
        assert!(exports, "{text}: {}", end.stdout);
    }
    assert!(end.stderr.contains("for the 2 reasons above"), "{}", end.stderr);
}

#[test]
fn a_file_that_is_no_component_gets_advice_for_every_language() {
    let core = Guest::filter().core();
    let found = reasons(&core);
    assert!(found.len() == 1 && found[0].contains("millstream plugin adapt"), "{found:?}");
    let report = json(&core, 1);
    assert!(report["figures"]["functions"]["have"].as_u64() > Some(0), "{report}");
    assert_eq!(reasons(b"#!/bin/sh\n"), ["not WebAssembly: a text file"]);
}

#[test]
fn a_plug_in_that_traps_without_rows_is_rejected_here_too() {
    let found = reasons(&Guest::filter().hook("filter", "unreachable").build());
    assert!(found.len() == 1 && found[0].starts_with("does not start: trapped in `filter`"), "{found:?}");
    let report = json(&Guest::filter().build(), 0);
    assert_eq!(report["rejected"], serde_json::json!([]));
    assert!(report["probe"].as_str().is_some_and(|probe| probe.starts_with("passed")), "{report}");
    // It needs a configuration to start, which is not a reason to reject it.
    let needs = "(if (i32.le_u (local.get $length) (i32.const 2)) (then
        (i32.store8 (i32.const 2048) (i32.const 1))
        (i32.store (i32.const 2052) (i32.const 192)) (i32.store (i32.const 2056) (i32.const 6))
        (i32.store (i32.const 2060) (i32.const 198)) (i32.store (i32.const 2064) (i32.const 9))
        (return (i32.const 2048))))";
    let guest = Guest::filter().text("/limitmust be 7").hook("configure", needs).build();
    let end = inspect(&guest, &[]);
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    assert!(end.stdout.contains("pass --config") && end.stdout.contains("must be 7"), "{}", end.stdout);
    let end = inspect(&guest, &["--config", r#"{"limit":7}"#]);
    assert!(end.code == Some(0) && end.stdout.contains("passed"), "{}{}", end.stdout, end.stderr);
}

#[test]
fn rows_that_any_topic_has_are_probed() {
    let good = Guest::filter().build();
    let end = inspect(&good, &[]);
    assert!(end.stdout.contains("passed: it starts, and takes batches of no rows and of three"), "{}", end.stdout);
    // It starts, and takes a batch of no rows.
    let bad = Guest::filter().hook_with_rows("filter", "unreachable").build();
    for options in [&["--config", "{}"][..], &[]] {
        let end = inspect(&bad, options);
        assert_eq!(end.code, Some(1), "{}", end.stdout);
        assert!(end.stdout.contains("failed with three rows: trapped in `filter`"), "{}", end.stdout);
        assert!(end.stderr.contains("fails with the rows of the probe"), "{}", end.stderr);
    }
}
