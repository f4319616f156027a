//! `millstream plugin bench`: calls every kind of plug-in, and the figures are plausible.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    command.args(["plugin", "bench", "--seconds", "0.01"]).args(arguments);
    command.output().unwrap()
}

#[track_caller]
fn measured(arguments: &[&str]) -> Value {
    let output = bench(&[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn error_of(arguments: &[&str]) -> String {
    let output = bench(arguments);
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_kind_is_measured() {
    for (stage, kind, functions) in [
        ("murmur2", "partitioner", &["partition"][..]),
        ("json", "serializer", &["serialize", "deserialize"]),
        ("lz4", "compressor", &["compress", "decompress"]),
        (r#"contains{"text":"7"}"#, "filter", &["filter"]),
    ] {
        let facts = measured(&[stage, "--rows", "50", "--size", "200"]);
        assert_eq!((&facts["kind"], &facts["rows"]), (&kind.into(), &50.into()), "{facts}");
        assert_eq!(facts["calls"].as_object().unwrap().len(), functions.len(), "{facts}");
        for function in functions {
            let call = &facts["calls"][function];
            assert!(call["calls"].as_u64() >= Some(3), "{facts}");
            assert!(
                call["p50_us"].as_f64() > Some(0.0) && call["p99_us"].as_f64() >= call["p50_us"].as_f64(),
                "{facts}"
            );
        }
    }
}

#[test]
fn the_values_of_a_file_are_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values");
    fs::write(&file, "{\"n\":1}\n\n{\"n\":22}\n").unwrap();
    let facts = measured(&["lz4", "--values", file.to_str().unwrap()]);
    assert_eq!((&facts["rows"], &facts["batch_bytes"]), (&2.into(), &15.into()), "{facts}");

    let error = error_of(&["json", "--values", folder.path().join("none").to_str().unwrap()]);
    assert!(error.contains("none: No such file"), "{error}");
    fs::write(&file, "").unwrap();
    let error = error_of(&["json", "--values", file.to_str().unwrap()]);
    assert!(error.contains("values is empty"), "{error}");
}

#[test]
fn a_wrong_stage_is_an_error() {
    let error = error_of(&["contains"]);
    assert!(error.contains("/text"), "{error}");
    let error = error_of(&["lz4@3"]);
    assert!(error.contains("lz4@3: a built-in plug-in has one version"), "{error}");
    let error = error_of(&["nosuch"]);
    assert!(error.contains("no plug-in of this binary"), "{error}");
}
