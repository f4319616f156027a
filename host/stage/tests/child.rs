//! Compiling in a child process that can be killed. This test is its own child: it has no harness.

#[path = "../../../tests/fixtures/guests/mod.rs"]
#[allow(dead_code)]
mod guests;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use guests::Guest;
use millstream_stage::{
    COMPILE_CHILD_ARGUMENT, Compiler, Engine, EngineConfig, LoadError, Plugin, RecordsBuf, Stage, compile_child_main,
};

fn main() -> ExitCode {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some(COMPILE_CHILD_ARGUMENT) {
        return compile_child_main();
    }
    // Tools that list tests pass this argument to a test harness.
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let tests: [(&str, fn()); 6] = [
        ("code_from_a_child_runs_here", code_from_a_child_runs_here),
        ("code_without_a_deadline_is_another", code_without_a_deadline_is_another),
        ("the_cache_spares_the_child", the_cache_spares_the_child),
        ("a_child_that_is_not_there_is_named", a_child_that_is_not_there_is_named),
        ("a_child_that_fails_is_an_error", a_child_that_fails_is_an_error),
        ("a_child_without_memory_is_an_error", a_child_without_memory_is_an_error),
    ];
    for (name, test) in tests {
        let begun = Instant::now();
        test();
        println!("test {name} ... ok ({} ms)", begun.elapsed().as_millis());
    }
    println!("test result: ok. {} passed; 0 failed", tests.len());
    ExitCode::SUCCESS
}

fn engine(child: &Path, cache: Option<&Path>) -> Engine {
    let config = EngineConfig {
        compiler: Compiler::Child(child.to_owned()),
        cache_dir: cache.map(Path::to_owned),
        ..EngineConfig::default()
    };
    Engine::new(config).expect("an engine")
}

fn this() -> PathBuf {
    std::env::current_exe().expect("this program")
}

fn works(engine: &Engine) {
    answers(engine.load(&Guest::filter().build()).expect("a guest"));
}

fn answers(plugin: Plugin) {
    let stage = Stage::new(plugin, "{}").expect("a stage");
    let mut batch = RecordsBuf::new(stage.pin().columns());
    for value in ["a", "x", "b"] {
        batch.push(0, None, Some(value.as_bytes()), []).expect("a small batch");
    }
    let kept = stage.filter("topic", &batch.as_records()).expect("a response");
    assert_eq!(kept.iter().collect::<Vec<_>>(), [0, 2]);
}

fn code_from_a_child_runs_here() {
    works(&engine(&this(), None));
}

fn code_without_a_deadline_is_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes: &'static [u8] = Guest::filter().build().leak();
    let this = engine(&this(), Some(folder.path()));
    answers(this.load_own(bytes).expect("a guest"));
    // Its compiled code is not used for a plug-in with a deadline, nor the other way round.
    let nowhere = engine(Path::new("/nowhere/at/all"), Some(folder.path()));
    answers(nowhere.load_own(bytes).expect("kept code"));
    let error = nowhere.load(bytes).expect_err("no compiler");
    assert!(matches!(error, LoadError::CompilerMissing { .. }), "{error}");
    answers(this.load(bytes).expect("a guest"));
    answers(nowhere.load(bytes).expect("kept code"));
}

fn the_cache_spares_the_child() {
    let folder = tempfile::tempdir().expect("a folder");
    works(&engine(&this(), Some(folder.path())));
    // With a child that does not exist, the component has to come from the cache.
    works(&engine(Path::new("/nowhere/at/all"), Some(folder.path())));
    // Changed files are not trusted, so the child would be needed again.
    for entry in std::fs::read_dir(folder.path()).expect("the cache") {
        let path = entry.expect("a file").path();
        if path.extension().is_some_and(|extension| extension == "stage") {
            let mut bytes = std::fs::read(&path).expect("a kept file");
            *bytes.last_mut().expect("not empty") ^= 1;
            std::fs::write(&path, bytes).expect("written");
        }
    }
    let error = engine(Path::new("/nowhere/at/all"), Some(folder.path()))
        .load(&Guest::filter().build())
        .expect_err("no compiler");
    assert!(matches!(error, LoadError::CompilerMissing { .. }), "{error}");
}

fn a_child_that_is_not_there_is_named() {
    let error = engine(Path::new("/nowhere/at/all"), None).load(&Guest::filter().build()).expect_err("no compiler");
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
}

/// Returns a child that is a shell script.
fn script(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("child");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("its mode");
    path
}

fn a_child_that_fails_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    for (text, expected) in [
        ("echo out of luck >&2; exit 1", "out of luck"),
        ("kill -9 $$", "signal: 9"),
        // A compiler that rejects the component, with its message.
        ("echo no such thing >&2; exit 3", "no such thing"),
        // A child whose output is not code.
        ("echo nonsense", "does not compile"),
        ("true", "does not compile"),
    ] {
        let child = script(folder.path(), text);
        let error = engine(&child, None).load(&Guest::filter().build()).expect_err("it fails");
        assert!(error.to_string().contains(expected), "{text}: {error}");
    }
}

fn a_child_without_memory_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    // The real child, with 24 MiB of address space before it sets its own limit.
    let text = format!("ulimit -v 24576; exec '{}' \"$@\"", this().display());
    let child = script(folder.path(), &text);
    let error = engine(&child, None).load(&Guest::filter().build()).expect_err("no memory");
    assert!(matches!(error, LoadError::CompilerKilled(_)), "{error}");
}
