//! Checks the promises of docs/architecture.md: which crate may use which, that its links lead to files, and that the
//! published plug-in contract does not change.

mod features;
mod modules;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use millstream_stage::Digest;
use serde_json::Value;

/// The allowed dependencies between our crates. Tests, examples and xtask may use anything.
const ARROWS: [(&str, &[&str]); 16] = [
    ("millstream-record", &[]),
    ("millstream-wire", &["millstream-wire-derive"]),
    ("millstream-wire-derive", &[]),
    ("millstream-log", &["millstream-record"]),
    ("millstream-partition", &["millstream-log", "millstream-record"]),
    ("millstream-coordinator", &["millstream-partition", "millstream-record", "millstream-wire"]),
    ("millstream-metadata", &["millstream-log", "millstream-record"]),
    ("millstream-quorum", &[]),
    ("millstream-stage", &[]),
    ("millstream-registry", &["millstream-stage"]),
    ("millstream-client", &["millstream-record", "millstream-registry", "millstream-stage", "millstream-wire"]),
    (
        "millstream-broker",
        &[
            "millstream-coordinator",
            "millstream-log",
            "millstream-metadata",
            "millstream-partition",
            "millstream-quorum",
            "millstream-record",
            "millstream-registry",
            "millstream-stage",
            "millstream-wire",
        ],
    ),
    (
        "millstream-cli",
        &[
            "millstream-broker",
            "millstream-client",
            "millstream-plugins",
            "millstream-registry",
            "millstream-sdk-build",
            "millstream-stage",
        ],
    ),
    ("millstream-plugins", &["millstream-sdk-build"]),
    ("millstream-sdk", &[]),
    ("millstream-sdk-build", &[]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie in the workspace").to_owned()
}

fn packages() -> Vec<Value> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version=1", "--no-deps"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    metadata["packages"].as_array().expect("a list of packages").clone()
}

/// Returns the names of the packages that a package needs to be built. Dependencies of its tests do not count.
fn needs(package: &Value) -> BTreeSet<&str> {
    let dependencies = package["dependencies"].as_array().expect("a list of dependencies");
    dependencies.iter().filter(|one| one["kind"] != "dev").filter_map(|one| one["name"].as_str()).collect()
}

#[test]
fn crates_use_what_the_architecture_allows() {
    let mut seen = BTreeSet::new();
    let packages = packages();
    for package in &packages {
        let name = package["name"].as_str().expect("a name");
        let ours: BTreeSet<&str> = needs(package).into_iter().filter(|need| need.starts_with("millstream-")).collect();
        let manifest = package["manifest_path"].as_str().expect("a path");
        if let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == name) {
            seen.insert(name);
            let wrong: Vec<_> = ours.iter().filter(|need| !allowed.contains(need)).collect();
            assert!(wrong.is_empty(), "{name} may not use {wrong:?}");
        } else if manifest.contains("/plugins/") {
            assert!(ours.iter().all(|need| *need == "millstream-sdk"), "{name}: a plug-in uses the SDK only: {ours:?}");
        }
    }
    assert_eq!(seen.len(), ARROWS.len(), "the list of arrows names a crate that is gone");
}

#[test]
fn only_the_sandbox_names_wasmtime() {
    for package in &packages() {
        let name = package["name"].as_str().expect("a name");
        assert!(name == "millstream-stage" || !needs(package).contains("wasmtime"), "{name}");
    }
}

/// Links in the README and the docs lead to files, and so do file names in backticks that end in `.rs`.
#[test]
fn the_maps_lead_somewhere() {
    let mut pages = vec![root().join("README.md")];
    pages.extend(fs::read_dir(root().join("docs")).expect("docs").map(|entry| entry.expect("an entry").path()));
    for page in pages.iter().filter(|page| page.extension().is_some_and(|kind| kind == "md")) {
        let text = fs::read_to_string(page).expect("a page");
        let folder = page.parent().expect("a folder");
        for target in links(&text) {
            assert!(folder.join(target).exists(), "{}: {target} leads nowhere", page.display());
        }
        for file in text
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|code| code.ends_with(".rs") && code.contains('/') && !code.starts_with("src/"))
        {
            assert!(root().join(file).exists(), "{}: {file} is gone", page.display());
        }
    }
}

/// Returns the targets of Markdown links into this repository.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|target| !target.contains("://"))
        .filter_map(|target| target.split('#').next())
        .filter(|target| !target.is_empty())
}

/// The digest of contract 1.0.0 without its comments. Published plug-ins were built for it: a change belongs in a new
/// folder beside it, with the next version.
const CONTRACT_1_0_0: &str = "1399674f3816bd77796a8eb8a657de31201c75ef3561adadf89fbe6487af97e4";

#[test]
fn the_contract_is_frozen() {
    let text = fs::read_to_string(root().join("sdk/wit/1.0.0/stage.wit")).expect("the contract");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    let digest = Digest::of(lines.collect::<Vec<_>>().join("\n").as_bytes());
    assert_eq!(digest.to_string(), CONTRACT_1_0_0, "1.0.0 is frozen: a change of it is a new version");
}
