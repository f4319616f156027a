//! The commands `topic`, `produce` and `consume`, as a shell runs them.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use libtest_mimic::Trial;
use millstream_tests::{Finished, Tool, millstream, wait_until};

use rustix::process::{Pid, Signal, kill_process};

use crate::{PATIENCE, both, unique};

pub(crate) fn trials() -> Vec<Trial> {
    [
        both("topics from the command line", topics),
        both("lines are produced and consumed", lines),
        both("a group on the command line continues after the printed records", groups),
        both("groups, offsets and records are deleted from the command line", deletions),
        both("a closed pipe ends the command quietly", closed_pipe),
        both("following prints new records", following),
        both("a signal ends a command with success", signals),
    ]
    .into_iter()
    .flatten()
    .chain([Trial::test("a broker that is not there is told of", || {
        no_broker();
        Ok(())
    })])
    .collect()
}

pub(crate) fn run(bootstrap: &str, args: &[&str], input: &str) -> Finished {
    Tool::new(millstream()).args(args).args(["-b", bootstrap]).input(input).limit(PATIENCE).run()
}

/// Runs a command that must succeed, and returns its standard output.
pub(crate) fn output(bootstrap: &str, args: &[&str], input: &str) -> String {
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
    // A Kafka broker learns of the topic a little after the controller reports it.
    let is_listed = || output(&bootstrap, &["topic", "list"], "").lines().any(|line| line == name).then_some(());
    wait_until("the topic to be listed", PATIENCE, is_listed);
    let described = output(&bootstrap, &["topic", "describe", &name], "");
    assert_eq!(described.lines().count(), 3);
    assert!(described.contains("PartitionCount: 2") && described.contains("Configs: retention.ms=1000000"));
    let id = described.split('\t').find_map(|field| field.strip_prefix("TopicId: ")).unwrap_or_default();
    assert_eq!(id.len(), 22, "not a UUID as Kafka prints it: {described}");
    let alter = ["topic", "alter", &name, "-d", "retention.ms", "-c", "max.message.bytes=5000"];
    assert_eq!(output(&bootstrap, &alter, ""), format!("altered topic {name}\n"));
    let described = output(&bootstrap, &["topic", "describe", &name], "");
    assert!(described.contains("Configs: max.message.bytes=5000\n"), "{described}");
    let unknown = run(&bootstrap, &["topic", "alter", &name, "-c", "no.such.config=1"], "");
    assert!(unknown.code == Some(1) && unknown.stderr.contains("no.such.config"), "{}", unknown.stderr);
    let unknown = run(&bootstrap, &["topic", "alter", &name, "-d", "no.such.config"], "");
    assert_eq!(unknown.stderr, "error: --delete-config no.such.config: there is no config with that name\n");
    let no_value = run(&bootstrap, &["topic", "alter", &name, "-c", "retention.ms"], "");
    assert_eq!(no_value.stderr, "error: --config retention.ms: expected KEY=VALUE\n");
    let no_port = run("127.0.0.1", &["topic", "list"], "");
    assert_eq!(no_port.stderr, "error: invalid config: bootstrap.servers: \"127.0.0.1\" is not host:port\n");
    assert_eq!(output(&bootstrap, &["topic", "delete", &name], ""), format!("deleted topic {name}\n"));
    let gone = run(&bootstrap, &["consume", &name], "");
    assert_eq!(gone.code, Some(1));
    let told = format!("error: describe topic {name}: UNKNOWN_TOPIC_OR_PARTITION: no topic has that name\n");
    assert_eq!(gone.stderr, told);
}

async fn lines(bootstrap: String) {
    let name = unique("lines");
    output(&bootstrap, &["topic", "create", &name, "-p", "1"], "");
    let produce = ["produce", &name, "-K", ":", "--null-marker", "NULL", "-H", "source=shell"];
    let bad = run(&bootstrap, &produce, "a:1\nb:NULL\nno separator\nc::3\n");
    assert_eq!(bad.code, Some(1));
    assert!(bad.stderr.contains("error: line 3: has no separator \":\""), "{}", bad.stderr);
    assert!(bad.stderr.ends_with("error: 1 of 4 records were not stored\n"), "{}", bad.stderr);
    let read = output(&bootstrap, &["consume", &name, "--from-beginning", "-K", "\\t"], "");
    assert_eq!(read, "a\t1\nb\tnull\nc\t:3\n");
    let json = output(&bootstrap, &["consume", &name, "--from-beginning", "--json", "-n", "1"], "");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["key"], &json["value"], &json["offset"]), (&"a".into(), &"1".into(), &0.into()));
    assert_eq!(json["headers"], serde_json::json!([["source", "shell"]]));
    // Without --from-beginning, reading starts at the end and finds nothing, and the command reports that.
    let nothing = run(&bootstrap, &["consume", &name], "");
    assert_eq!((nothing.code, nothing.stdout.as_str()), (Some(0), ""));
    assert!(nothing.stderr.contains("hint: "), "{}", nothing.stderr);
    // Without an acknowledgement the command does not report the records as stored.
    let sent = run(&bootstrap, &["produce", &name, "--acks", "0"], "unanswered\n");
    assert_eq!((sent.code, sent.stderr), (Some(0), format!("1 record sent to {name}\n")));
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

