//! Checks that the folders of `millstream plugin new` build, pass their own test and conform to the contract. The test
//! runs the binary in folders outside the workspace. They stay in the target folder, so that a second run builds only
//! the plug-ins.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use wit_parser::Resolve;

fn millstream(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    command.args(arguments).current_dir(folder).env("CARGO_TARGET_DIR", target());
    // The cargo of this test has set these for its own builds.
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"] {
        command.env_remove(variable);
    }
    command.output().unwrap()
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    stdout.into_owned()
}

#[track_caller]
fn failed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Returns the shared target folder.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin-new-target")
}

/// Returns an empty folder, always the same one: cargo would build again in another folder.
fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin-new");
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Checks a component against the world of its kind, as `wasm-tools component targets` does.
fn conforms(component: &Path, kind: &str) {
    let mut resolve = Resolve::default();
    let contract = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/wit/1.0.0");
    let (contract, _) = resolve.push_path(contract).unwrap();
    let world = resolve.select_world(&[contract], Some(kind)).unwrap();
    wit_component::targets(&resolve, world, &fs::read(component).unwrap()).unwrap();
}

#[test]
fn every_kind_builds_and_passes_its_own_test_at_once() {
    let folder = folder();
    for kind in ["filter", "partitioner", "serializer", "compressor"] {
        let name = format!("my-{kind}");
        let said = succeeded(&millstream(&folder, &["plugin", "new", &name, "--kind", kind]));
        assert!(said.contains(&format!("created the {kind} {name}")) && said.contains(&format!("cd {name}")), "{said}");

        let passed = succeeded(&millstream(&folder, &["plugin", "test", &name]));
        assert!(passed.contains("test result: ok. 1 passed"), "{passed}");

        let built = succeeded(&millstream(&folder, &["plugin", "build", &name]));
        let component = PathBuf::from(built.trim_end());
        assert!(component.ends_with(format!("plugins/{name}.wasm")), "{built}");
        let again = fs::read(&component).unwrap();
        fs::remove_file(&component).unwrap();
        succeeded(&millstream(&folder, &["plugin", "build", &name]));
        assert!(fs::read(&component).unwrap() == again, "the same source is the same component");

        let inspected = succeeded(&millstream(&folder, &["plugin", "inspect", "--json", built.trim_end()]));
        let facts: Value = serde_json::from_str(&inspected).unwrap();
        assert_eq!((&facts["name"], &facts["kind"], &facts["version"]), (&name.into(), &kind.into(), &"0.1.0".into()));
        assert_eq!(facts["size_bytes"], again.len());
        conforms(&component, kind);
        let imports = facts["imports"].as_array().unwrap();
        assert!(imports.iter().all(|import| import.as_str().unwrap().starts_with("millstream:stage/")), "{imports:?}");
    }

    let error = failed(&millstream(&folder, &["plugin", "new", "my-filter", "--kind", "filter"]));
    assert!(error.contains("error: my-filter already exists"), "{error}");

    // If a plug-in does not compile, the error contains the compiler's message.
    let source = folder.join("my-filter/src/lib.rs");
    let broken = fs::read_to_string(&source).unwrap().replace("Result<bool>", "Result<u8>");
    fs::write(&source, broken).unwrap();
    let error = failed(&millstream(&folder, &["plugin", "build", "my-filter"]));
    assert!(error.contains("src/lib.rs") && error.contains("error: cargo cannot build my-filter"), "{error}");
    let error = failed(&millstream(&folder, &["plugin", "test", "my-filter"]));
    assert!(error.contains("error: cargo cannot build my-filter"), "{error}");

    // The other kind of failure: the code compiles, but a vector is wrong.
    let vectors = folder.join("my-partitioner/tests/vectors.jsonl");
    let wrong = fs::read_to_string(&vectors).unwrap().replace("[1,1,2]", "[1,1,3]");
    fs::write(&vectors, wrong).unwrap();
    let failure = millstream(&folder, &["plugin", "test", "my-partitioner"]);
    let said = String::from_utf8_lossy(&failure.stdout).into_owned() + &failed(&failure);
    assert!(
        said.contains("not the expected result") && said.contains("error: the tests of my-partitioner failed"),
        "{said}"
    );
}
