//! Takes the core module out of a component, for hosts that run only core modules.

use anyhow::{Context, Result, bail};
use wasmparser::{Parser, Payload};

use crate::adapt::PREVIEW1;

/// What to do with a component that consists of several modules, as tools for JavaScript and Python make it.
const COMPONENTS: &str = "run it in Node or in Millstream, which take components";

/// What to do with a component that was linked with an adapter for WASI.
const BUILD_AGAIN: &str = "build it again by `millstream plugin build`, or give its core module to \
                           `millstream plugin adapt`, and no other adapter";

/// The interface of the host, whatever its version. A core module may import nothing else.
const HOST: &str = "millstream:stage/host@";

/// Returns the core module of a component that has one.
///
/// Beside it, a component may have modules without a memory. They only connect it with its imports, and a host that
/// runs the core module gives it the imports itself.
///
/// # Errors
/// - `component` is not a component, or cannot be read.
/// - It has no core module with a memory, or several.
/// - The module imports what only another module of the component, or another host, gives it.
pub fn unbundle(component: &[u8]) -> Result<Vec<u8>> {
    if Parser::is_core_wasm(component) {
        bail!("it is a core module already, not a component: use it as it is");
    }
    if !Parser::is_component(component) {
        bail!("it is not a component");
    }
    let modules = modules(component).context("it cannot be read")?;
    let all = modules.len();
    let mut whole = modules.into_iter().filter(|module| module.memories > 0);
    let (Some(module), others) = (whole.next(), whole.count()) else {
        bail!("none of its {all} core modules has a memory");
    };
    if others > 0 {
        bail!(
            "it consists of {} core modules with a memory each, so no single one does its work: {COMPONENTS}",
            others + 1
        );
    }
    if let Some(import) = module.imports.iter().find(|import| !import.starts_with(HOST)) {
        let advice = if import.starts_with(PREVIEW1) { BUILD_AGAIN } else { COMPONENTS };
        bail!("its core module imports {import}, which another part of the component gives it: {advice}");
    }
    Ok(module.bytes.to_vec())
}

/// A core module inside a component.
struct CoreModule<'a> {
    bytes: &'a [u8],
    memories: u32,
    /// The imports, each as `MODULE.NAME`.
    imports: Vec<String>,
}

/// Returns the core modules of a component, those of components inside it too.
fn modules(component: &[u8]) -> Result<Vec<CoreModule<'_>>> {
    let mut modules: Vec<CoreModule<'_>> = Vec::new();
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            Payload::ModuleSection { unchecked_range, .. } => {
                let bytes = component.get(unchecked_range).context("a core module reaches past the end")?;
                modules.push(CoreModule { bytes, memories: 0, imports: Vec::new() });
            }
            // The sections of a core module follow the section that holds it. Only core modules have these two.
            Payload::MemorySection(section) => {
                modules.last_mut().context("a memory outside of a core module")?.memories += section.count();
            }
            Payload::ImportSection(section) => {
                let module = modules.last_mut().context("an import outside of a core module")?;
                for import in section.into_imports() {
                    let import = import?;
                    module.imports.push(format!("{}.{}", import.module, import.name));
                }
            }
            _ => {}
        }
    }
    Ok(modules)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the message of the error for a component in text form.
    fn refusal(text: &str) -> String {
        let component = wat::parse_str(text).expect("a component in text form");
        format!("{:#}", unbundle(&component).expect_err("it cannot be unbundled"))
    }

    #[test]
    fn the_module_with_the_memory_is_returned() {
        let core = r#"(core module (import "millstream:stage/host@1.0.0" "log" (func (param i32 i32 i32)))
            (memory (export "memory") 1))"#;
        let component = wat::parse_str(format!("(component (core module (func)) {core})")).unwrap();
        let module = unbundle(&component).unwrap();
        assert!(Parser::is_core_wasm(&module));
        let found = Parser::new(0).parse_all(&module).any(|part| matches!(part, Ok(Payload::MemorySection(_))));
        assert!(found, "it is the module with the memory");
    }

    #[test]
    fn what_cannot_run_alone_is_rejected_with_the_reason() {
        let several = refusal("(component (core module (memory 1)) (core module (memory 1)))");
        assert!(several.contains("2 core modules with a memory each") && several.contains("in Node"), "{several}");
        let needy = r#"(component (core module (import "wasi_snapshot_preview1" "fd_write" (func)) (memory 1)))"#;
        let needy = refusal(needy);
        assert!(needy.contains("imports wasi_snapshot_preview1.fd_write"), "{needy}");
        assert!(needy.contains("build it again by `millstream plugin build`"), "{needy}");
        assert!(refusal("(component (core module))").contains("none of its 1 core modules"));
        assert!(refusal("(module)").contains("a core module already"));
    }

    #[test]
    fn garbage_is_rejected() {
        assert!(unbundle(b"garbage").unwrap_err().to_string().contains("not a component"));
        let mut cut = wat::parse_str("(component (core module (memory 1)))").unwrap();
        cut.truncate(cut.len() - 2);
        assert!(format!("{:#}", unbundle(&cut).unwrap_err()).contains("cannot be read"));
    }
}
