//! Measures a filter in the hosts of other languages: the packages in `sdk/hosts`, each by its own bench. `cargo xtask
//! bench` names what each needs in variables; a host without its variable is left out.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millstream_sdk_build as build;
use millstream_stage::{Engine, Plugin, RecordsBuf, Stage};

use crate::measure::median;
use crate::report::Row;
use crate::{compiler, component};

const ROWS: u64 = 1_000;
const CONFIG: &str = r#"{"text":"error"}"#;

/// A host: its language, what it runs plug-ins by, the variable that names its program, its goal, and what starts its
/// bench.
struct Host {
    name: &'static str,
    variable: &'static str,
    goal: &'static str,
    bench: fn(&str, &Files) -> Result<Command>,
}

const HOSTS: [Host; 4] = [
    Host { name: "Node, by jco", variable: "MILLSTREAM_HOSTS_NODE", goal: "call: 1.2 x our own", bench: node },
    Host { name: "Python, by wasmtime", variable: "MILLSTREAM_PYTHON", goal: "150", bench: python },
    Host { name: "Go, by wazero", variable: "MILLSTREAM_HOSTS_GO", goal: "15 (deadline: 110)", bench: go },
    Host { name: "Java, by Endive without vectors", variable: "MILLSTREAM_HOSTS_JAVA", goal: "stated", bench: java },
];

/// Measures every host whose name contains `only` and that is here.
pub(crate) fn rows(only: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let named = |host: &Host| format!("contains in {}, 1,000 rows of 104 B", host.name);
    let (wanted, values): (Vec<_>, Vec<_>) = HOSTS
        .iter()
        .filter(|host| named(host).contains(only))
        .filter_map(|host| match env::var(host.variable) {
            Ok(value) => Some((host, value)),
            Err(_) => {
                println!("{} is left out: {} is not set", host.name, host.variable);
                None
            }
        })
        .unzip();
    if wanted.is_empty() {
        return Ok(rows);
    }
    let files = Files::make()?;
    for (host, value) in wanted.into_iter().zip(values) {
        let own = own()?;
        let printed = output((host.bench)(&value, &files)?).with_context(|| format!("the bench of {}", host.name))?;
        let (figure, rest) = figures(&printed)?;
        let detail = format!("{rest}; in our own host {:.1} with columns, the call alone {:.1}", own.whole, own.call);
        rows.push(Row { name: named(host), figure: format!("{figure} ns"), goal: host.goal.to_owned(), detail });
    }
    Ok(rows)
}

/// Returns the time of a row with making the batch, and the other figures as they were printed.
fn figures(printed: &str) -> Result<(String, String)> {
    let mut lines: Vec<&str> = printed.lines().collect();
    let first = "batch and call: ";
    let found = lines.iter().position(|line| line.starts_with(first)).context("the bench prints no figure")?;
    let figure = lines.remove(found).trim_start_matches(first).trim_end_matches(" ns a row").to_owned();
    Ok((figure, lines.join(", ")))
}

/// Measures the same filter in Millstream's own host, as part of the program.
fn own() -> Result<NanosPerRow> {
    let engine = Engine::new(millstream_stage::EngineConfig { compiler: compiler()?, ..Default::default() })?;
    NanosPerRow::of(&engine.load_own(component("contains"))?)
}

/// The time of a row in Millstream's own host, in ns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NanosPerRow {
    /// With making the batch.
    pub(crate) whole: f64,
    pub(crate) call: f64,
}

impl NanosPerRow {
    /// Measures a filter that keeps the records with a text.
    pub(crate) fn of(plugin: &Plugin) -> Result<NanosPerRow> {
        let stage = Stage::new(plugin.clone(), CONFIG)?;
        let values: Vec<_> = (0..ROWS).map(value).collect();
        let mut columns = RecordsBuf::new(stage.pin().columns());
        let fill = |columns: &mut RecordsBuf| {
            columns.clear();
            for value in &values {
                columns.push(0, None, Some(value), []).expect("a small batch");
            }
        };
        let whole = each(|| {
            fill(&mut columns);
            stage.filter("bench", &columns.as_records()).expect("a result");
        });
        let call = each(|| drop(stage.filter("bench", &columns.as_records()).expect("a result")));
        Ok(NanosPerRow { whole, call })
    }
}

