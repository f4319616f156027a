//! Builds the default plug-ins, every crate in a folder beside this file, into components.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use millstream_sdk_build::Options;

fn main() -> ExitCode {
    let Err(error) = embed() else { return ExitCode::SUCCESS };
    // Cargo shows the lines that are marked as errors, and not the rest of what a failed build script says.
    for line in format!("{error:#}").lines() {
        println!("cargo::error={line}");
    }
    ExitCode::FAILURE
}

/// Builds all by one run of cargo and writes `plugins.rs`: names and components.
fn embed() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = folder.parent().context("the plug-ins lie in the workspace")?;
    let out = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?);
    for path in ["Cargo.toml", "Cargo.lock", "sdk/rust/Cargo.toml", "sdk/rust/src", "sdk/wit"] {
        watch(&root.join(path));
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().into_string().ok().context("a plug-in's folder has an ASCII name")?;
        if folder.join(&name).join("Cargo.toml").is_file() {
            // Not its tests. A new plug-in is seen by Cargo.lock.
            watch(&folder.join(&name).join("Cargo.toml"));
            watch(&folder.join(&name).join("src"));
            names.push(name);
        }
    }
    names.sort();
    let packages: Vec<String> = names.iter().map(|name| format!("millstream-plugin-{name}")).collect();
    let options = Options { target_dir: Some(target_dir(&out)), ..Options::default() };
    let built = millstream_sdk_build::build_packages(root, &packages, &options)?;
    let mut list = String::from("&[\n");
    for (name, built) in names.iter().zip(&built) {
        // The folder of components is shared with other builds: a copy of our own, so that what is embedded is what was built.
        let copy = out.join(format!("{name}.wasm"));
        if fs::read(&copy).ok().as_ref() != Some(&built.component) {
            fs::write(&copy, &built.component)?;
        }
        writeln!(list, "    ({name:?}, include_bytes!({copy:?}) as &[u8]),")?;
    }
    list.push_str("]\n");
    Ok(fs::write(out.join("plugins.rs"), list)?)
}

/// The target folder of the outer cargo, whatever its profile is: a plug-in's profile is its own, and built once.
fn target_dir(out: &Path) -> PathBuf {
    let target = out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    target.unwrap_or(out).to_owned()
}

fn watch(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
}
