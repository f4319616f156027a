//! Plug-ins in C, Go, JavaScript and Python, made by the compilers that their users have.

mod deaths;
mod reload;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libtest_mimic::Trial;
use millstream_tests::{Broker, Finished, Tool, millstream};
use serde_json::{Value, json};
use tempfile::TempDir;
use wit_parser::Resolve;

/// Compiling a large component takes seconds, and more on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

const KINDS: [&str; 4] = ["filter", "partitioner", "serializer", "compressor"];

/// A language, as `plugin new` names it, and the variable that says that its tools are there.
const LANGUAGES: [(&str, &str); 3] = [("c", "MILLSTREAM_CLANG"), ("go", "MILLSTREAM_GO"), ("js", "MILLSTREAM_QJS")];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (language, variable) in LANGUAGES {
        let mut add = |name: &str, test: fn(&str)| {
            trials.push(crate::trial(&format!("languages::{language}::{name}"), variable, move |_| test(language)));
        };
        add("every_kind_builds_and_passes_its_vectors", every_kind);
        add("what_kills_a_guest_reaches_the_user", deaths::reach_the_user);
        add("a_choice_beyond_the_partitions_is_rejected", deaths::beyond_the_partitions);
        add("a_version_that_dies_is_rolled_back", deaths::are_rolled_back);
        if language != "js" {
            add("an_initializer_that_fails_is_rejected", deaths::in_the_initializer);
        }
        add("a_missing_tool_is_named", missing_tool);
        if language != "c" {
            add("versions_take_turns_under_load", reload::under_load);
        }
    }
    trials.push(crate::trial("languages::c::a_core_module_is_adapted", "MILLSTREAM_CLANG", |_| core_module()));
    trials.push(crate::trial("languages::js::text_is_utf_8", "MILLSTREAM_QJS", |_| text_in_javascript()));
    trials.push(crate::trial("languages::go::the_collector_runs", "MILLSTREAM_GO", |_| collector()));
    trials.push(crate::trial("languages::python::large_limits", "MILLSTREAM_COMPONENTIZE_PY", python));
    trials
}

/// Returns a command of plug-ins that runs in a folder.
fn plugin(folder: &Path) -> Tool {
    let folder = folder.to_str().expect("a path of ASCII");
    // The tool has no option for its folder; env changes it.
    Tool::new("env").args(["-C", folder]).arg(millstream()).arg("plugin").limit(PATIENCE)
}

/// Returns an empty folder in which the packages of npm are found.
fn folder() -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    if let Some(packages) = env::var_os("MILLSTREAM_QJS") {
        std::os::unix::fs::symlink(packages, folder.path().join("node_modules")).expect("a link");
    }
    folder
}

/// Makes a plug-in of a language, and returns its folder.
fn new(folder: &Path, language: &str, kind: &str) -> PathBuf {
    let name = format!("{language}-{kind}");
    let said = plugin(folder).args(["new", &name, "--kind", kind, "--language", language]).succeed();
    assert!(said.contains(&format!("created the {kind} {name}")), "{said}");
    folder.join(name)
}

/// Builds a plug-in, and returns the file of its component.
fn build(folder: &Path) -> PathBuf {
    folder.join(plugin(folder).arg("build").succeed().trim())
}

/// Checks a component against the world of its kind, as `wasm-tools component targets` does.
fn conforms(component: &[u8], kind: &str) {
    let mut resolve = Resolve::default();
    let contract = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("sdk").join("wit/1.0.0");
    let (contract, _) = resolve.push_path(contract).expect("the contract");
    let world = resolve.select_world(&[contract], Some(kind)).expect("a world");
    if let Err(error) = wit_component::targets(&resolve, world, component) {
        panic!("a {kind} does not conform to its world: {error:#}");
    }
}

