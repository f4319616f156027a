//! Embeds the sources of the SDK, which `millstream plugin new` copies beside a new plug-in.

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The paths that `plugin new` copies, from the root of the repository.
const VENDORED: [&str; 6] = ["sdk/c", "sdk/go", "sdk/js", "sdk/rust/Cargo.toml", "sdk/rust/src", "sdk/wit"];

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let out = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?);
    watch(&root.join("Cargo.toml"));
    watch(&root.join("Cargo.lock"));
    embed_sdk(&root, &out)
}

/// Writes `sdk.rs`, with the path and contents of each file. It adds a manifest of a workspace, which the SDK needs.
fn embed_sdk(root: &Path, out: &Path) -> Result<()> {
    let mut files = Vec::new();
    for path in VENDORED {
        watch(&root.join(path));
        walk(&root.join(path), &mut files)?;
    }
    files.sort();
    fs::write(out.join("sdk.toml"), sdk_workspace(root)?)?;
    let mut list = String::from("&[\n");
    for file in &files {
        let name = file.strip_prefix(root).context("the file lies outside of the repository")?;
        writeln!(list, "    ({name:?}, include_str!({file:?})),")?;
    }
    writeln!(list, "    (\"sdk/Cargo.toml\", include_str!({:?})),", out.join("sdk.toml"))?;
    writeln!(list, "    (\"Cargo.lock\", include_str!({:?})),", root.join("Cargo.lock"))?;
    list.push_str("]\n");
    Ok(fs::write(out.join("sdk.rs"), list)?)
}

/// Returns the manifest of this workspace, reduced to the parts that the SDK inherits.
fn sdk_workspace(root: &Path) -> Result<String> {
    let mut inherited = BTreeSet::new();
    for manifest in VENDORED.iter().filter(|path| path.ends_with("Cargo.toml")) {
        let text = fs::read_to_string(root.join(manifest))?;
        inherited.extend(text.lines().filter_map(|line| line.strip_suffix(".workspace = true")).map(str::to_owned));
    }
    let mut kept = String::from("[workspace]\nresolver = \"3\"\nmembers = [\"rust\"]\n");
    let mut section = String::new();
    for line in fs::read_to_string(root.join("Cargo.toml"))?.lines() {
        if line.starts_with('[') {
            section = line.to_owned();
            if section.starts_with("[workspace.") {
                write!(kept, "\n{line}\n")?;
            }
        } else if section == "[workspace.dependencies]" {
            let name = line.split(' ').next().unwrap_or_default();
            if inherited.contains(name) {
                writeln!(kept, "{}", line.replace("path = \"sdk/", "path = \""))?;
            }
        } else if section.starts_with("[workspace.") && line.contains(" = ") {
            writeln!(kept, "{line}")?;
        }
    }
    Ok(kept)
}

fn walk(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
        walk(&entry?.path(), files)?;
    }
    Ok(())
}

fn watch(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
}
