//! Builds plug-ins in languages other than Rust.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::contract::{self, Kind};
use crate::tools::{self, Tool};
use crate::{Built, Options, adapt, write_if_changed};

/// The language of a plug-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// A crate, built by cargo.
    Rust,
    /// Files in C, compiled by clang.
    C,
    /// A Go module.
    Go,
    /// A script, run by QuickJS inside of the plug-in.
    JavaScript,
}

const CLANG: Tool = Tool { program: "clang", version: &["--version"], least: (14, 0), install: C_INSTALL };
const LLD: Tool = Tool { program: "wasm-ld", version: &["--version"], least: (14, 0), install: C_INSTALL };
const C_INSTALL: &str = "apt-get install clang lld wasi-libc libclang-rt-dev-wasm32";
const GO: Tool = Tool { program: "go", version: &["version"], least: (1, 24), install: GO_INSTALL };
const GO_INSTALL: &str = "apt-get install golang-go    (or take 1.24 or newer from https://go.dev/dl)";
const NODE: Tool =
    Tool { program: "node", version: &["--version"], least: (18, 0), install: "apt-get install nodejs npm" };

/// The package of npm that makes components of scripts, and the version that is tested.
const QJS: &str = "componentize-qjs";
const QJS_VERSION: &str = "0.4.5";

/// What a plug-in's `package.json` needs.
const PACKAGE: &str = r#"it needs "name", "main" and "millstream": { "kind": "filter" }"#;

impl Language {
    /// Finds the language of the plug-in in a folder.
    ///
    /// # Errors
    /// There is no such folder, or it has no file by which a plug-in is known.
    pub fn of(dir: &Path) -> Result<Language> {
        if !dir.is_dir() {
            bail!("there is no folder {}: name the folder of a plug-in", dir.display());
        }
        let has = |name: &str| dir.join(name).is_file();
        if has("Cargo.toml") {
            Ok(Language::Rust)
        } else if has("go.mod") {
            Ok(Language::Go)
        } else if has("package.json") {
            Ok(Language::JavaScript)
        } else if !files(&dir.join("src"), "c").is_empty() {
            Ok(Language::C)
        } else {
            bail!(
                "{} has no plug-in: it has no Cargo.toml (Rust), go.mod (Go), package.json (JavaScript) or src/*.c (C)",
                dir.display()
            )
        }
    }
}

/// Builds the plug-in in `dir`, whose language is not Rust.
pub(crate) fn build(language: Language, dir: &Path, options: &Options) -> Result<Built> {
    let target = options.target_dir.clone().unwrap_or_else(|| dir.join("target"));
    let work = target.join("wasm");
    fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let project = Project { dir, work: &work.canonicalize()?, no_simd: options.no_simd, verbose: options.verbose };
    let (name, component) = match language {
        Language::C => project.c()?,
        Language::Go => project.go()?,
        Language::JavaScript => project.javascript()?,
        Language::Rust => bail!("cargo builds Rust"),
    };
    let ending = if options.no_simd { "no-simd.wasm" } else { "wasm" };
    let path = options.output.clone().unwrap_or_else(|| target.join("plugins").join(format!("{name}.{ending}")));
    write_if_changed(&path, &component)?;
    Ok(Built { package: name, component, path })
}

/// A folder with a plug-in.
struct Project<'a> {
    dir: &'a Path,
    /// A folder for what the build needs.
    work: &'a Path,
    no_simd: bool,
    verbose: bool,
}