fn every_kind(language: &str) {
    let folder = folder();
    for kind in KINDS {
        let dir = new(folder.path(), language, kind);
        let passed = plugin(&dir).arg("test").succeed();
        assert!(passed.contains("vectors passed in the sandbox"), "{passed}");

        let file = build(&dir);
        let component = fs::read(&file).expect("the component");
        // Without a configuration it is loaded and described, but not started.
        let inspected = plugin(&dir).args(["inspect", "--json"]).arg(&file).succeed();
        let facts: Value = serde_json::from_str(&inspected).expect("JSON");
        let name = format!("{language}-{kind}");
        assert_eq!(
            (&facts["name"], &facts["kind"], &facts["version"]),
            (&name.as_str().into(), &kind.into(), &"0.1.0".into())
        );
        let imports = facts["imports"].as_array().expect("a list");
        assert!(imports.iter().all(|import| import.as_str().is_some_and(|name| name.starts_with("millstream:stage/"))));
        conforms(&component, kind);
        // A copy in another folder is the same component. The snapshot of QuickJS has addresses of the machine.
        if kind == "filter" && language != "js" {
            let other = TempDir::new().expect("a temporary folder");
            let copy = other.path().join(&name);
            Tool::new("cp").arg("-r").args([&dir, &copy]).succeed();
            fs::remove_dir_all(copy.join("target")).expect("a folder");
            assert!(fs::read(build(&copy)).expect("the component") == component, "{name}: other bytes elsewhere");
        }
        // A wrong vector fails, and is named with its line.
        if kind == "filter" {
            let vectors = dir.join("tests/vectors.jsonl");
            let wrong = fs::read_to_string(&vectors).expect("vectors").replace(r#""keep":[0]"#, r#""keep":[1]"#);
            fs::write(&vectors, wrong).expect("a file of the test's own");
            let end = plugin(&dir).arg("test").run();
            assert_eq!(end.code, Some(1));
            assert!(end.stderr.contains("vectors.jsonl:1: not the expected result"), "{}", end.stderr);
        }
    }
}

/// Runs a build without any program on the path.
fn missing_tool(language: &str) {
    let folder = folder();
    let dir = new(folder.path(), language, "filter");
    let nothing = folder.path().join("nothing");
    let end = Tool::new(millstream()).args(["plugin", "build"]).arg(&dir).env("PATH", nothing).run();
    assert_eq!(end.code, Some(1));
    let (program, install) = match language {
        "c" => ("clang", "apt-get install clang lld wasi-libc"),
        "go" => ("go", "apt-get install golang-go"),
        _ => ("node", "apt-get install nodejs npm"),
    };
    assert!(end.stderr.contains(&format!("cannot run {program}")), "{}", end.stderr);
    assert!(end.stderr.contains(install), "{}", end.stderr);
}

/// Adapts the core module that a build has left.
fn core_module() {
    let folder = folder();
    let dir = new(folder.path(), "c", "partitioner");
    let built = fs::read(build(&dir)).expect("the component");
    let core = dir.join("target/wasm/core.wasm");
    let refused = plugin(&dir).arg("inspect").arg(&core).run();
    assert_eq!(refused.code, Some(1));
    assert!(refused.stdout.contains("make it one with `millstream plugin adapt"), "{}", refused.stdout);
    plugin(&dir).arg("adapt").arg(&core).args(["-o", "adapted.wasm"]).succeed();
    assert!(fs::read(dir.join("adapted.wasm")).expect("the component") == built);
}

/// Decodes texts of all lengths of characters, one that is longer than what is decoded at once, and bytes that are no
/// UTF-8: an overlong form, half a surrogate pair, half a character, and a number beyond Unicode.
fn text_in_javascript() {
    let folder = folder();
    let dir = new(folder.path(), "js", "filter");
    let good: Vec<Value> = ["aé€😀z", "", "a€", &"€".repeat(5_000)].map(|text| json!({ "value": text })).into();
    let bad = ["c0af", "eda080", "e282", "f4908080", "80", "61ff"].map(|hex| json!({ "value": { "hex": hex } }));
    let rows: Vec<Value> = (0..bad.len()).map(|row| json!({ "row": row, "message": "invalid utf-8" })).collect();
    let vectors = [
        json!({ "call": "filter", "config": { "text": "€" }, "records": good, "expect": { "keep": [0, 2, 3] } }),
        json!({ "call": "filter", "config": { "text": "€" }, "records": bad, "expect": { "error": { "rows": rows } } }),
    ];
    fs::write(dir.join("tests/vectors.jsonl"), vectors.map(|vector| format!("{vector}\n")).concat()).expect("vectors");
    let passed = plugin(&dir).arg("test").succeed();
    assert!(passed.contains("2 vectors passed"), "{passed}");
}

/// Calls a plug-in in Go often enough that its garbage collector runs many times.
fn collector() {
    let folder = folder();
    let dir = new(folder.path(), "go", "serializer");
    let file = build(&dir);
    let records = vec![json!({ "value": "x".repeat(1_000) }); 100];
    let call = json!({ "call": "serialize", "config": { "prefix": "v1:" }, "records": records });
    let calls = format!("{call}\n").repeat(200);
    let said = plugin(&dir).arg("call").arg(&file).input(calls).succeed();
    let good = said.lines().filter(|line| line.starts_with(r#"{"changed":{"values":["v1:xxx"#)).count();
    assert_eq!(good, 200, "{}", said.lines().last().unwrap_or_default());
}

/// Builds a filter in Python: the default limits reject it, and a broker with the larger ones runs it.
fn python(interpreter: &str) {
    let folder = TempDir::new().expect("a temporary folder");
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tool = Path::new(interpreter).with_file_name("componentize-py");
    let wit = tests.with_file_name("sdk").join("wit/1.0.0");
    let file = folder.path().join("contains-py.wasm");
    let make =
        Tool::new(tool).arg("-d").arg(wit).args(["-w", "filter", "-q", "componentize", "contains", "--stub-wasi"]);
    make.arg("-p").arg(tests.join("interop/languages")).arg("-o").arg(&file).limit(PATIENCE).succeed();

    let report = |end: Finished| -> Value { serde_json::from_str(&end.stdout).expect("JSON") };
    let inspect = |limits: &str| plugin(folder.path()).args(["inspect", "--json", "--limits", limits]).arg(&file).run();
    let refused = report(inspect("default"));
    let reasons: Vec<&str> = refused["rejected"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    for start in ["file size in bytes", "functions", "largest function", "core instances", "types, imports"] {
        let reason = reasons.iter().find(|reason| reason.starts_with(start));
        assert!(reason.is_some_and(|reason| reason.contains("the profile `large` allows it")), "{start}: {reasons:?}");
    }
    let end = inspect("large");
    assert_eq!(end.code, Some(0), "{}{}", end.stdout, end.stderr);
    assert_eq!(report(end)["limits"]["profile"], "large");

    let broker = Broker::builder().set("plugin.limits", "large").start();
    let run =
        |arguments: &[&str]| Tool::new(millstream()).args(arguments).args(["-b", &broker.bootstrap()]).limit(PATIENCE);
    run(&["plugin", "push", file.to_str().expect("a path of ASCII"), "--limits", "large"]).succeed();
    run(&["topic", "create", "lines", "--partitions", "1"]).succeed();
    run(&["produce", "lines"]).input("an error\nall is well\nerrors\n").succeed();
    let stage = r#"contains-py{"text":"error"}"#;
    run(&["view", "create", "errors", "--of", "lines", "--filter", stage]).succeed();
    assert_eq!(run(&["consume", "errors", "--from-beginning"]).succeed(), "an error\nerrors\n");

    let usual = Broker::start();
    usual.allow("contains-py");
    let pushed = Tool::new(millstream()).args(["plugin", "push"]).arg(&file);
    let end = pushed.args(["--limits", "large", "-b", &usual.bootstrap()]).limit(PATIENCE).run();
    assert_eq!(end.code, Some(1), "a broker with the usual limits takes it: {}", end.stdout);
    assert!(end.stderr.contains("over the limit of 4194304"), "{}", end.stderr);
}
