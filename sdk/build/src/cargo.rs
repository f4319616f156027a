//! Runs cargo to compile plug-ins.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{Options, TARGET};

/// A core module in the target folder of cargo.
#[derive(Debug)]
pub(crate) struct CoreModule {
    pub(crate) package: String,
    pub(crate) path: PathBuf,
    target_dir: PathBuf,
    no_simd: bool,
}

impl CoreModule {
    /// Returns `<target folder>/plugins/<name>.wasm`; the name is that of the crate without `millstream-plugin-`.
    pub(crate) fn default_output(&self) -> PathBuf {
        let name = self.package.strip_prefix("millstream-plugin-").unwrap_or(&self.package);
        let ending = if self.no_simd { "no-simd.wasm" } else { "wasm" };
        self.target_dir.join("plugins").join(format!("{name}.{ending}"))
    }
}

/// A workspace, and what its builds need to know of the toolchain.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) dir: PathBuf,
    manifest: PathBuf,
    target_dir: PathBuf,
    packages: Vec<Package>,
    no_simd: bool,
    /// The target of this machine, such as `x86_64-unknown-linux-gnu`.
    host: String,
}

impl Workspace {
    /// Opens the workspace or crate in `dir`, and checks the toolchain.
    pub(crate) fn open(dir: &Path, options: &Options) -> Result<Workspace> {
        let manifest = dir.join("Cargo.toml");
        if !manifest.is_file() {
            bail!("{} has no Cargo.toml: name the folder of a plug-in", dir.display());
        }
        let host = check_toolchain()?;
        let metadata = metadata(&manifest)?;
        let target_dir = options.target_dir.clone().unwrap_or(metadata.target_directory);
        let (packages, no_simd) = (metadata.packages, options.no_simd);
        Ok(Workspace { dir: dir.to_owned(), manifest, target_dir, packages, no_simd, host })
    }

    /// Compiles `packages` to core modules, or the crate in the folder if `packages` is empty.
    ///
    /// With `native` the same run of cargo compiles them for this machine too.
    pub(crate) fn compile(&self, packages: &[String], native: bool, verbose: bool) -> Result<Vec<CoreModule>> {
        let mut command = self.command("build")?;
        command.args(["--lib", "--target", TARGET, "--message-format=json-render-diagnostics"]);
        if native {
            command.args(["--target", &self.host]);
        }
        for package in packages {
            command.args(["--package", package]);
        }
        if !verbose {
            command.arg("--quiet");
        }
        command.stdin(Stdio::null()).stderr(if verbose { Stdio::inherit() } else { Stdio::piped() });
        let output = run(&mut command)?;
        if !output.status.success() {
            bail!("{}", failure(&format!("cargo cannot build {}", self.dir.display()), &output));
        }
        modules(&output.stdout, self)
    }

    /// Returns the command that runs the tests of the crate on this machine.
    pub(crate) fn native_tests(&self) -> Result<Command> {
        let mut command = self.command("test")?;
        command.args(["--target", &self.host]);
        Ok(command)
    }

    /// Returns a command of cargo with the profile and the flags of both targets, whatever the workspace says.
    ///
    /// Components and native tests have them in common. So one run of cargo compiles the packages and procedural
    /// macros of both.
    fn command(&self, subcommand: &str) -> Result<Command> {
        // A plug-in is small and runs often. The names of functions stay: the host shows them when a plug-in traps.
        const PROFILE: [(&str, &str); 13] = [
            ("OPT_LEVEL", "3"),
            ("CODEGEN_UNITS", "1"),
            ("DEBUG", "false"),
            ("DEBUG_ASSERTIONS", "false"),
            ("INCREMENTAL", "false"),
            // Not possible for a crate that is a `cdylib` and an `rlib`, and slow for tests.
            ("LTO", "false"),
            ("OVERFLOW_CHECKS", "false"),
            ("STRIP", "debuginfo"),
            ("BUILD_OVERRIDE_CODEGEN_UNITS", "1"),
            ("BUILD_OVERRIDE_DEBUG", "false"),
            ("BUILD_OVERRIDE_DEBUG_ASSERTIONS", "false"),
            ("BUILD_OVERRIDE_OPT_LEVEL", "0"),
            ("BUILD_OVERRIDE_OVERFLOW_CHECKS", "false"),
        ];
        let mut command = cargo();
        command.args([subcommand, "--release"]).arg("--manifest-path").arg(&self.manifest);
        let folder = if self.no_simd { "wasm-no-simd" } else { "wasm" };
        command.arg("--target-dir").arg(self.target_dir.join(folder));
        for (key, value) in PROFILE {
            command.env(format!("CARGO_PROFILE_RELEASE_{key}"), value);
        }
        for (target, flags) in [(TARGET, module_flags(self.no_simd)), (self.host.as_str(), native_flags())] {
            // An array of JSON is one of TOML.
            let flags = serde_json::to_string(&flags)?;
            command.arg("--config").arg(format!("target.{target}.rustflags={flags}"));
        }
        Ok(command)
    }
}

