//! `millstream plugin new NAME --kind KIND --language LANGUAGE`: makes the folder of a plug-in. The folder contains the
//! SDK, needs nothing else of the repository, and builds and passes its own test at once.

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
  millstream plugin new by-region --kind partitioner --dir plugins/by-region
  millstream plugin new heavy --kind filter --language go")]
pub(crate) struct Args {
    /// The name that users write: lower-case letters, digits and `-`.
    name: String,
    /// The kind of the plug-in.
    #[arg(long, value_enum)]
    kind: Kind,
    /// The language of the plug-in.
    #[arg(long, value_enum, default_value = "rust")]
    language: Language,
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

    /// Returns its vectors. They are the same in every language.
    fn vectors(self) -> &'static str {
        match self {
            Kind::Filter => include_str!("../../templates/filter.jsonl"),
            Kind::Partitioner => include_str!("../../templates/partitioner.jsonl"),
            Kind::Serializer => include_str!("../../templates/serializer.jsonl"),
            Kind::Compressor => include_str!("../../templates/compressor.jsonl"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Language {
    /// A crate, built by cargo.
    Rust,
    /// C, built by clang.
    C,
    /// A Go module, built by go.
    Go,
    /// JavaScript, which QuickJS runs inside of the plug-in.
    Js,
}

impl Language {
    #[cfg(test)]
    const ALL: [Language; 4] = [Language::Rust, Language::C, Language::Go, Language::Js];

    /// Returns the code of a plug-in, from which a newcomer learns, and its path.
    fn code(self, kind: Kind) -> (&'static str, &'static str) {
        macro_rules! templates {
            ($path:literal, $folder:literal, $ending:literal) => {
                match kind {
                    Kind::Filter => ($path, include_str!(concat!("../../templates/", $folder, "filter", $ending))),
                    Kind::Partitioner => {
                        ($path, include_str!(concat!("../../templates/", $folder, "partitioner", $ending)))
                    }
                    Kind::Serializer => {
                        ($path, include_str!(concat!("../../templates/", $folder, "serializer", $ending)))
                    }
                    Kind::Compressor => {
                        ($path, include_str!(concat!("../../templates/", $folder, "compressor", $ending)))
                    }
                }
            };
        }
        match self {
            Language::Rust => templates!("src/lib.rs", "", ".rs"),
            Language::C => templates!("src/plugin.c", "c/", ".c"),
            Language::Go => templates!("plugin.go", "go/", ".go"),
            Language::Js => templates!("src/plugin.js", "js/", ".js"),
        }
    }

    /// Returns the other files that are made from a template.
    fn project(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Language::Rust => &[
                ("Cargo.toml", include_str!("../../templates/Cargo.toml")),
                ("tests/vectors.rs", include_str!("../../templates/vectors.rs")),
            ],
            Language::C => &[],
            Language::Go => &[("go.mod", include_str!("../../templates/go/go.mod"))],
            Language::Js => &[("package.json", include_str!("../../templates/js/package.json"))],
        }
    }

    /// Returns whether a file of the SDK is for this language.
    fn uses(self, path: &str) -> bool {
        let of_another = |folder: &str| path.starts_with(folder);
        match self {
            Language::Rust => !["sdk/c/", "sdk/go/", "sdk/js/"].into_iter().any(of_another),
            Language::C => path.starts_with("sdk/c/"),
            Language::Go => path.starts_with("sdk/go/"),
            Language::Js => path.starts_with("sdk/js/"),
        }
    }

    /// Returns what to run once in the folder, before the first build.
    fn first_step(self) -> &'static str {
        match self {
            Language::Js => "  npm install                install the tool that makes the component\n",
            Language::Rust | Language::C | Language::Go => "",
        }
    }

    /// Returns what the tests are run in.
    fn tested_in(self) -> &'static str {
        if self == Language::Rust { "natively and in the sandbox" } else { "in the sandbox" }
    }
}

