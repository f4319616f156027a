//! Measures the same filter in each language that `plugin new` knows, in our own host: the plug-ins of
//! `examples/languages` beside the one in Rust. They run as pushed plug-ins do, with a deadline. `cargo xtask bench`
//! says in variables which compilers are here; a language without its variable is left out.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};
use millstream_sdk_build as build;
use millstream_stage::{Engine, EngineConfig};

use crate::hosts::{NanosPerRow, root};
use crate::report::Row;
use crate::{compiler, component};

/// A language: the folder of its example, the variable of its compiler, and its goal.
struct Language {
    name: &'static str,
    folder: &'static str,
    variable: &'static str,
    goal: &'static str,
}

const LANGUAGES: [Language; 3] = [
    Language { name: "C", folder: "c", variable: "MILLSTREAM_CLANG", goal: "1.3 x Rust" },
    Language { name: "Go", folder: "go", variable: "MILLSTREAM_GO", goal: "120" },
    Language { name: "JavaScript", folder: "javascript", variable: "MILLSTREAM_QJS", goal: "1400" },
];

/// Measures every language whose row's name contains `only` and that is here.
pub(crate) fn rows(only: &str) -> Result<Vec<Row>> {
    let named = |language: &Language| format!("contains written in {}, 1,000 rows of 104 B", language.name);
    let wanted: Vec<&Language> = LANGUAGES.iter().filter(|language| named(language).contains(only)).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let folder = tempfile::tempdir()?;
    let engine = Engine::new(EngineConfig { compiler: compiler()?, ..EngineConfig::default() })?;
    let without_vectors =
        build::Options { no_simd: true, output: Some(folder.path().join("rust.wasm")), ..build::Options::default() };
    let without_vectors = build::build(&root().join("plugins/contains"), &without_vectors)?.component;
    // A build finds the SDK of its language above the plug-in, and componentize-qjs follows no link out of its folder.
    for sdk in ["sdk/c", "sdk/go", "sdk/js"] {
        copy_folder(&root().join(sdk), &folder.path().join(sdk))?;
    }
    let mut rows = Vec::new();
    for language in wanted {
        let Some(value) = env::var_os(language.variable) else {
            println!("{} is left out: {} is not set", language.name, language.variable);
            continue;
        };
        if language.name == "JavaScript" {
            // Node finds packages in the same way.
            symlink(value, folder.path().join("node_modules"))?;
        }
        let bytes = written_in(language, folder.path()).with_context(|| format!("building it in {}", language.name))?;
        let measure = |bytes: &[u8]| NanosPerRow::of(&engine.load(bytes)?);
        // In turns, so that other work on the machine meets both.
        let (plain, own, vectors) = (measure(&without_vectors)?, measure(&bytes)?, measure(component("contains"))?);
        let detail = format!(
            "{:.2} x Rust without vectors, {:.1}; Rust with them {:.1}; the call alone {:.1}; {} KiB",
            own.whole / plain.whole,
            plain.whole,
            vectors.whole,
            own.call,
            bytes.len() >> 10
        );
        let figure = format!("{:.1} ns", own.whole);
        rows.push(Row { name: named(language), figure, goal: language.goal.to_owned(), detail });
    }
    Ok(rows)
}

/// Builds the example of a language, in a copy.
fn written_in(language: &Language, folder: &Path) -> Result<Vec<u8>> {
    let example = Path::new("examples/languages").join(language.folder);
    let copy = folder.join(&example);
    copy_folder(&root().join(example), &copy)?;
    let options = build::Options { output: Some(copy.join("out.wasm")), ..build::Options::default() };
    Ok(build::build(&copy, &options)?.component)
}

/// Copies a folder without what was built in it or installed.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        if kind.is_file() {
            fs::copy(entry.path(), to.join(name))?;
        } else if kind.is_dir() && name != "target" && name != "node_modules" {
            copy_folder(&entry.path(), &to.join(name))?;
        }
    }
    Ok(())
}
