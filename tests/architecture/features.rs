//! Checks that every selection of crates compiles wasmtime and what it uses with the same features. The demo and the
//! tests then share one build of it.

use std::collections::BTreeSet;
use std::process::Command;

/// The crates that `cargo xtask demo` builds.
const DEMO: [&str; 4] = ["millstream-cli", "earthquakes", "failover", "exactly-once"];

/// Returns a line for each registry package with its features, for a selection of crates.
fn packages(selection: &[&str], edges: &str) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut tree = Command::new(cargo);
    tree.args(["tree", "--locked", "--prefix", "none", "--no-dedupe", "--format", "{p} [{f}]", "--edges", edges]);
    let output = tree.args(selection).current_dir(super::root()).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).expect("cargo prints UTF-8");
    // Our own crates have a path.
    lines.lines().filter(|line| !line.is_empty() && !line.contains('/')).map(str::to_owned).collect()
}

#[test]
fn the_demo_and_the_tests_compile_the_same_packages() {
    let all = packages(&["--workspace"], "normal,build,dev");
    let selection: Vec<&str> = DEMO.iter().flat_map(|name| ["--package", *name]).collect();
    let of_wasmtime = packages(&["--package", "wasmtime"], "normal,build");
    let matters = |line: &String| of_wasmtime.iter().any(|used| name(used) == name(line));
    let other = packages(&selection, "normal,build").into_iter().filter(|line| matters(line) && !all.contains(line));
    let other: Vec<_> = other.collect();
    assert!(
        other.is_empty(),
        "the demo compiles these with other features than the tests, so wasmtime is compiled twice:\n{}\n\
         The tests have:\n{}\n\
         Add the missing features to the manifest of millstream-stage.",
        other.join("\n"),
        all.iter()
            .filter(|line| other.iter().any(|one| name(one) == name(line)))
            .cloned()
            .collect::<Vec<_>>()
            .join("\n")
    );
}

/// Returns the name and version of a line.
fn name(line: &str) -> &str {
    line.split(" [").next().unwrap_or(line)
}
