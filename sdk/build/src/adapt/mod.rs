//! Makes a component of a core module, whatever language it was written in.
//!
//! A module of the contract needs no more than the wrapping. One that was linked to a standard library with WASI gets
//! the inert [`preview1`] module linked into it, so that it imports nothing but the contract.

mod link;
mod preview1;
mod segments;

use anyhow::{Context, Result, anyhow, bail};
use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

use crate::contract::{self, Kind};

/// The module that WASI preview 1 is imported from.
pub(crate) const PREVIEW1: &str = "wasi_snapshot_preview1";

/// What a core module imports and exports.
#[derive(Debug, Default)]
struct Outline {
    /// Module and name of each import.
    imports: Vec<(String, String)>,
    exports: Vec<String>,
    /// Whether a custom section names the world that it was built for.
    has_world: bool,
    /// The lowest address of the data that it begins with.
    data_start: Option<u32>,
}

/// Makes a component of a core module.
///
/// The module either has the section that names its world, or exports the functions of one kind of stage. Imports of
/// WASI preview 1 become functions of an inert module of our own, which is linked into it; neighbouring data segments
/// become one.
///
/// # Errors
/// `module` is not a core module, fits no world of the contract, or imports what no plug-in gets. The error says what
/// to change.
pub fn adapt(module: &[u8]) -> Result<Vec<u8>> {
    if Parser::is_component(module) {
        bail!("it is a component already: push it as it is");
    }
    let outline = outline(module).context("it is not a core WebAssembly module that can be read")?;
    outline.check_imports()?;
    let mut module = segments::merge(module)?;
    if outline.imports.iter().any(|(from, _)| from == PREVIEW1) {
        outline.check_line_buffer()?;
        module = link::link(&module)?;
    }
    if !outline.has_world {
        let kind = outline.kind()?;
        let (resolve, world) = contract::world(kind)?;
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    }
    ComponentEncoder::default().validate(true).module(&module).and_then(|mut encoder| encoder.encode()).map_err(unfit)
}

fn unfit(error: anyhow::Error) -> anyhow::Error {
    error.context("the module does not fit the contract")
}

/// Reads what a core module imports and exports.
fn outline(module: &[u8]) -> Result<Outline> {
    let mut outline = Outline::default();
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    outline.imports.push((import.module.to_owned(), import.name.to_owned()));
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    outline.exports.push(export?.name.to_owned());
                }
            }
            Payload::CustomSection(section) => outline.has_world |= section.name().starts_with("component-type"),
            Payload::DataSection(section) => {
                for segment in section {
                    let start = segments::start(&segment?);
                    outline.data_start = outline.data_start.into_iter().chain(start).min();
                }
            }
            _ => {}
        }
    }
    Ok(outline)
}

impl Outline {
    /// Returns the kind of stage whose functions it exports.
    fn kind(&self) -> Result<Kind> {
        let has = |name: &&str| self.exports.iter().any(|export| export == name);
        let found: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| kind.calls().iter().any(&has)).collect();
        match found[..] {
            [kind] => Ok(kind),
            [] => Err(anyhow!(
                "it exports no stage: write MILLSTREAM_FILTER(...) in C or filter.Register in Go, or one of another \
                 kind; without an SDK export `filter`, `describe` and `configure`"
            )),
            _ => Err(anyhow!("it exports several stages: a plug-in has one kind")),
        }
    }

    /// Checks that it imports only the contract and preview 1.
    fn check_imports(&self) -> Result<()> {
        let Some((from, name)) = self.imports.iter().find(|(from, _)| !is_known(from)) else {
            return Ok(());
        };
        let advice = match (from.as_str(), name.as_str()) {
            ("env", "abort") => "compile with `--use abort=` (AssemblyScript)",
            ("env", "memory") => "let the module define its memory, and export it as `memory`",
            ("env", _) => "link the library that defines it, or remove the call",
            ("gojs" | "go", _) => "compile with GOOS=wasip1",
            ("wasi_unstable", _) => "compile for the newer `wasi_snapshot_preview1`",
            _ => "remove the call",
        };
        bail!("it imports `{from}.{name}`, which no plug-in gets: {advice}")
    }

    /// Checks that the first KiB of memory is free, where the inert module keeps the line that is being printed.
    fn check_line_buffer(&self) -> Result<()> {
        match self.data_start.filter(|start| *start < preview1::RESERVED_BYTES) {
            Some(start) => bail!(
                "its data begins at address {start}, and the first {} bytes must be free for what it prints: \
                 link with --global-base={0}",
                preview1::RESERVED_BYTES
            ),
            None => Ok(()),
        }
    }
}

