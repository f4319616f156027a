//! Builds the filter that the broker's rows are measured with.

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use millstream_sdk_build::{Options, build};

fn main() -> ExitCode {
    let Err(error) = keyed() else { return ExitCode::SUCCESS };
    for line in format!("{error:#}").lines() {
        println!("cargo::error={line}");
    }
    ExitCode::FAILURE
}

fn keyed() -> Result<()> {
    let folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("cargo sets it")?);
    for path in ["keyed/Cargo.toml", "keyed/src", "../../Cargo.lock", "../../sdk/rust/src", "../../sdk/wit"] {
        println!("cargo::rerun-if-changed={}", folder.join(path).display());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets it")?);
    let target = out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file()).unwrap_or(&out);
    let options = Options {
        target_dir: Some(Path::to_owned(target)),
        output: Some(out.join("keyed.wasm")),
        ..Options::default()
    };
    build(&folder.join("keyed"), &options)?;
    Ok(())
}