/// Returns the median time of a row in ns.
fn each(mut work: impl FnMut()) -> f64 {
    let end = Instant::now() + Duration::from_secs(1);
    let mut times = Vec::new();
    while Instant::now() < end {
        let begun = Instant::now();
        work();
        times.push(begun.elapsed().as_nanos() as f64 / ROWS as f64);
    }
    median(times.into_iter())
}

/// Returns 104 bytes, as the benches of the packages make them; every tenth holds the text.
fn value(row: u64) -> Vec<u8> {
    let key = format!("{:016x}", row.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut text = format!(r#"{{"id":{row},"name":""#);
    let length = 102 - text.len();
    text.extend(key.chars().cycle().take(length));
    if row % 10 == 3 {
        text.replace_range(50..55, "error");
    }
    text.push_str("\"}");
    text.into_bytes()
}

/// The files of the filter, in a folder of their own.
struct Files {
    folder: tempfile::TempDir,
    component: PathBuf,
    core: PathBuf,
    core_without_vectors: PathBuf,
}

impl Files {
    fn make() -> Result<Files> {
        let folder = tempfile::tempdir()?;
        let write = |name: &str, bytes: &[u8]| -> Result<PathBuf> {
            let path = folder.path().join(name);
            fs::write(&path, bytes)?;
            Ok(path)
        };
        let without_vectors = build::Options {
            no_simd: true,
            output: Some(folder.path().join("contains.no-simd.wasm")),
            ..build::Options::default()
        };
        let without_vectors = build::build(&root().join("plugins/contains"), &without_vectors)?;
        let core_without_vectors = write("contains.no-simd.core.wasm", &build::unbundle(&without_vectors.component)?)?;
        let component = component("contains");
        let core = write("contains.core.wasm", &build::unbundle(component)?)?;
        let component = write("contains.wasm", component)?;
        Ok(Files { component, core, core_without_vectors, folder })
    }
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the bench lies in the workspace")
}

fn package(name: &str) -> PathBuf {
    root().join("sdk/hosts").join(name)
}

fn python(python: &str, files: &Files) -> Result<Command> {
    let mut command = Command::new(python);
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(package("python").join("bench.py")).arg(&files.core);
    Ok(command)
}

/// Returns the bench in a copy of the package beside its dependencies: Node finds those of modules only there.
fn node(dependencies: &str, files: &Files) -> Result<Command> {
    let copy = files.folder.path().join("node");
    fs::create_dir(&copy)?;
    for entry in fs::read_dir(package("node"))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), copy.join(entry.file_name()))?;
        }
    }
    symlink(dependencies, copy.join("node_modules"))?;
    let mut command = Command::new("node");
    command.arg(copy.join("bench.js")).arg(&files.component);
    Ok(command)
}

fn go(programs: &str, files: &Files) -> Result<Command> {
    let mut command = Command::new(Path::new(programs).join("bench"));
    command.arg(&files.core);
    Ok(command)
}

fn java(classpath: &str, files: &Files) -> Result<Command> {
    let mut command = Command::new("java");
    command.args(["-cp", classpath, "millstream.stage.Bench"]).arg(&files.core_without_vectors);
    Ok(command)
}

fn output(mut command: Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    ensure!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_with_the_batch_comes_first() {
        let printed = "call: 15.5 ns a row\nbatch and call: 43.2 ns a row\none record a call: 4987 ns a call\n";
        let (figure, rest) = figures(printed).unwrap();
        assert_eq!(
            (figure.as_str(), rest.as_str()),
            ("43.2", "call: 15.5 ns a row, one record a call: 4987 ns a call")
        );
        assert!(figures("call: 15.5 ns a row\n").is_err());
    }

    #[test]
    fn every_tenth_value_holds_the_text() {
        let holds = |row| value(row).windows(5).any(|part| part == b"error");
        assert!((0..ROWS).all(|row| value(row).len() == 104 && holds(row) == (row % 10 == 3)));
    }
}