impl Project<'_> {
    fn c(&self) -> Result<(String, Vec<u8>)> {
        CLANG.check()?;
        LLD.check()?;
        let has_libc =
            Command::new("clang").args(["--target=wasm32-wasi", "-print-file-name=crt1-reactor.o"]).output()?;
        // clang repeats the name of a file that it does not find.
        if has_libc.stdout.trim_ascii() == b"crt1-reactor.o" {
            bail!("the C library for WebAssembly is missing: install it by\n\n    {C_INSTALL}\n");
        }
        let sdk = tools::above(self.dir, "sdk/c/millstream.h").context(
            "there is no sdk/c/millstream.h in the folder or above it; `millstream plugin new --language c` copies it",
        )?;
        let sdk = sdk.join("sdk/c");
        let core = self.work.join("core.wasm");
        let mut clang = Command::new("clang");
        clang.args(["--target=wasm32-wasi", "-mexec-model=reactor", "-O3", "-mbulk-memory"]);
        clang.arg(if self.no_simd { "-mno-simd128" } else { "-msimd128" });
        // With the stack at the start of memory, one that overflows ends the call and does not reach other data.
        clang.args(["-Wall", "-Wextra", "-Wl,--strip-debug", "-Wl,--stack-first,-z,stack-size=131072"]);
        // No path of this machine.
        clang.arg(format!("-ffile-prefix-map={}=.", self.dir.canonicalize()?.display()));
        clang.arg("-I").arg(&sdk).arg("-o").arg(&core);
        clang.args(files(&self.dir.join("src"), "c")).args(files(&sdk, "c"));
        tools::compile(&format!("clang cannot build {}", self.dir.display()), &mut clang, self.verbose)?;
        let name = self.dir.canonicalize()?;
        let name = name.file_name().and_then(OsStr::to_str).unwrap_or("plugin");
        Ok((name.to_owned(), self.adapted(&core)?))
    }

    fn go(&self) -> Result<(String, Vec<u8>)> {
        GO.check()?;
        let core = self.work.join("core.wasm");
        let mut go = Command::new("go");
        go.args(["build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o"]);
        go.arg(&core).arg(".").current_dir(self.dir);
        go.env("GOOS", "wasip1").env("GOARCH", "wasm").env("GOWORK", "off").env_remove("GOFLAGS");
        tools::compile(&format!("go cannot build {}", self.dir.display()), &mut go, self.verbose)?;
        let text = fs::read_to_string(self.dir.join("go.mod"))?;
        let name = go_name(&text).context("go.mod names no module")?;
        Ok((name.to_owned(), self.adapted(&core)?))
    }

    fn adapted(&self, core: &Path) -> Result<Vec<u8>> {
        let module = fs::read(core).with_context(|| format!("cannot read {}", core.display()))?;
        adapt(&module).with_context(|| format!("{} is not a plug-in", self.dir.display()))
    }

    fn javascript(&self) -> Result<(String, Vec<u8>)> {
        if self.no_simd {
            bail!("a plug-in in JavaScript carries QuickJS as {QJS} has built it: leave --no-simd out");
        }
        NODE.check()?;
        let package = self.dir.join("package.json");
        let text = fs::read_to_string(&package).with_context(|| format!("cannot read {}", package.display()))?;
        let package: Package =
            serde_json::from_str(&text).with_context(|| format!("{} is not valid; {PACKAGE}", package.display()))?;
        let wanted = package.millstream.kind;
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == wanted);
        let kind = kind.with_context(|| {
            let kinds = Kind::ALL.map(Kind::name).join(", ");
            format!("package.json: millstream.kind is `{wanted}`, which is no kind: write one of {kinds}")
        })?;
        let tool = self.componentize_qjs()?;
        let wit = self.work.join("stage.wit");
        fs::write(&wit, contract::TEXT).with_context(|| format!("cannot write {}", wit.display()))?;
        let output = self.work.join("component.wasm");
        // Imports are found below one folder.
        let dir = self.dir.canonicalize()?;
        let root = tools::above(&dir, "sdk/js/millstream.js").unwrap_or_else(|| dir.clone());
        let mut node = Command::new("node");
        node.arg(tool).arg("--wit").arg(&wit).args(["--world", kind.name(), "--sync", "--stub-wasi"]);
        node.arg("--js").arg(dir.join(&package.main)).arg("--module-root").arg(root).arg("-o").arg(&output);
        let what = format!("{QJS} cannot build {}", self.dir.display());
        tools::compile(&what, &mut node, self.verbose)?;
        let component = fs::read(&output).with_context(|| format!("cannot read {}", output.display()))?;
        // A scope is no part of the name.
        let name = package.name.rsplit('/').next().unwrap_or("plugin");
        Ok((name.to_owned(), component))
    }

    /// Returns the script of the package that makes components.
    fn componentize_qjs(&self) -> Result<PathBuf> {
        #[derive(Deserialize)]
        struct Installed {
            version: String,
        }
        let install = format!("run, in {},\n\n    npm install --save-dev {QJS}@{QJS_VERSION}\n", self.dir.display());
        let path = format!("node_modules/{QJS}");
        let Some(folder) = tools::above(self.dir, &path) else {
            bail!("the package {QJS} is missing: {install}");
        };
        let folder = folder.join(path);
        let manifest = fs::read_to_string(folder.join("package.json")).ok();
        let Some(Installed { version: have }) = manifest.and_then(|text| serde_json::from_str(&text).ok()) else {
            bail!("the package {QJS} is not installed as a whole: {install}");
        };
        if tools::version(&have) != tools::version(QJS_VERSION) {
            bail!("{QJS} {have} is not the version that is needed, {QJS_VERSION}: {install}");
        }
        Ok(folder.join("cli.mjs"))
    }
}

