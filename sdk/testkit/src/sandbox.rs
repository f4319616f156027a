//! The sandboxed half: the `millstream` binary builds the component and calls it.

use std::env;
use std::ffi::OsStr;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use serde_json::Value;

/// The answers of the component that the crate in `dir` builds, one a vector.
pub(crate) fn answers(dir: &Path, vectors: &[Value]) -> Result<Vec<Value>, String> {
    let dir = OsStr::new(dir);
    let component = run(&[OsStr::new("plugin"), OsStr::new("build"), dir], String::new())?;
    let component = component.trim_end();
    let mut calls = String::new();
    for vector in vectors {
        let mut call = vector.clone();
        if let Some(fields) = call.as_object_mut() {
            fields.remove("expect");
        }
        calls.push_str(&call.to_string());
        calls.push('\n');
    }
    let answers = run(&["plugin", "call", component].map(OsStr::new), calls)?;
    let answers: Vec<Value> = answers
        .lines()
        .map(|line| serde_json::from_str(line).map_err(|error| format!("not an answer: {error}: {line}")))
        .collect::<Result<_, _>>()?;
    if answers.len() != vectors.len() {
        return Err(format!("{} answers to {} vectors", answers.len(), vectors.len()));
    }
    Ok(answers)
}

/// What the binary prints.
fn run(arguments: &[&OsStr], input: String) -> Result<String, String> {
    let program = program();
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => format!(
            "the sandboxed half of this test needs the `millstream` binary: put it on the PATH, name it in MILLSTREAM, or \
             run `cargo build -p millstream-cli` in its repository ({} was looked for)",
            program.display()
        ),
        _ => format!("cannot run {}: {error}", program.display()),
    };
    let mut child = Command::new(&program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // Answers come while calls are written: one thread would wait for the other's pipe.
    let mut stdin = child.stdin.take().ok_or("a child without standard input")?;
    let writer = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let written = writer.join().map_err(|_| "the writer panicked")?;
    let Output { status, stdout, stderr } = output;
    if !status.success() {
        let shown: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
        return Err(format!("millstream {}: {}", shown.join(" "), String::from_utf8_lossy(&stderr).trim_end()));
    }
    written.map_err(|error| format!("cannot write to {}: {error}", program.display()))?;
    String::from_utf8(stdout).map_err(|error| error.to_string())
}

/// The binary: what `MILLSTREAM` says, else the one of the workspace that this test is part of, else the one on the path.
fn program() -> PathBuf {
    if let Some(program) = env::var_os("MILLSTREAM") {
        return PathBuf::from(program);
    }
    let name = format!("millstream{}", env::consts::EXE_SUFFIX);
    // A test is in <target>/<profile>/deps.
    let beside = env::current_exe().ok().and_then(|test| Some(test.parent()?.parent()?.join(&name)));
    beside.filter(|program| program.is_file()).unwrap_or_else(|| PathBuf::from(name))
}