impl Args {
    pub(crate) fn run(self) -> Result<()> {
        check_name(&self.name)?;
        let dir = self.dir.unwrap_or_else(|| PathBuf::from(&self.name));
        if dir.read_dir().is_ok_and(|mut entries| entries.next().is_some()) || dir.is_file() {
            bail!("{} already exists", dir.display());
        }
        for (path, contents) in files(&self.name, self.kind, self.language) {
            write(&dir.join(path), &contents)?;
        }
        output::line(&format!(
            "created the {kind} {dir}\n\n  \
             cd {dir}\n{first}  \
             millstream plugin test     run tests/vectors.jsonl {tested}\n  \
             millstream plugin build    build the component target/plugins/{name}.wasm",
            dir = dir.display(),
            first = self.language.first_step(),
            tested = self.language.tested_in(),
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

/// Returns the name of a type in Go: `byRegion`. A keyword or the name of a package gets `Stage` behind it.
fn go_name(name: &str) -> String {
    let camel = type_name(name);
    let (first, rest) = camel.split_at(1);
    format!("{}{rest}Stage", first.to_ascii_lowercase()).replace("StageStage", "Stage")
}

/// Returns all files of the folder.
fn files(name: &str, kind: Kind, language: Language) -> Vec<(&'static str, String)> {
    let fill = |template: &str| {
        template
            .replace("{{name}}", name)
            .replace("{{crate}}", &name.replace('-', "_"))
            .replace("{{type}}", &type_name(name))
            .replace("{{go}}", &go_name(name))
            .replace("{{kind}}", kind.name())
    };
    let (path, code) = language.code(kind);
    let ignored = if language == Language::Js { "/target\n/node_modules\n" } else { "/target\n" };
    let mut files = vec![
        (path, fill(code)),
        (".gitignore", ignored.to_owned()),
        ("tests/vectors.jsonl", kind.vectors().to_owned()),
    ];
    files.extend(language.project().iter().map(|(path, template)| (*path, fill(template))));
    let sdk = embedded::SDK.iter().filter(|(path, _)| language.uses(path));
    files.extend(sdk.map(|(path, contents)| (*path, (*contents).to_owned())));
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

    const KINDS: [Kind; 4] = [Kind::Filter, Kind::Partitioner, Kind::Serializer, Kind::Compressor];

    #[test]
    fn no_placeholder_remains() {
        for (kind, language) in KINDS.into_iter().flat_map(|kind| Language::ALL.map(|language| (kind, language))) {
            let files = files("by-region", kind, language);
            for (path, contents) in files.iter().filter(|(path, _)| !path.starts_with("sdk/")) {
                assert!(!contents.contains("{{"), "{path}");
            }
            let sdk = match language {
                Language::Rust => {
                    &["Cargo.lock", "sdk/Cargo.toml", "sdk/rust/src/lib.rs", "sdk/wit/1.0.0/stage.wit"][..]
                }
                Language::C => &["sdk/c/millstream.h", "sdk/c/millstream.c", "sdk/c/config.c"],
                Language::Go => &["sdk/go/go.mod", "sdk/go/filter/filter.go", "go.mod"],
                Language::Js => &["sdk/js/millstream.js", "package.json"],
            };
            for path in sdk {
                assert!(files.iter().any(|(found, _)| found == path), "{path}");
            }
            let roots = files.iter().filter_map(|(path, _)| path.strip_prefix("sdk/")?.split('/').next());
            let roots: std::collections::BTreeSet<&str> = roots.collect();
            assert_eq!(roots.len(), if language == Language::Rust { 3 } else { 1 }, "{roots:?}");
        }
    }

    #[test]
    fn a_filter_and_a_partitioner_fit_in_twenty_five_lines() {
        for kind in [Kind::Filter, Kind::Partitioner] {
            let lines = Language::Rust.code(kind).1.lines().count();
            assert!(lines < 25, "{}: {lines} lines", kind.name());
        }
    }

    #[test]
    fn names_in_go_are_private_and_no_keyword() {
        for (name, expected) in [("by-region", "byRegionStage"), ("func", "funcStage"), ("filter", "filterStage")] {
            assert_eq!(go_name(name), expected);
        }
    }
}