async fn deletions(bootstrap: String) {
    let (name, group) = (unique("deletions"), unique("deletions"));
    output(&bootstrap, &["topic", "create", &name, "-p", "1"], "");
    output(&bootstrap, &["produce", &name], "1\n2\n3\n4\n5\n");
    let consume = ["consume", &name, "--from-beginning"];
    output(&bootstrap, &[&consume[..], &["--group", &group, "--count", "2"]].concat(), "");
    let listed = output(&bootstrap, &["group", "list"], "");
    assert!(listed.lines().any(|line| line.split_whitespace().eq([group.as_str(), "Empty"])), "{listed}");
    let described = output(&bootstrap, &["group", "describe", &group], "");
    let row: Vec<&str> = described.lines().nth(2).unwrap_or_default().split_whitespace().collect();
    assert_eq!(row, [name.as_str(), "0", "2", "5", "3", "-"], "{described}");
    let deleted = output(&bootstrap, &["group", "delete-offsets", &group, "--topic", &name], "");
    assert_eq!(deleted, format!("deleted the offset of group {group} for {name}-0\n"));
    assert_eq!(output(&bootstrap, &["group", "delete", &group], ""), format!("deleted group {group}\n"));
    let again = run(&bootstrap, &["group", "delete", &group], "");
    let error = format!("error: delete group {group}: GROUP_ID_NOT_FOUND");
    assert!(again.code == Some(1) && again.stderr.starts_with(&error), "{}", again.stderr);

    let delete = ["topic", "delete-records", &name];
    let before = output(&bootstrap, &[&delete[..], &["--partition", "0", "--before-offset", "3"]].concat(), "");
    assert_eq!(before, format!("{name}-0 starts at offset 3\n"));
    assert_eq!(output(&bootstrap, &consume, ""), "4\n5\n");
    assert_eq!(output(&bootstrap, &[&delete[..], &["--all"]].concat(), ""), format!("{name}-0 starts at offset 5\n"));
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
    // The reader goes away, as `head -1` does.
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

async fn signals(bootstrap: String) {
    let name = unique("signals");
    output(&bootstrap, &["topic", "create", &name, "-p", "1"], "");
    let end = |child: &mut Child| {
        kill_process(Pid::from_child(child), Signal::TERM).unwrap();
        let status = wait_until("the command to end", PATIENCE, || child.try_wait().unwrap());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (status.code(), stderr)
    };
    let mut command = Command::new(millstream());
    command.args(["produce", &name, "-b", &bootstrap]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut produce = command.spawn().unwrap();
    // Its input stays open.
    produce.stdin.as_mut().unwrap().write_all(b"one\n").unwrap();
    let consume = ["consume", &name, "--from-beginning"];
    wait_until("the line to be there", PATIENCE, || (output(&bootstrap, &consume, "") == "one\n").then_some(()));
    let told = format!("1 record stored in {name}\nerror: interrupted before the end of the input\n");
    assert_eq!(end(&mut produce), (Some(1), told));

    // A consumer leaves its group, so that the next one need not wait for its session to time out.
    let group = ["consume", &name, "--from-beginning", "--group", &name, "--follow", "-b", &bootstrap];
    let mut follow = Tool::new(millstream()).args(group).spawn();
    let mut first = String::new();
    BufReader::new(follow.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, "one\n");
    assert_eq!(end(&mut follow), (Some(0), format!("1 record from {name}\n")));
}

/// Checks that a command that cannot connect fails soon and prints what to do.
fn no_broker() {
    // Port 1 belongs to a service that has not been in use for decades.
    let nowhere = "127.0.0.1:1";
    for args in [&["topic", "list"][..], &["produce", "t"], &["consume", "t"], &["plugin", "history", "p"]] {
        let refused = run(nowhere, args, "a line\n");
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""), "{args:?}");
        let told = "error: cannot connect to 127.0.0.1:1: Connection refused (os error 111); \
                    start a broker with `millstream \
                    serve`, or name another one with -b\n";
        assert_eq!(refused.stderr, told, "{args:?}");
    }
    // A timeout that the user sets is honoured.
    let waited = run(nowhere, &["topic", "list", "-X", "default.api.timeout.ms=300"], "");
    assert!(waited.code == Some(1) && waited.stderr.contains("Connection refused"), "{}", waited.stderr);
}
