//! Checks that `millstream plugin build` prints the toolchain's own message when something in the toolchain fails. The
//! toolchain is a fake on the `PATH`, which fails in one way at a time.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

const TARGET_ADVICE: &str = "rustup target add";

/// A fake that passes the checks before the build: rustc names an existing folder, and cargo a workspace.
const RUSTC: &str = "echo x86_64-unknown-linux-gnu; echo \"$FAKE\"";
const METADATA: &str = "[ \"$1\" = metadata ] && { echo '{\"target_directory\":\"/nowhere\",\"packages\":[]}'; exit; }";

/// Runs `plugin build` with these two scripts as the only programs on the `PATH`; returns what it prints on stderr.
fn build(rustc: Option<&str>, cargo: Option<&str>) -> String {
    let dir = TempDir::new().unwrap();
    let fake = dir.path().join("bin");
    fs::create_dir(&fake).unwrap();
    for (name, script) in [("rustc", rustc), ("cargo", cargo)] {
        if let Some(script) = script {
            write_program(&fake.join(name), script);
        }
    }
    fs::write(dir.path().join("Cargo.toml"), "[package]\nname = \"a\"\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_millstream"))
        .args(["plugin", "build"])
        .current_dir(dir.path())
        .env("PATH", &fake)
        .env("FAKE", &fake)
        .env_remove("CARGO")
        .env_remove("RUSTC")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty(), "no path of a component: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn write_program(path: &Path, script: &str) {
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_missing_target_is_named_with_the_command_that_adds_it() {
    let error = build(Some("echo x86_64-unknown-linux-gnu; echo /does/not/exist"), None);
    assert!(error.contains("rustup target add wasm32-unknown-unknown"), "{error}");
    assert!(error.contains("/does/not/exist is missing"), "{error}");
}

#[test]
fn a_missing_toolchain_is_named() {
    let error = build(None, None);
    assert!(error.contains("cannot run rustc: install Rust with rustup"), "{error}");
    assert!(error.contains("No such file"), "{error}");
    let error = build(Some(RUSTC), None);
    assert!(error.contains("cannot run cargo: install Rust with rustup"), "{error}");
    assert!(!error.contains(TARGET_ADVICE), "{error}");
}

#[test]
fn the_message_of_a_failing_rustc_is_shown() {
    let error = build(Some("echo \"error: toolchain '1.95' is not installed\" >&2; exit 1"), None);
    assert!(error.contains("rustc does not run"), "{error}");
    assert!(error.contains("error: toolchain '1.95' is not installed"), "{error}");
    assert!(!error.contains(TARGET_ADVICE), "{error}");
}

#[test]
fn the_message_of_a_failing_cargo_is_shown() {
    let offline = "echo 'warning: spurious network error: Could not resolve hostname' >&2; exit 101";
    for (cargo, expected) in [
        (offline.to_owned(), &["cargo cannot read ", "Could not resolve hostname"][..]),
        (format!("{METADATA}; {offline}"), &["Could not resolve hostname", "error: cargo cannot build ."]),
        ("echo nonsense".to_owned(), &["cannot read the output of cargo metadata"]),
        (format!("{METADATA}; kill -9 $$"), &["cargo cannot build .", "signal: 9"]),
        // The check found the target, but the compiler that cargo runs does not have it.
        (
            format!("{METADATA}; echo \"error[E0463]: can't find crate for \\`core\\`\" >&2; exit 101"),
            &["can't find crate for `core`", "error: cargo cannot build ."],
        ),
    ] {
        let error = build(Some(RUSTC), Some(&cargo));
        for words in expected {
            assert!(error.contains(words), "{words:?} is missing for {cargo}\n{error}");
        }
        assert!(!error.contains(TARGET_ADVICE), "{error}");
    }
}
