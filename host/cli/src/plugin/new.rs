//! `millstream plugin new NAME --kind KIND`: makes the folder of a plug-in. The folder contains the SDK, needs nothing
//! else of the repository, and builds and passes its own test at once.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::embedded;
use crate::output;

/// The arguments of `millstream plugin new`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millstream plugin new heavy --kind filter
  millstream plugin new by-region --kind partitioner --dir plugins/by-region")]
pub(crate) struct Args {
    /// The name that users write: lower-case letters, digits and `-`.
    name: String,
    /// The kind of the plug-in.
    #[arg(long, value_enum)]
    kind: Kind,
    /// The folder to create [default: the name, in this folder].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Decides which records a consumer sees.
    Filter,
    /// Chooses the partition of each record.
    Partitioner,
    /// Changes or checks keys and values.
    Serializer,
    /// Makes batches smaller.
    Compressor,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Filter => "filter",
            Kind::Partitioner => "partitioner",
            Kind::Serializer => "serializer",
            Kind::Compressor => "compressor",
        }
    }

    /// Returns the code and its vectors, from which a newcomer learns.
    fn templates(self) -> (&'static str, &'static str) {
        match self {
            Kind::Filter => (include_str!("../../templates/filter.rs"), include_str!("../../templates/filter.jsonl")),
            Kind::Partitioner => {
                (include_str!("../../templates/partitioner.rs"), include_str!("../../templates/partitioner.jsonl"))
            }
            Kind::Serializer => {
                (include_str!("../../templates/serializer.rs"), include_str!("../../templates/serializer.jsonl"))
            }
            Kind::Compressor => {
                (include_str!("../../templates/compressor.rs"), include_str!("../../templates/compressor.jsonl"))
            }
        }
    }
}

impl Args {
    pub(crate) fn run(self) -> Result<()> {
        check_name(&self.name)?;
        let dir = self.dir.unwrap_or_else(|| PathBuf::from(&self.name));
        if dir.read_dir().is_ok_and(|mut entries| entries.next().is_some()) || dir.is_file() {
            bail!("{} already exists", dir.display());
        }
        for (path, contents) in files(&self.name, self.kind) {
            write(&dir.join(path), &contents)?;
        }
        output::line(&format!(
            "created the {kind} {dir}\n\n  \
             cd {dir}\n  \
             millstream plugin test     run tests/vectors.jsonl natively and in the sandbox\n  \
             millstream plugin build    build the component target/plugins/{name}.wasm",
            dir = dir.display(),
            kind = self.kind.name(),
            name = self.name
        ))?;
        Ok(())
    }
}

/// Checks a name: cargo must accept it for a package, and the host for a plug-in.
fn check_name(name: &str) -> Result<()> {
    const RESERVED: [&str; 8] = ["alloc", "core", "millstream-sdk", "proc-macro", "sdk", "serde", "std", "test"];
    let fits = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.ends_with(|last: char| last.is_ascii_alphanumeric())
        && name.len() <= 64
        && name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-');
    if !fits {
        bail!(
            "`{name}` cannot be the name of a plug-in: use at most 64 lower-case letters, digits and `-`, \
             such as by-region"
        );
    }
    if RESERVED.contains(&name) || KEYWORDS.contains(&name) {
        bail!("`{name}` cannot be the name of a plug-in: Rust reserves it");
    }
    Ok(())
}

/// The keywords of Rust, which no crate can have as a name.
const KEYWORDS: [&str; 51] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else",
    "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod",
    "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true",
    "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// Returns the type name of a plug-in: `ByRegion` for `by-region`, and `FilterStage` for `filter`, since `Filter` is
/// taken.
fn type_name(name: &str) -> String {
    const TAKEN: [&str; 13] = [
        "Box",
        "Change",
        "Compressor",
        "Deserialize",
        "Filter",
        "Format",
        "Ok",
        "Option",
        "Partitioner",
        "Partitions",
        "Record",
        "Result",
        "Serializer",
    ];
    let mut camel = String::new();
    for word in name.split('-') {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    if TAKEN.contains(&camel.as_str()) {
        camel.push_str("Stage");
    }
    camel
}

/// Returns all files of the folder.
fn files(name: &str, kind: Kind) -> Vec<(&'static str, String)> {
    let (code, vectors) = kind.templates();
    let fill = |template: &str| {
        template
            .replace("{{name}}", name)
            .replace("{{crate}}", &name.replace('-', "_"))
            .replace("{{type}}", &type_name(name))
            .replace("{{kind}}", kind.name())
    };
    let mut files = vec![
        ("Cargo.toml", fill(include_str!("../../templates/Cargo.toml"))),
        (".gitignore", "/target\n".to_owned()),
        ("src/lib.rs", fill(code)),
        ("tests/vectors.rs", fill(include_str!("../../templates/vectors.rs"))),
        ("tests/vectors.jsonl", vectors.to_owned()),
    ];
    files.extend(embedded::SDK.iter().map(|(path, contents)| (*path, (*contents).to_owned())));
    files
}

fn write(path: &Path, contents: &str) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, contents))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cargo_or_the_host_reject_are_errors() {
        for name in ["heavy", "by-region", "a1", "x-2-y"] {
            check_name(name).unwrap();
        }
        for name in ["", "Heavy", "1a", "-a", "a-", "a_b", "a/b", "..", "test", "match", &"a".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn types_are_named_as_rust_names_them() {
        for (name, expected) in [("by-region", "ByRegion"), ("x2", "X2"), ("filter", "FilterStage"), ("a--b", "AB")] {
            assert_eq!(type_name(name), expected);
        }
    }

    #[test]
    fn no_placeholder_remains() {
        for kind in [Kind::Filter, Kind::Partitioner, Kind::Serializer, Kind::Compressor] {
            let files = files("by-region", kind);
            for (path, contents) in files.iter().filter(|(path, _)| !path.starts_with("sdk/")) {
                assert!(!contents.contains("{{"), "{path}");
            }
            for path in ["Cargo.lock", "sdk/Cargo.toml", "sdk/rust/src/lib.rs", "sdk/wit/1.0.0/stage.wit"] {
                assert!(files.iter().any(|(found, _)| *found == path), "{path}");
            }
        }
    }

    #[test]
    fn a_filter_and_a_partitioner_fit_in_twenty_five_lines() {
        for kind in [Kind::Filter, Kind::Partitioner] {
            let lines = kind.templates().0.lines().count();
            assert!(lines < 25, "{}: {lines} lines", kind.name());
        }
    }
}