/// Returns the compiler's flags for native tests: as with `cargo test`, they are not optimised, and have overflow
/// checks and debug assertions.
fn native_flags() -> Vec<String> {
    ["-Copt-level=0", "-Cdebug-assertions=yes", "-Coverflow-checks=yes"].map(String::from).into()
}

/// Returns a cargo command without the variables that an outer cargo or clippy has set for its own run.
fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    for (key, _) in env::vars_os() {
        if key.to_str().is_some_and(is_of_outer_cargo) {
            command.env_remove(key);
        }
    }
    command
}

fn rustc() -> Command {
    Command::new(env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc")))
}

fn is_of_outer_cargo(key: &str) -> bool {
    const NAMES: [&str; 9] = [
        "RUSTFLAGS",
        "RUSTC_WORKSPACE_WRAPPER",
        "CLIPPY_ARGS",
        "CLIPPY_CONF_DIR",
        "TARGET",
        "HOST",
        "PROFILE",
        "OPT_LEVEL",
        "OUT_DIR",
    ];
    const PREFIXES: [&str; 9] = [
        "CARGO_BUILD_",
        "CARGO_CFG_",
        "CARGO_ENCODED_",
        "CARGO_FEATURE_",
        "CARGO_MANIFEST_",
        "CARGO_PKG_",
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
        "DEP_",
    ];
    // The target folder of the outer cargo is used here too.
    key != "CARGO_TARGET_DIR" && (NAMES.contains(&key) || PREFIXES.iter().any(|prefix| key.starts_with(prefix)))
}

/// Returns the compiler's flags for core modules.
///
/// A panic must be a trap. That is not in the profile, since `cargo test` would compile packages once more. Vector and
/// bulk-memory instructions make search and copies several times faster, and every engine has them, except that those
/// of the JVM have no vectors. The host's scan rejects other features, such as threads and relaxed SIMD. A call costs
/// more in the sandbox, which checks the stack and the clock at the start of a function. Twice LLVM's inline threshold
/// (250) makes code that reads JSON a tenth faster and some percent larger. Panics name their source file: cargo writes
/// paths of the workspace relative to it, and a flag here removes the home folder from paths of the registry. The crate
/// getrandom does not compile for a target without random numbers unless the plug-in brings its own, which the last
/// flag says.
fn module_flags(no_simd: bool) -> Vec<String> {
    let vectors = if no_simd { "-simd128" } else { "+simd128" };
    let mut flags: Vec<String> = vec![
        "-Cpanic=abort".into(),
        format!("-Ctarget-feature={vectors},+bulk-memory"),
        "-Cllvm-args=-inline-threshold=300".into(),
        "--cfg=getrandom_backend=\"custom\"".into(),
    ];
    if let Some(home) = cargo_home() {
        flags.push(format!("--remap-path-prefix={}=/cargo", home.display()));
    }
    flags
}

fn cargo_home() -> Option<PathBuf> {
    match env::var_os("CARGO_HOME") {
        Some(home) => Some(PathBuf::from(home)),
        None => env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")),
    }
}

/// Checks that the standard library for the target is installed, and returns the target of this machine.
///
/// Without this check cargo prints "can't find crate for `core`" once for every dependency.
fn check_toolchain() -> Result<String> {
    // One run for both, since each start of the compiler takes about 0.1 s.
    let output = run(rustc().args(["--print", "host-tuple", "--print", "target-libdir", "--target", TARGET]))?;
    if !output.status.success() {
        bail!("{}", failure("rustc does not run", &output));
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    let (host, libdir) = printed.trim().split_once('\n').context("rustc prints no target of this machine")?;
    let libdir = Path::new(libdir.trim());
    if !libdir.is_dir() {
        bail!(
            "the Rust target {TARGET} is not installed ({} is missing); run\n\n    rustup target add {TARGET}\n",
            libdir.display()
        );
    }
    Ok(host.trim().to_owned())
}

/// Runs a tool of the Rust toolchain and collects its output.
fn run(command: &mut Command) -> Result<Output> {
    let tool = command.get_program().display().to_string();
    command.output().with_context(|| match Path::new(&tool).parent() {
        // A bare name is looked up on the PATH.
        Some(folder) if folder.as_os_str().is_empty() => format!("cannot run {tool}: install Rust with rustup"),
        _ => format!("cannot run {tool}"),
    })
}

/// Returns an error text: what failed, how the tool ended where that is unusual, and its own words.
fn failure(problem: &str, output: &Output) -> String {
    let mut text = problem.to_owned();
    // A tool that fails exits with a code. A signal means that it was stopped, for example because the memory ran out.
    if output.status.code().is_none() {
        text.push_str(&format!(" ({})", output.status));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim_end();
    if !said.is_empty() {
        text.push('\n');
        text.push_str(said);
    }
    text
}

/// The part of `cargo metadata` that is read here.
#[derive(Debug, Deserialize)]
struct Metadata {
    target_directory: PathBuf,
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
}

fn metadata(manifest: &Path) -> Result<Metadata> {
    let mut command = cargo();
    command.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]).arg(manifest);
    let output = run(&mut command)?;
    if !output.status.success() {
        bail!("{}", failure(&format!("cargo cannot read {}", manifest.display()), &output));
    }
    serde_json::from_slice(&output.stdout).context("cannot read the output of cargo metadata")
}

/// One line of cargo's `--message-format=json`.
#[derive(Debug, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Message {
    CompilerArtifact {
        manifest_path: PathBuf,
        target: Target,
        filenames: Vec<PathBuf>,
    },
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
struct Target {
    crate_types: Vec<String>,
}

/// Returns the core modules among the artifacts that cargo reports.
fn modules(messages: &[u8], workspace: &Workspace) -> Result<Vec<CoreModule>> {
    let mut modules = Vec::new();
    for line in messages.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{")) {
        let message = serde_json::from_slice(line).context("cannot read cargo's messages")?;
        let Message::CompilerArtifact { manifest_path, target, filenames } = message else {
            continue;
        };
        if !target.crate_types.iter().any(|kind| kind == "cdylib") {
            continue;
        }
        let Some(path) = filenames.into_iter().find(|path| path.extension().is_some_and(|e| e == "wasm")) else {
            continue;
        };
        // By manifest: the form of cargo's package ids has changed over its versions.
        if let Some(package) = workspace.packages.iter().find(|package| package.manifest_path == manifest_path) {
            modules.push(CoreModule {
                package: package.name.clone(),
                path,
                target_dir: workspace.target_dir.clone(),
                no_simd: workspace.no_simd,
            });
        }
    }
    Ok(modules)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(no_simd: bool) -> Workspace {
        Workspace {
            dir: "/src/my-filter".into(),
            manifest: "/src/my-filter/Cargo.toml".into(),
            target_dir: "/t".into(),
            packages: vec![Package { name: "my-filter".into(), manifest_path: "/src/my-filter/Cargo.toml".into() }],
            no_simd,
            host: "x86_64-unknown-linux-gnu".into(),
        }
    }

    #[test]
    fn a_plugin_is_found_among_the_messages_of_cargo() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","manifest_path":"/cargo/serde/Cargo.toml","#,
            r#""target":{"crate_types":["lib"]},"filenames":["/t/libserde.rlib"]}"#,
            "\n",
            r#"{"reason":"build-script-executed","package_id":"x"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","manifest_path":"/src/my-filter/Cargo.toml","#,
            r#""target":{"crate_types":["cdylib","rlib"]},"#,
            r#""filenames":["/t/wasm32-unknown-unknown/release/my_filter.wasm","/t/libmy_filter.rlib"]}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
            "\n",
        );
        let found = modules(messages.as_bytes(), &workspace(false)).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].package, "my-filter");
        assert_eq!(found[0].default_output(), Path::new("/t/plugins/my-filter.wasm"));
        let found = modules(messages.as_bytes(), &workspace(true)).unwrap();
        assert_eq!(found[0].default_output(), Path::new("/t/plugins/my-filter.no-simd.wasm"));
    }

    #[test]
    fn variables_of_an_outer_cargo_are_not_inherited() {
        for key in
            ["RUSTC_WORKSPACE_WRAPPER", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_PROFILE_RELEASE_LTO"]
        {
            assert!(is_of_outer_cargo(key), "{key}");
        }
        for key in [
            "CARGO",
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "CARGO_TARGET_DIR",
            "RUSTUP_TOOLCHAIN",
            "PATH",
            "CARGO_MAKEFLAGS",
        ] {
            assert!(!is_of_outer_cargo(key), "{key}");
        }
    }

    #[test]
    fn the_error_contains_what_the_compiler_printed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("src")).unwrap();
        std::fs::write(
            dir.path().join("Cargo.toml"),
            "[package]\nname = \"broken\"\nversion = \"1.0.0\"\nedition = \"2024\"\n\
             [lib]\ncrate-type = [\"cdylib\"]\n[workspace]\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("src/lib.rs"), "pub fn keep() -> bool { 7 }\n").unwrap();
        let workspace = Workspace::open(dir.path(), &Options::default()).unwrap();
        let error = workspace.compile(&[], false, false).unwrap_err().to_string();
        assert!(error.contains("mismatched types") && error.contains("src/lib.rs"), "{error}");
    }
}
