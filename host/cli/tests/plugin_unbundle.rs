//! Checks `millstream plugin unbundle`: the core module of a plug-in, and errors that say what to do.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// What a core module begins with, and a component does not.
const CORE: &[u8] = b"\0asm\x01\0\0\0";

fn unbundle(folder: &Path, plugin: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    command.args(["plugin", "unbundle", plugin, "-o", "new/core.wasm"]).current_dir(folder).output().unwrap()
}

#[test]
fn the_core_module_of_a_plugin_is_written() {
    let folder = TempDir::new().unwrap();
    let output = unbundle(folder.path(), "murmur2");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"new/core.wasm\n");
    let core = fs::read(folder.path().join("new/core.wasm")).unwrap();
    assert!(core.starts_with(CORE));
    // It is the one in the component, byte for byte.
    let component = millstream_plugins::find("murmur2").unwrap().component();
    assert!(component.windows(core.len()).any(|part| part == core));
}

#[test]
fn what_cannot_be_unbundled_is_named() {
    let folder = TempDir::new().unwrap();
    let written = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    written("core.wasm", CORE);
    written("text.wasm", b"text");
    for (plugin, message) in [
        ("core.wasm", "core.wasm: it is a core module already, not a component: use it as it is"),
        ("text.wasm", "text.wasm: it is not a component"),
        ("missing.wasm", "there is no file missing.wasm, nor a plug-in of this binary with that name"),
    ] {
        let output = unbundle(folder.path(), plugin);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(message), "{error}");
        assert!(!folder.path().join("new").exists(), "nothing is written");
    }
}
