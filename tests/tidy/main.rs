//! Checks the style of the repository: the words of `docs/glossary.md`, the first words of doc comments, and the length
//! of lines.

mod config_keys;
mod phrases;
mod text;
mod verbs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use phrases::{Finding, findings};
use text::{Part, parts};
use verbs::without_verb;

/// The width that rustfmt.toml sets.
const COLUMNS: usize = 120;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie in the workspace").to_owned()
}

/// Returns the tracked files with one of these endings.
fn files(endings: &[&str]) -> Vec<PathBuf> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().expect("git runs");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).expect("file names are UTF-8");
    let names = listed.split('\0').filter(|name| endings.iter().any(|ending| name.ends_with(ending)));
    // They name the banned phrases.
    let own = ["tests/tidy/", "findings/", "docs/glossary.md"];
    let names = names.filter(|name| !own.iter().any(|own| name.starts_with(own)));
    names.map(PathBuf::from).filter(|name| root().join(name).exists()).collect()
}

/// Returns the banned phrases of one kind of text, with their places.
fn banned(wanted: Part) -> Vec<String> {
    let mut found = Vec::new();
    for file in files(&[".rs", ".md", ".py", ".js", ".java", ".sh", ".toml", ".wat", ".wit"]) {
        let text = fs::read_to_string(root().join(&file)).expect("a tracked file is UTF-8");
        for (part, line, text) in parts(&file, &text) {
            if part == wanted {
                found.extend(findings(&text).map(|Finding { phrase, instead }| {
                    format!("{}:{line}: \"{phrase}\", say {instead}: {}", file.display(), text.trim())
                }));
            }
        }
    }
    found
}

/// Fails if anything is found.
fn hold(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{} {what} (docs/glossary.md has the words to use):\n{}", found.len(), found.join("\n"));
}

#[test]
fn users_read_plain_english() {
    hold("banned phrases in what users read", &banned(Part::UserFacing));
}

#[test]
fn comments_are_plain_english() {
    hold("banned phrases in comments", &banned(Part::Comment));
}

#[test]
fn doc_comments_of_functions_begin_with_a_verb() {
    let mut found = Vec::new();
    for file in files(&[".rs"]) {
        let text = fs::read_to_string(root().join(&file)).expect("a tracked file is UTF-8");
        found.extend(without_verb(&text).iter().map(|(line, word)| format!("{}:{line}: {word}", file.display())));
    }
    hold("doc comments of functions that do not begin with a verb (\"Returns\")", &found);
}

#[test]
fn lines_fit_the_width() {
    let mut long = Vec::new();
    // The bindings are generated.
    for file in files(&[".rs"]).into_iter().filter(|file| !file.starts_with("sdk/rust/src/bindings")) {
        let text = fs::read_to_string(root().join(&file)).expect("a tracked file is UTF-8");
        let lines = text.lines().enumerate().filter(|(_, line)| line.chars().count() > COLUMNS);
        long.extend(lines.map(|(number, _)| format!("{}:{}", file.display(), number + 1)));
    }
    hold("lines that are too long", &long);
}
