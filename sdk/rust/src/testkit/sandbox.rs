//! The sandboxed half: the `millstream` binary builds the component and calls it.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::thread;

use serde_json::Value;

/// Returns the results of the component of the crate in `dir`, one for each vector.
pub(crate) fn results(dir: &Path, vectors: &[Value]) -> Result<Vec<Value>, String> {
    let component = component(dir)?;
    let mut calls = String::new();
    for vector in vectors {
        let mut call = vector.clone();
        if let Some(fields) = call.as_object_mut() {
            fields.remove("expect");
        }
        calls.push_str(&call.to_string());
        calls.push('\n');
    }
    let results = run(&[OsStr::new("plugin"), OsStr::new("call"), component.as_os_str()], calls)?;
    let results: Vec<Value> = results
        .lines()
        .map(|line| serde_json::from_str(line).map_err(|error| format!("not a result: {error}: {line}")))
        .collect::<Result<_, _>>()?;
    if results.len() != vectors.len() {
        return Err(format!("{} results for {} vectors", results.len(), vectors.len()));
    }
    Ok(results)
}

/// Returns the component of the crate in `dir`. The first call for a crate builds it, unless `millstream plugin test`
/// has done so; the lock makes the other tests of the process wait for that.
fn component(dir: &Path) -> Result<PathBuf, String> {
    static BUILT: Mutex<BTreeMap<PathBuf, PathBuf>> = Mutex::new(BTreeMap::new());
    // It is the component of the crate whose tests run.
    if let Some(component) = env::var_os("MILLSTREAM_COMPONENT")
        && env::var_os("CARGO_MANIFEST_DIR").is_some_and(|tested| Path::new(&tested) == dir)
    {
        return Ok(component.into());
    }
    let mut built = BUILT.lock().map_err(|_| "another test panicked while it built the component")?;
    if let Some(component) = built.get(dir) {
        return Ok(component.clone());
    }
    let printed = run(&[OsStr::new("plugin"), OsStr::new("build"), dir.as_os_str()], String::new())?;
    let component = PathBuf::from(printed.trim_end());
    built.insert(dir.to_owned(), component.clone());
    Ok(component)
}

/// Runs the binary and returns what it prints.
fn run(arguments: &[&OsStr], input: String) -> Result<String, String> {
    let program = program();
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => format!(
            "the sandboxed half of this test needs the `millstream` binary: put it on the PATH, \
             name it in MILLSTREAM, or \
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
    // The binary writes results while it reads calls. One thread for both could wait for a full pipe for ever.
    let mut stdin = child.stdin.take().ok_or("the child has no standard input")?;
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

/// Returns the path of the binary: that in `MILLSTREAM`, else the one in the target folder of this test, else a bare
/// name that is looked up on the `PATH`.
fn program() -> PathBuf {
    if let Some(program) = env::var_os("MILLSTREAM") {
        return PathBuf::from(program);
    }
    let name = format!("millstream{}", env::consts::EXE_SUFFIX);
    // A test program is in <target>/<profile>/deps.
    let beside = env::current_exe().ok().and_then(|test| Some(test.parent()?.parent()?.join(&name)));
    beside.filter(|program| program.is_file()).unwrap_or_else(|| PathBuf::from(name))
}