fn is_known(from: &str) -> bool {
    from == PREVIEW1 || from == "$root" || from.starts_with("millstream:stage/") || from.starts_with("[export]")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a module with the functions of a filter, after other text.
    fn filter(text: &str) -> Vec<u8> {
        let module = format!(
            r#"(module
                {text}
                (memory (export "memory") 1)
                (func (export "describe") (result i32) (i32.const 2048))
                (func (export "configure") (param i32 i32) (result i32) (i32.const 2048))
                (func (export "filter") (param i32) (result i32) (i32.const 2048))
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
            )"#
        );
        wat::parse_str(module).unwrap()
    }

    /// Returns the names of what a component imports.
    fn imports(component: &[u8]) -> Vec<String> {
        let mut names = Vec::new();
        let mut depth = 0;
        for payload in Parser::new(0).parse_all(component) {
            match payload.unwrap() {
                Payload::Version { .. } => depth += 1,
                Payload::End(_) => depth -= 1,
                Payload::ComponentImportSection(section) if depth == 1 => {
                    let all = section.into_iter().map(|import| import.unwrap().name.name.to_owned());
                    // A world also imports the names of its own types.
                    names.extend(all.filter(|name| name.contains(':')));
                }
                _ => {}
            }
        }
        names
    }

    #[track_caller]
    fn refused(module: &[u8]) -> String {
        format!("{:#}", adapt(module).unwrap_err())
    }

    #[test]
    fn a_module_without_imports_becomes_a_component_of_its_kind() {
        let component = adapt(&filter("")).unwrap();
        assert!(Parser::is_component(&component));
        assert!(imports(&component).iter().all(|name| name.starts_with("millstream:stage/")));
        assert!(refused(&component).contains("a component already"));
    }

    #[test]
    fn imports_of_preview_1_do_not_reach_the_component() {
        let text = r#"
            (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "path_open"
                (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))"#;
        let component = adapt(&filter(text)).unwrap();
        let imports = imports(&component);
        assert!(imports.contains(&"millstream:stage/host@1.0.0".to_owned()), "{imports:?}");
        assert!(imports.iter().all(|name| name.starts_with("millstream:stage/")), "{imports:?}");
    }

    #[test]
    fn what_no_plug_in_gets_is_named_with_what_to_do() {
        for (import, expected) in [
            (r#""env" "abort" (func (param i32 i32 i32 i32))"#, "--use abort="),
            (r#""env" "puts" (func (param i32))"#, "imports `env.puts`"),
            (r#""gojs" "runtime.wasmExit" (func (param i32))"#, "GOOS=wasip1"),
            (r#""acme" "query" (func)"#, "imports `acme.query`, which no plug-in gets"),
        ] {
            let error = refused(&filter(&format!("(import {import})")));
            assert!(error.contains(expected), "{error}");
        }
        let error = refused(&filter(r#"(import "wasi_snapshot_preview1" "made_up" (func))"#));
        assert!(error.contains("made_up"), "{error}");
    }

    #[test]
    fn a_module_of_no_kind_or_of_two_is_refused() {
        assert!(refused(b"\0asm\x01\0\0\0").contains("exports no stage"));
        let two = filter(r#"(func (export "compress") (param i32 i32) (result i32) (i32.const 0))"#);
        assert!(refused(&two).contains("several stages"));
        assert!(refused(b"not wasm").contains("not a core WebAssembly module"));
    }

    #[test]
    fn data_may_not_lie_where_lines_are_kept() {
        let import = r#"(import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))"#;
        let error = refused(&filter(&format!(r#"{import} (data (i32.const 1023) "x")"#)));
        assert!(error.contains("begins at address 1023") && error.contains("--global-base=1024"), "{error}");
        adapt(&filter(&format!(r#"{import} (data (i32.const 1024) "x")"#))).unwrap();
        adapt(&filter(r#"(data (i32.const 8) "x")"#)).unwrap();
    }
}
