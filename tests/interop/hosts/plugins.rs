//! Makes the plug-ins of the tests in other hosts: default ones as components, as core modules and without vectors, and
//! guests that misbehave.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use millstream_tests::{Tool, millstream};

#[path = "../../fixtures/guests/mod.rs"]
#[allow(dead_code, reason = "shared with the tests of the sandbox, which use all of it")]
mod guests;

use guests::{Guest, HEADERS, IMPORT_LOG, KEYS, TIMESTAMPS, VALUES};

/// The default plug-ins that the tests use.
const DEFAULTS: [&str; 2] = ["contains", "murmur2"];

/// Plug-ins that link a standard library with WASI: the folder of each in `examples/languages`, its name, and the
/// variable that says that its compiler is there.
const LANGUAGES: [(&str, &str, &str); 2] =
    [("c", "contains-c", "MILLSTREAM_CLANG"), ("go", "contains-go", "MILLSTREAM_GO")];

/// Returns the folder with `NAME.wasm`, `NAME.core.wasm` and, but for guests, `NAME.no-simd.core.wasm`. It stays in the
/// target folder, so that the tests of a package can be run by hand.
pub(crate) fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hosts");
        fs::create_dir_all(&folder).expect("a folder in the target folder");
        for name in DEFAULTS {
            let component = millstream_plugins::find(name).expect("a default plug-in").component();
            write(&folder, &format!("{name}.wasm"), component);
            unbundle(name, &folder.join(format!("{name}.core.wasm")));
            let component = folder.join(format!("{name}.no-simd.wasm"));
            build(&Path::new("plugins").join(name), &component, &["--no-simd"]);
            unbundle(path(&component), &folder.join(format!("{name}.no-simd.core.wasm")));
        }
        for (language, name, _) in LANGUAGES.into_iter().filter(|(_, _, variable)| env::var_os(variable).is_some()) {
            for (file, options) in [(name.to_owned(), &[][..]), (format!("{name}.no-simd"), &["--no-simd"])] {
                let component = folder.join(format!("{file}.wasm"));
                build(&Path::new("examples/languages").join(language), &component, options);
                unbundle(path(&component), &folder.join(format!("{file}.core.wasm")));
            }
        }
        for (name, guest) in guests() {
            let component = write(&folder, &format!("{name}.wasm"), &guest.build());
            unbundle(path(&component), &folder.join(format!("{name}.core.wasm")));
        }
        folder
    })
}

/// Writes the core module of a plug-in by the command.
fn unbundle(plugin: &str, output: &Path) {
    Tool::new(millstream()).args(["plugin", "unbundle", plugin, "-o", path(output)]).succeed();
}

/// Builds a plug-in of this workspace by the command. Cargo compiles the dependencies of crates once for all.
fn build(folder: &Path, output: &Path, options: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie in the workspace");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo's own folder in the target folder");
    Tool::new(millstream())
        .args(["plugin", "build", path(&root.join(folder)), "-o", path(output)])
        .args(options)
        .env("CARGO_TARGET_DIR", target)
        .limit(Duration::from_secs(300))
        .succeed();
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let file = folder.join(name);
    fs::write(&file, bytes).expect("a file in the target folder");
    file
}

fn path(path: &Path) -> &str {
    path.to_str().expect("paths of the target folder are UTF-8")
}

/// Code that logs the guest's text as an error.
const LOG: &str = "(call $log (i32.const 0) (i32.const 192) (i32.const 13))";

/// Returns code that runs if the value of the first row begins with an x.
fn if_x(code: &str) -> String {
    format!(
        "(if (call $begins_with_x (i32.load offset=52 (local.get $p)) (i32.const 0)
             (i32.load (i32.load offset=60 (local.get $p)))) (then {code}))"
    )
}

