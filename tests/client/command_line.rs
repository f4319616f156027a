//! The commands `topic`, `produce` and `consume`, as a shell runs them.

use std::io::{BufRead, BufReader, Read};

use libtest_mimic::Trial;
use millstream_tests::{Finished, Tool, millstream, wait_until};

use crate::{PATIENCE, both, unique};

pub(crate) fn trials() -> Vec<Trial> {
    [
        both("topics from the command line", topics),
        both("lines go in and come out", lines),
        both("a group on the command line goes on behind what was printed", groups),
        both("a pipe that is closed ends the command quietly", closed_pipe),
        both("following prints what comes", following),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn run(bootstrap: &str, args: &[&str], input: &str) -> Finished {
    Tool::new(millstream()).args(args).args(["-b", bootstrap]).input(input).limit(PATIENCE).run()
}

/// What it printed; it must have ended well.
fn output(bootstrap: &str, args: &[&str], input: &str) -> String {
    let finished = run(bootstrap, args, input);
    assert_eq!(finished.code, Some(0), "{args:?}: {}", finished.stderr);
    finished.stdout
}

async fn topics(bootstrap: String) {
    let name = unique("command");
    let create = ["topic", "create", &name, "--partitions", "2", "--config", "retention.ms=1000000"];
    assert_eq!(output(&bootstrap, &create, ""), format!("created topic {name}\n"));
    let again = run(&bootstrap, &create, "");
    assert_eq!((again.code, again.stdout.as_str()), (Some(1), ""));
    assert!(again.stderr.starts_with(&format!("error: create topic {name}: TOPIC_ALREADY_EXISTS")), "{}", again.stderr);
    assert!(output(&bootstrap, &["topic", "list"], "").lines().any(|line| line == name));
    let described = output(&bootstrap, &["topic", "describe", &name], "");
    assert_eq!(described.lines().count(), 3);
    assert!(described.contains("PartitionCount: 2") && described.contains("Configs: retention.ms=1000000"));
    let alter = ["topic", "alter", &name, "-d", "retention.ms", "-c", "max.message.bytes=5000"];
    assert_eq!(output(&bootstrap, &alter, ""), format!("altered topic {name}\n"));
    let described = output(&bootstrap, &["topic", "describe", &name], "");
    assert!(described.contains("Configs: max.message.bytes=5000\n"), "{described}");
    let unknown = run(&bootstrap, &["topic", "alter", &name, "-c", "no.such.config=1"], "");
    assert!(unknown.code == Some(1) && unknown.stderr.contains("no.such.config"), "{}", unknown.stderr);
    assert_eq!(output(&bootstrap, &["topic", "delete", &name], ""), format!("deleted topic {name}\n"));
    let gone = run(&bootstrap, &["consume", &name], "");
    assert_eq!(gone.code, Some(1));
    assert!(gone.stderr.contains("UNKNOWN_TOPIC_OR_PARTITION"), "{}", gone.stderr);
}

async fn lines(bootstrap: String) {
    let name = unique("lines");
    output(&bootstrap, &["topic", "create", &name, "-p", "1"], "");
    let produce = ["produce", &name, "-K", ":", "--null-marker", "NULL", "-H", "source=shell"];
    let bad = run(&bootstrap, &produce, "a:1\nb:NULL\nno separator\nc::3\n");
    assert_eq!(bad.code, Some(1));
    assert!(bad.stderr.contains("error: line 3: has no \":\""), "{}", bad.stderr);
    assert!(bad.stderr.ends_with("error: 1 of 4 records were not stored\n"), "{}", bad.stderr);
    let read = output(&bootstrap, &["consume", &name, "--from-beginning", "-K", "\\t"], "");
    assert_eq!(read, "a\t1\nb\tnull\nc\t:3\n");
    let json = output(&bootstrap, &["consume", &name, "--from-beginning", "--json", "-n", "1"], "");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["key"], &json["value"], &json["offset"]), (&"a".into(), &"1".into(), &0.into()));
    assert_eq!(json["headers"], serde_json::json!([["source", "shell"]]));
    // Without --from-beginning there is nothing at the end, and that is said.
    let nothing = run(&bootstrap, &["consume", &name], "");
    assert_eq!((nothing.code, nothing.stdout.as_str()), (Some(0), ""));
    assert!(nothing.stderr.contains("hint: "), "{}", nothing.stderr);
}

async fn groups(bootstrap: String) {
    let (name, group) = (unique("groups"), unique("groups"));
    output(&bootstrap, &["topic", "create", &name, "-p", "1"], "");
    output(&bootstrap, &["produce", &name], "1\n2\n3\n4\n5\n");
    let consume = ["consume", &name, "--from-beginning", "--group", &group];
    assert_eq!(output(&bootstrap, &[&consume[..], &["--count", "2"]].concat(), ""), "1\n2\n");
    assert_eq!(output(&bootstrap, &consume, ""), "3\n4\n5\n");
    assert_eq!(output(&bootstrap, &consume, ""), "");
}

async fn closed_pipe(bootstrap: String) {
    let name = unique("pipe");
    output(&bootstrap, &["topic", "create", &name, "-p", "1"], "");
    let input: String = (0..50_000).map(|number| format!("{number}\n")).collect();
    output(&bootstrap, &["produce", &name, "--compression", "lz4"], &input);
    let mut child = Tool::new(millstream()).args(["consume", &name, "--from-beginning", "-b", &bootstrap]).spawn();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, "0\n");
    // The reader is dropped, as `head -1` ends.
    let status = wait_until("the command to end", PATIENCE, || child.try_wait().unwrap());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
}

async fn following(bootstrap: String) {
    let name = unique("following");
    output(&bootstrap, &["topic", "create", &name, "-p", "1"], "");
    let consume = ["consume", &name, "--from-beginning", "--follow", "-n", "3", "-b", &bootstrap];
    let mut child = Tool::new(millstream()).args(consume).spawn();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in ["one", "two", "three"] {
        output(&bootstrap, &["produce", &name], &format!("{line}\n"));
        assert_eq!(lines.next().unwrap().unwrap(), line);
    }
    let status = wait_until("the command to end", PATIENCE, || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}