/// What a build reads of a `package.json`.
#[derive(Deserialize)]
struct Package {
    name: String,
    main: String,
    millstream: Millstream,
}

#[derive(Deserialize)]
struct Millstream {
    kind: String,
}

/// Returns the name of the program that a Go module makes: the last part of its path that is no version, such as `v2`.
fn go_name(go_mod: &str) -> Option<&str> {
    let path = go_mod.lines().find_map(|line| line.strip_prefix("module "))?.trim().trim_matches('"');
    let is_version = |part: &str| {
        part.strip_prefix('v')
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    path.rsplit('/').find(|part| !is_version(part))
}

/// Returns the files of a folder with an ending, in the order of their names.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.extension() == Some(OsStr::new(ending))).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_is_that_of_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let error = Language::of(dir.path()).unwrap_err().to_string();
        assert!(error.contains("has no Cargo.toml (Rust), go.mod (Go)"), "{error}");
        let error = Language::of(&dir.path().join("nowhere")).unwrap_err().to_string();
        assert!(error.starts_with("there is no folder ") && error.contains("nowhere"), "{error}");
        fs::create_dir(dir.path().join("src")).unwrap();
        for (file, language) in [
            ("src/a.c", Language::C),
            ("package.json", Language::JavaScript),
            ("go.mod", Language::Go),
            ("Cargo.toml", Language::Rust),
        ] {
            fs::write(dir.path().join(file), "").unwrap();
            assert_eq!(Language::of(dir.path()).unwrap(), language);
        }
    }

    #[test]
    fn a_go_module_is_named_as_go_names_its_program() {
        for (path, expected) in [
            ("heavy", "heavy"),
            ("example.com/x/heavy", "heavy"),
            ("example.com/heavy/v2", "heavy"),
            ("\"very\"", "very"),
        ] {
            assert_eq!(go_name(&format!("// a comment\nmodule {path}\n\ngo 1.24\n")), Some(expected));
        }
        assert_eq!(go_name("go 1.24\n"), None);
    }

    #[test]
    fn a_package_without_what_a_build_needs_says_what_to_write() {
        let dir = tempfile::tempdir().unwrap();
        let project = Project { dir: dir.path(), work: dir.path(), no_simd: false, verbose: false };
        let refused = |text: &str| {
            fs::write(dir.path().join("package.json"), text).unwrap();
            format!("{:#}", project.javascript().unwrap_err())
        };
        let bare = refused(r#"{"name":"a","main":"src/plugin.js"}"#);
        assert!(bare.contains(r#"it needs "name", "main" and "millstream": { "kind": "filter" }"#), "{bare}");
        let other = refused(r#"{"name":"a","main":"src/plugin.js","millstream":{"kind":"mapper"}}"#);
        assert!(other.contains("write one of partitioner, serializer, compressor, filter"), "{other}");
    }

    #[test]
    fn a_script_without_its_tool_says_what_to_install() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("package.json"),
            r#"{"name":"a","main":"src/plugin.js","millstream":{"kind":"filter"}}"#,
        )
        .unwrap();
        let project = Project { dir: dir.path(), work: dir.path(), no_simd: false, verbose: false };
        let missing = project.componentize_qjs().unwrap_err().to_string();
        assert!(missing.contains("npm install --save-dev componentize-qjs@0.4.5"), "{missing}");
        let package = dir.path().join("node_modules/componentize-qjs");
        fs::create_dir_all(&package).unwrap();
        let broken = project.componentize_qjs().unwrap_err().to_string();
        assert!(broken.contains("not installed as a whole: run, in"), "{broken}");
        fs::write(package.join("package.json"), r#"{"version":"0.9.0"}"#).unwrap();
        let other = project.componentize_qjs().unwrap_err().to_string();
        assert!(other.contains("0.9.0 is not the version that is needed, 0.4.5"), "{other}");
        fs::write(package.join("package.json"), r#"{"version":"0.4.7"}"#).unwrap();
        assert!(project.componentize_qjs().unwrap().ends_with("componentize-qjs/cli.mjs"));
    }
}
