//! Guests that die or misbehave in the ways in which each language does, and what the user sees of it.
//!
//! `guests/deaths.*` has one filter for each language. Its configuration says what it does.

use std::fs;
use std::path::{Path, PathBuf};

use millstream_tests::{Broker, Finished, Tool, millstream, wait_until};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{PATIENCE, build, folder, new, plugin};

/// Returns what a guest says before it dies, as the error quotes it.
fn last_words(language: &str) -> &'static str {
    match language {
        "c" => "it logged: two rows are too few",
        "go" => "it logged: panic: two rows are too few",
        _ => "it logged: Error: two rows are too few",
    }
}

/// Makes a plug-in of a kind with the source of a guest, and returns its folder.
fn make(folder: &Path, language: &str, kind: &str, source: &str) -> PathBuf {
    let dir = new(folder, language, kind);
    let path = match language {
        "c" => "src/plugin.c",
        "go" => "plugin.go",
        _ => "src/plugin.js",
    };
    fs::write(dir.join(path), source).expect("a file of the test's own");
    dir
}

fn source(language: &str) -> &'static str {
    match language {
        "c" => include_str!("guests/deaths.c"),
        "go" => include_str!("guests/deaths.go"),
        _ => include_str!("guests/deaths.js"),
    }
}

/// Replaces a text that has to be there.
fn edited(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no {from}");
    text.replace(from, to)
}

/// Makes the copy of the SDK break the contract when the guest says so, as an author's own bindings may.
fn break_sdk(dir: &Path, language: &str) {
    let change = |path: &str, edits: &[(&str, &str)]| {
        let path = dir.join(path);
        let text = fs::read_to_string(&path).expect("a file of the SDK");
        let text = edits.iter().fold(text, |text, (from, to)| edited(&text, from, to));
        fs::write(path, text).expect("a file of the test's own");
    };
    match language {
        "c" => change(
            "sdk/c/millstream.c",
            &[
                ("(void)align;\n", "extern bool ms_logs; if (ms_logs) ms_log(MS_INFO, \"not now\"); (void)align;\n"),
                ("void *ms_end_lists(", "extern size_t ms_more;\nvoid *ms_end_lists("),
                ("(uint32_t)data;\n    result[2] = length;", "(uint32_t)data;\n    result[2] = length + ms_more;"),
            ],
        ),
        "go" => {
            let bad = "if batch.Rows() > 0 && string(batch.Record(0).Value()) == \"rows\" { kept = append(kept, 0) }";
            change("sdk/go/filter/filter.go", &[("clear(kept)", &format!("clear(kept)\n{bad}"))]);
        }
        _ => {}
    }
}

/// A filter that was built, and its calls.
struct Guest {
    language: &'static str,
    dir: PathBuf,
    file: PathBuf,
    _folder: TempDir,
}

impl Guest {
    fn build(language: &str) -> Guest {
        let folder = folder();
        let dir = make(folder.path(), language, "filter", source(language));
        break_sdk(&dir, language);
        let file = build(&dir);
        let language = super::LANGUAGES.map(|(name, _)| name).into_iter().find(|name| *name == language);
        Guest { language: language.expect("one of them"), dir, file, _folder: folder }
    }

    /// Calls it with batches of one record, each with a configuration, and returns the results.
    fn calls<'a>(&self, calls: impl IntoIterator<Item = (&'a str, &'a str)>) -> (Vec<Value>, Finished) {
        let line = |(how, value): (&str, &str)| {
            format!("{}\n", json!({ "call": "filter", "config": { "how": how }, "records": [{ "value": value }] }))
        };
        let calls: String = calls.into_iter().map(line).collect();
        let end = plugin(&self.dir).arg("call").arg(&self.file).input(calls).run();
        assert_eq!(end.code, Some(0), "{}", end.stderr);
        (end.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect(), end)
    }

    /// Calls it twice: what died is replaced, and does the same again.
    fn call(&self, how: &str) -> (Value, Finished) {
        let (results, end) = self.calls([(how, "a"); 2]);
        assert!(results.len() == 2 && results[0] == results[1], "{how}: {results:?}");
        (results[0].clone(), end)
    }

    fn trap(&self, how: &str) -> String {
        let (result, _) = self.call(how);
        result["error"]["trap"].as_str().unwrap_or_else(|| panic!("{how}: {result}")).to_owned()
    }
}