fn guests() -> Vec<(&'static str, Guest)> {
    let bad_batch = "(i32.store8 (i32.const 2048) (i32.const 1)) (i32.store8 (i32.const 2052) (i32.const 1))
        (i32.store (i32.const 2056) (i32.const 192)) (i32.store (i32.const 2060) (i32.const 20))
        (return (i32.const 2048))";
    // It fails in another way if its memory says that it has trapped before.
    let traps = if_x(&format!("(i32.store (i32.const 3000) (i32.const 1)) {LOG} {LOG} unreachable"));
    let traps = format!("(if (i32.load (i32.const 3000)) (then {bad_batch})) {traps}");
    let grows = "(if (i32.eq (i32.const -1) (memory.grow (i32.const 500))) (then unreachable))";
    vec![
        ("bad-rows", Guest::filter().text("this row is poison").naming_bad_rows()),
        ("no-such-row", no_such_row()),
        ("bad-batch", Guest::filter().text("this batch is poison").hook_with_rows("filter", bad_batch)),
        ("traps", Guest::filter().text("my last words, unheeded").import(IMPORT_LOG).hook_with_rows("filter", &traps)),
        ("loops", Guest::filter().hook_with_rows("filter", &if_x("(loop $forever (br $forever))"))),
        ("grows", Guest::filter().hook_with_rows("filter", grows)),
        ("wrong-size", Guest::filter().hook("filtered", "(i32.store (i32.const 2056) (i32.const 99))")),
        ("beyond", Guest::filter().hook("filtered", "(i32.store (i32.const 2052) (i32.const -16))")),
        ("wrong-realloc", Guest::filter().hook("realloc", &realloc_beyond())),
        ("no-such-partition", no_such_partition()),
        ("columns", Guest::filter().columns(TIMESTAMPS | KEYS | VALUES | HEADERS).hook_with_rows("filter", &columns())),
    ]
}

/// Returns code that names an address beyond the end of memory, but not for the few bytes of a configuration.
fn realloc_beyond() -> String {
    "(if (i32.ge_u (local.get $size) (i32.const 100)) (then (return (i32.const 0x7fffff00))))".to_owned()
}

/// Returns a filter that reports an error for row 7 of fewer.
fn no_such_row() -> Guest {
    let answer = "(i32.store8 (i32.const 2048) (i32.const 1)) (i32.store8 (i32.const 2052) (i32.const 0))
        (i32.store (i32.const 2056) (i32.const 3000)) (i32.store (i32.const 2060) (i32.const 1))
        (i32.store (i32.const 3000) (i32.const 7)) (return (i32.const 2048))";
    Guest::filter().hook_with_rows("filter", answer)
}

fn no_such_partition() -> Guest {
    let wrong = "(if (local.get $rows) (then (i32.store (local.get $out) (i32.const 99))))";
    Guest::partitioner().columns(KEYS).hook("partitioned", wrong)
}

/// Returns code that traps unless the batch is that of the tests, byte for byte: two rows with the keys null and `k`,
/// the values `v` and null, the timestamps 1700000000123 and -1, and the headers `n` = `1`, `m` = null of the first.
fn columns() -> String {
    // The fields by their offset in the parameters: the words, and what the first words and bytes of lists are.
    let words = [(8, 2), (16, 2), (20, 1), (28, 1), (36, 2), (44, 1), (48, 1), (56, 1), (64, 2), (72, 1)];
    let headers = [(76, 1), (84, 2), (92, 2), (100, 2), (108, 0), (116, 1), (124, 2), (132, 1)];
    let lists = [(32, 0, 0), (32, 4, 1), (60, 0, 1), (60, 4, 1), (80, 0, 2), (80, 4, 2)];
    let header_lists = [(96, 0, 1), (96, 4, 2), (120, 0, 1), (120, 4, 1)];
    let bytes = [(24, 0, b'k'), (40, 0, 1), (52, 0, b'v'), (68, 0, 2)];
    let header_bytes = [(88, 0, b'n'), (88, 1, b'm'), (112, 0, b'1'), (128, 0, 2)];
    let mut code = String::new();
    let mut check =
        |found: String, wanted: String| code += &format!("(if (i32.ne {found} {wanted}) (then unreachable))\n");
    for (offset, wanted) in words.into_iter().chain(headers) {
        // An option's first byte is its case; the other three may hold anything.
        let load = if [20, 48, 76].contains(&offset) { "i32.load8_u" } else { "i32.load" };
        check(format!("({load} offset={offset} (local.get $p))"), format!("(i32.const {wanted})"));
    }
    for (offset, at, wanted) in lists.into_iter().chain(header_lists) {
        check(
            format!("(i32.load offset={at} (i32.load offset={offset} (local.get $p)))"),
            format!("(i32.const {wanted})"),
        );
    }
    for (offset, at, wanted) in bytes.into_iter().chain(header_bytes) {
        check(
            format!("(i32.load8_u offset={at} (i32.load offset={offset} (local.get $p)))"),
            format!("(i32.const {wanted})"),
        );
    }
    for (at, wanted) in [(0, 1_700_000_000_123_i64), (8, -1)] {
        let found = format!("(i64.load offset={at} (i32.load offset=12 (local.get $p)))");
        code += &format!("(if (i64.ne {found} (i64.const {wanted})) (then unreachable))\n");
    }
    code
}
