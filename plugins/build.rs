//! Builds the default plug-ins into components: every crate in a folder beside this file.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use millstream_sdk_build::Options;

/// In the manifest of a plug-in whose calls need a deadline.
const DEADLINE: &str = "[package.metadata.millstream]\ndeadline = true\n";

/// The level of zstd. Higher ones take much longer in a build script, which is not optimised.
const LEVEL: i32 = 9;

fn main() -> ExitCode {
    let Err(error) = embed() else { return ExitCode::SUCCESS };
    // Cargo shows only lines that are marked as errors of a build script.
    for line in format!("{error:#}").lines() {
        println!("cargo::error={line}");
    }
    ExitCode::FAILURE
}

/// Builds all plug-ins by one run of cargo, and writes their names and components to `plugins.rs`.
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
            // Its tests do not matter. A new plug-in changes Cargo.lock.
            watch(&folder.join(&name).join("Cargo.toml"));
            watch(&folder.join(&name).join("src"));
            names.push(name);
        }
    }
    names.sort();
    let packages: Vec<String> = names.iter().map(|name| format!("millstream-plugin-{name}")).collect();
    let options = Options { target_dir: Some(target_dir(&out)), ..Options::default() };
    let built = millstream_sdk_build::build_packages(root, &packages, &options)?;
    let mut list = String::from("[\n");
    for (name, built) in names.iter().zip(&built) {
        let copy = packed(&out, name, &built.component)?;
        let needs_deadline = fs::read_to_string(folder.join(name).join("Cargo.toml"))?.contains(DEADLINE);
        let size = built.component.len();
        writeln!(
            list,
            "Plugin {{ name: {name:?}, needs_deadline: {needs_deadline}, packed: include_bytes!({copy:?}), \
             size: {size}, component: OnceLock::new() }},"
        )?;
    }
    list.push_str("]\n");
    fs::write(out.join("count.rs"), names.len().to_string())?;
    Ok(fs::write(out.join("plugins.rs"), list)?)
}

/// Compresses a component into a file of this build, and returns its path. What is compressed already stays.
fn packed(out: &Path, name: &str, component: &[u8]) -> Result<PathBuf> {
    let (plain, packed) = (out.join(format!("{name}.wasm")), out.join(format!("{name}.wasm.zst")));
    if !packed.is_file() || fs::read(&plain).ok().as_deref() != Some(component) {
        fs::write(&packed, zstd::bulk::compress(component, LEVEL)?)?;
        fs::write(&plain, component)?;
    }
    Ok(packed)
}

/// Returns the target folder of the outer cargo. All its profiles share one build of the plug-ins.
fn target_dir(out: &Path) -> PathBuf {
    let target = out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    target.unwrap_or(out).to_owned()
}

fn watch(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
}