fn kept() -> Value {
    json!({ "keep": [0] })
}

/// Returns the number of lines of the log that have a text.
fn lines(end: &Finished, text: &str) -> usize {
    end.stderr.lines().filter(|line| line.contains(text)).count()
}

/// Checks what the user sees of a guest that dies, and of what a guest prints.
pub(super) fn reach_the_user(language: &str) {
    let guest = Guest::build(language);
    // The first line of what it printed last, without what follows. In every function that the host calls.
    for (how, call) in [("die", "filter"), ("configure-die", "configure")] {
        let died = guest.trap(how);
        assert!(died.starts_with(&format!("trapped in `{call}`")) && died.ends_with(last_words(language)), "{died}");
    }
    let asserted = guest.trap("assert");
    match language {
        "c" => assert!(asserted.contains("it logged: Assertion failed: how.length == 0"), "{asserted}"),
        "go" => assert!(asserted.contains("unreachable"), "{asserted}"),
        _ => assert!(asserted.contains("it logged: TypeError: "), "{asserted}"),
    }

    let (flooded, end) = guest.call("flood");
    assert_eq!(flooded, kept());
    assert!(lines(&end, "line ") < 200, "{}", end.stderr);
    let (printed, end) = guest.call("print");
    assert_eq!(printed, kept());
    assert!(lines(&end, "INFO") > 0 && end.stderr.contains("a line"), "{}", end.stderr);
    // Bytes that are no text do not end the call.
    let text = "not UTF-8: ? ?( ?? ??? ????, and UTF-8: é€𝄞";
    assert!(language == "js" || end.stderr.contains(text), "{}", end.stderr);
    // Nor do they reach the terminal of an operator as they are.
    let (printed, end) = guest.call("terminal");
    assert_eq!(printed, kept());
    assert!(lines(&end, r"\u{1b}[31mred\u{7}") == 2 && !end.stderr.contains("\x1b[31mred"), "{}", end.stderr);
    if language == "go" {
        // There is no system: a wait is over at once, and files are missing.
        assert_eq!(guest.call("wait").0, kept());
    }

    stay_in_their_limits(&guest);
    keep_the_contract(&guest);
}

/// Checks that work without an end, and memory and output without a bound, end the call.
fn stay_in_their_limits(guest: &Guest) {
    for how in ["loop", "fill"] {
        let endless = guest.trap(how);
        assert!(endless.starts_with("`filter` ran longer than its deadline"), "{endless}");
    }
    let endless = guest.trap("configure-loop");
    assert!(endless.starts_with("`configure` ran longer than its deadline"), "{endless}");
    let deep = guest.trap("recurse");
    assert!(deep.starts_with("call stack exhausted in `filter`"), "{deep}");
    let leaked = guest.trap("leak");
    assert!(leaked.starts_with("out of memory in `filter`"), "{leaked}");
    let long = guest.trap("long");
    assert!(long.starts_with("the response of `filter` is larger than its limit"), "{long}");
    // It has no memory for the next batch while the host passes it. Go then prints, which a guest may not do there.
    let batch = "x".repeat(4_000_000);
    let (results, _) = guest.calls([("hoard", "a"), ("hoard", &batch), ("hoard", "a")]);
    let message = results[1]["error"]["trap"].as_str().unwrap_or_default();
    assert!(message.starts_with("out of memory in `filter`"), "{}", results[1]);
    assert_eq!([&results[0], &results[2]], [&kept(); 2], "a new instance takes its place");
}

/// Checks that results which break the contract, or differ from host to host, go no further.
fn keep_the_contract(guest: &Guest) {
    // It dies at its third call. The next instance begins anew.
    let (results, _) = guest.calls([("third", "a"); 4]);
    let message = results[2]["error"]["trap"].as_str().unwrap_or_default();
    assert!(message.ends_with(last_words(guest.language)), "{}", results[2]);
    assert_eq!([&results[0], &results[1], &results[3]], [&kept(); 3]);
    let (computed, _) = guest.call("nan");
    assert_eq!(computed["error"]["rows"][0]["message"], "7ff8000000000000", "the bits of a computed NaN");
    let (results, _) = guest.calls([("rows", "rows")]);
    let message = results[0]["error"]["trap"].as_str().unwrap_or_default();
    assert!(message.starts_with("bad response of `filter`: a bitmap of "), "{}", results[0]);
    if guest.language == "c" {
        let early = guest.trap("realloc");
        assert!(early.contains("cannot leave component instance"), "{early}");
        let (results, _) = guest.calls([("stain", "a"), ("fresh", "a")]);
        assert!(results[0]["error"]["trap"].is_string(), "{}", results[0]);
        assert_eq!(results[1], kept(), "memory of another plug-in is not cleared");
    }
}

/// Starts guests whose initializer does not end, or dies. A script in JavaScript starts at the build, so it has none.
pub(super) fn in_the_initializer(language: &str) {
    for (c, go, expected) in [
        ("for (;;) turns++", "for {\n}", "does not start: `instantiate` ran longer than its deadline"),
        ("die()", "panic(\"two rows are too few\")", "does not start: trapped in `instantiate`"),
    ] {
        let folder = folder();
        let source = match language {
            "c" => format!("#define START {c}\n{}", source(language)),
            _ => edited(source(language), "func start() {}", &format!("func start() {{\n{go}\n}}")),
        };
        let dir = make(folder.path(), language, "filter", &source);
        let end = plugin(&dir).arg("inspect").arg(build(&dir)).run();
        assert_eq!(end.code, Some(1), "{}", end.stdout);
        assert!(end.stdout.contains(expected), "{}", end.stdout);
        assert!(c.starts_with("for") || end.stdout.contains(last_words(language)), "{}", end.stdout);
    }
}

/// Calls a partitioner that chooses partitions which are not there.
pub(super) fn beyond_the_partitions(language: &str) {
    let folder = folder();
    let source = match language {
        "c" => include_str!("guests/far.c"),
        "go" => include_str!("guests/far.go"),
        _ => include_str!("guests/far.js"),
    };
    let dir = make(folder.path(), language, "partitioner", source);
    let file = build(&dir);
    // What begins with 2 is the most that QuickJS returns.
    for (beyond, chosen) in [(0, "4"), (3, "7"), (u32::MAX, if language == "js" { "2" } else { "4294967295" })] {
        let config = json!({ "beyond": beyond });
        let call = json!({ "call": "partition", "config": config, "partitions": 4, "records": [{ "value": "a" }] });
        let said = plugin(&dir).arg("call").arg(&file).input(format!("{call}\n")).succeed();
        let start = format!(r#"{{"error":{{"trap":"bad response of `partition` at row 0: partition {chosen}"#);
        assert!(said.starts_with(&start), "{said}");
    }
}

/// Pushes a version that dies at every third record. The broker rolls back to the version before, and loses no record.
pub(super) fn are_rolled_back(language: &str) {
    let folder = folder();
    let name = format!("{language}-filter");
    let equals = if language == "js" { "calls === 3" } else { "calls == 3" };
    let good = edited(source(language), equals, "calls < 0");
    let dir = make(folder.path(), language, "filter", &good);
    let first = fs::read(build(&dir)).expect("the component");
    let broker = Broker::start();
    broker.allow(&name);
    let run = |arguments: &[&str], input: &str| {
        let tool = Tool::new(millstream()).args(arguments).args(["-b", &broker.bootstrap()]);
        tool.input(input).limit(PATIENCE).succeed()
    };
    let push = |component: &[u8]| {
        let file = folder.path().join(format!("{name}.wasm"));
        fs::write(&file, component).expect("a file of the test's own");
        run(&["plugin", "push", file.to_str().expect("a path of ASCII")], "")
    };
    assert_eq!(push(&first), format!("{name}@1 pushed and active\n"));
    let admit = format!(r#"stage.admit={name}{{"how":"third"}}"#);
    run(&["topic", "create", "lines", "--partitions", "1", "--config", &admit], "");
    fs::remove_dir_all(&dir).expect("a folder of the test's own");
    let dir = make(folder.path(), language, "filter", source(language));
    assert_eq!(push(&fs::read(build(&dir)).expect("the component")), format!("{name}@2 pushed and active\n"));

    let mut sent = String::new();
    let is_back = || run(&["plugin", "history", &name], "").lines().any(|line| line.contains("rolled-back"));
    for number in 0..60 {
        let line = format!("{number}\n");
        run(&["produce", "lines"], &line);
        sent.push_str(&line);
        if number > 6 && is_back() {
            break;
        }
    }
    wait_until("the version before is active", PATIENCE, || is_back().then_some(()));
    assert_eq!(run(&["consume", "lines", "--from-beginning"], ""), sent);
}
