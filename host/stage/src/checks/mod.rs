//! Inserts the checks of the deadline into a component. Its code then writes a byte to a page: at every turn of a loop,
//! at the start of every function that calls another, and before an instruction that copies or fills memory. A host
//! that takes the page's write permission away stops the code at its next write. Other code pays one store each time.
//!
//! The page is a memory of its own, which the component instantiates first. A second module passes it to the host,
//! before any code of the plug-in runs:
//!
//! ```wat
//! (import "deadline-page" (func $announce (param "page" (list u8))))
//! (core instance $page (instantiate (module (memory (export "page") 1 1))))
//! (core func $announce (canon lower (func $announce) (memory $page "page")))
//! (core instance (instantiate $announcer (with "deadline-page" (instance (export "announce" (func $announce))))))
//! ```
//!
//! Every other module imports the page as its first memory. A nested component that instantiates modules gets a page of
//! its own in the same way, and those around it pass the host's function on.
//!
//! A plug-in cannot name any of it: the scan rejects a component that imports anything but the contract, and each index
//! of the plug-in still means what it meant.
//!
//! The usual way is the engine's clock (epochs): two loads, a comparison and a branch in place of each store.

mod core_module;
mod page;

use std::convert::Infallible;

use wasm_encoder::reencode::{Error, Reencode, ReencodeComponent, component_utils};
use wasm_encoder::{
    Component, ComponentExportKind, ComponentInstanceSection, InstanceSection, Module, ModuleArg, ModuleSection,
    NestedComponentSection,
};
use wasmparser::{Encoding, Instance, InstantiationArgKind, Parser, Payload};

use self::core_module::CoreModule;
pub(crate) use self::page::PAGE_IMPORT;
use self::page::{add_function, add_page, added};

/// Names what is inserted. It changes with it, so that code with older checks is compiled again.
pub(crate) const VERSION: u32 = 2;

/// The modules of a component that the checks add: the page and the module that announces it.
pub(crate) const INSTANCES_ADDED: u32 = 2;

/// Returns the component with checks.
///
/// # Errors
/// A component that cannot be read. The scan has rejected it before.
pub(crate) fn insert(component: &[u8]) -> Result<Vec<u8>, String> {
    let failed = |error: Error<Infallible>| format!("the checks of the deadline cannot be inserted: {error}");
    let needs = needs(component).map_err(|error| failed(error.into()))?;
    let mut components = Components { needs: needs.into_iter(), scopes: Vec::new() };
    let mut checked = Component::new();
    components.begin(&mut checked);
    components.parse_component(&mut checked, Parser::new(0), component).map_err(failed)?;
    Ok(checked.finish())
}

/// What a component needs for the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    Nothing,
    /// The host's function, for a component nested in it.
    Function,
    /// A page, since it instantiates core modules. This includes the function.
    Page,
}

/// Returns what each component needs, in the order in which they begin.
fn needs(component: &[u8]) -> wasmparser::Result<Vec<Need>> {
    let mut needs = Vec::new();
    // The places in `needs` of the components that are open; a core module has none.
    let mut open: Vec<Option<usize>> = Vec::new();
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            Payload::Version { encoding: Encoding::Module, .. } => open.push(None),
            Payload::Version { encoding: Encoding::Component, .. } => {
                open.push(Some(needs.len()));
                needs.push(Need::Nothing);
            }
            Payload::End(_) => {
                open.pop();
            }
            Payload::InstanceSection(section) => {
                let mut instances = section.into_iter();
                if instances.any(|instance| matches!(instance, Ok(Instance::Instantiate { .. }))) {
                    let mut need = Need::Page;
                    for &place in open.iter().rev().flatten() {
                        needs[place] = need.max(needs[place]);
                        need = Need::Function;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(needs)
}

/// A place with index spaces of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// A component, whose index spaces begin with what it needs.
    Component(Need),
    /// The type of a component, an instance or a module. Nothing is added to it.
    Type,
}

/// Copies a component and those nested in it.
struct Components {
    /// What each component needs that has not begun yet.
    needs: std::vec::IntoIter<Need>,
    /// The scopes around the place that is copied, the innermost last.
    scopes: Vec<Scope>,
}

impl Components {
    /// Adds what the next component needs.
    fn begin(&mut self, component: &mut Component) {
        let need = self.needs.next().unwrap_or(Need::Nothing);
        if need >= Need::Function {
            add_function(component);
        }
        if need == Need::Page {
            add_page(component);
        }
        self.scopes.push(Scope::Component(need));
    }

    /// Returns the new index of an item of the scope that is `count` scopes outside, if `added` were put before it for
    /// `need`.
    fn moved(&self, count: u32, index: u32, need: Need, added: u32) -> u32 {
        match self.scopes.iter().rev().nth(count as usize) {
            Some(Scope::Component(has)) if *has >= need => index + added,
            _ => index,
        }
    }

    fn needs(&self, need: Need) -> bool {
        matches!(self.scopes.last(), Some(Scope::Component(has)) if *has >= need)
    }
}

impl Reencode for Components {
    type Error = Infallible;

    fn function_index(&mut self, function: u32) -> Result<u32, Error<Infallible>> {
        Ok(self.moved(0, function, Need::Page, added::CORE_FUNCTIONS))
    }

    fn memory_index(&mut self, memory: u32) -> Result<u32, Error<Infallible>> {
        Ok(self.moved(0, memory, Need::Page, added::MEMORIES))
    }
}

impl ReencodeComponent for Components {
    fn component_type_index(&mut self, index: u32) -> u32 {
        self.moved(0, index, Need::Function, added::TYPES)
    }

    fn outer_component_type_index(&mut self, count: u32, index: u32) -> u32 {
        self.moved(count, index, Need::Function, added::TYPES)
    }

    fn component_func_index(&mut self, function: u32) -> u32 {
        self.moved(0, function, Need::Function, added::FUNCTIONS)
    }

    fn module_index(&mut self, module: u32) -> u32 {
        self.moved(0, module, Need::Page, added::MODULES)
    }

    fn outer_module_index(&mut self, count: u32, module: u32) -> u32 {
        self.moved(count, module, Need::Page, added::MODULES)
    }

    fn instance_index(&mut self, instance: u32) -> u32 {
        self.moved(0, instance, Need::Page, added::CORE_INSTANCES)
    }

    fn push_depth(&mut self) {
        self.scopes.push(Scope::Type);
    }

    fn pop_depth(&mut self) {
        self.scopes.pop();
    }

    fn parse_component_submodule(
        &mut self,
        component: &mut Component,
        parser: Parser,
        bytes: &[u8],
    ) -> Result<(), Error<Infallible>> {
        let mut module = Module::new();
        CoreModule::default().parse_core_module(&mut module, parser, bytes)?;
        component.section(&ModuleSection(&module));
        Ok(())
    }

    fn parse_component_subcomponent(
        &mut self,
        component: &mut Component,
        parser: Parser,
        bytes: &[u8],
        whole: &[u8],
    ) -> Result<(), Error<Infallible>> {
        let mut nested = Component::new();
        self.begin(&mut nested);
        component_utils::parse_component(self, &mut nested, parser, bytes, whole)?;
        self.scopes.pop();
        component.section(&NestedComponentSection(&nested));
        Ok(())
    }

    fn parse_instance(
        &mut self,
        instances: &mut InstanceSection,
        instance: Instance<'_>,
    ) -> Result<(), Error<Infallible>> {
        let Instance::Instantiate { module_index, args } = instance else {
            return component_utils::parse_instance(self, instances, instance);
        };
        let own = args.iter().map(|argument| match argument.kind {
            InstantiationArgKind::Instance => (argument.name, ModuleArg::Instance(self.instance_index(argument.index))),
        });
        let arguments: Vec<_> = own.chain([(PAGE_IMPORT, ModuleArg::Instance(0))]).collect();
        instances.instantiate(self.module_index(module_index), arguments);
        Ok(())
    }

    fn parse_component_instance(
        &mut self,
        instances: &mut ComponentInstanceSection,
        instance: wasmparser::ComponentInstance<'_>,
    ) -> Result<(), Error<Infallible>> {
        let wasmparser::ComponentInstance::Instantiate { component_index, args } = instance else {
            return component_utils::parse_component_instance(self, instances, instance);
        };
        // A component that needs no page ignores the function.
        let page = self.needs(Need::Function).then_some((PAGE_IMPORT, ComponentExportKind::Func, 0));
        let mut arguments = Vec::from_iter(page);
        for argument in &args {
            let index = self.component_external_index(argument.kind, argument.index);
            arguments.push((argument.name, argument.kind.into(), index));
        }
        instances.instantiate(self.component_index(component_index), arguments);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::page::PAGE;
    use super::*;
    use wasmparser::{Operator, Validator, WasmFeatures};

    /// Inserts the checks, and returns how many pages and writes the component has then.
    fn checked(component: &str) -> (usize, usize) {
        let component = wat::parse_str(component).unwrap_or_else(|error| panic!("{error}"));
        let checked = insert(&component).unwrap_or_else(|error| panic!("{error}"));
        let features = WasmFeatures::default() | WasmFeatures::MULTI_MEMORY | WasmFeatures::TAIL_CALL;
        Validator::new_with_features(features).validate_all(&checked).unwrap_or_else(|error| panic!("{error}"));
        let (mut pages, mut writes) = (0, 0);
        for payload in Parser::new(0).parse_all(&checked) {
            match payload.unwrap() {
                Payload::CodeSectionEntry(body) => {
                    let operators = body.get_operators_reader().unwrap().into_iter();
                    let of_page = |operator| matches!(operator, Operator::I32Store8 { memarg } if memarg.memory == 0);
                    writes += operators.filter(|operator| of_page(operator.clone().unwrap())).count();
                }
                Payload::ExportSection(section) => {
                    pages += section.into_iter().filter(|export| export.as_ref().unwrap().name == PAGE).count();
                }
                _ => {}
            }
        }
        (pages, writes)
    }

    #[test]
    fn loops_and_functions_that_call_others_write() {
        let leaf = "(func (export \"leaf\") (nop))";
        let turns = "(func (loop (br 0)) (loop (loop)))";
        let calls = "(func $f (nop)) (func (call $f)) (func (return_call $f))";
        let table = "(table 1 funcref) (type $t (func)) (func (call_indirect (type $t) (i32.const 0)))";
        let table_tail = "(table 1 funcref) (type $t (func)) (func (return_call_indirect (type $t) (i32.const 0)))";
        let bulk = "(memory 1) (func (memory.fill (i32.const 0) (i32.const 0) (i32.const 9)))";
        let cases = [(leaf, 0), (turns, 3), (calls, 2), (table, 1), (table_tail, 1), (bulk, 1), ("", 0)];
        for (module, writes) in cases {
            let component = format!("(component (core module $m {module}) (core instance (instantiate $m)))");
            assert_eq!(checked(&component), (1, writes), "{module}");
        }
    }

    #[test]
    fn a_module_keeps_its_memories() {
        // Reads a byte of its data through each way to name a memory, and traps if it is another one.
        let own = r#"(memory (export "memory") 1) (data "abc") (data $d "x")
            (func $start
              (memory.init $d (i32.const 8) (i32.const 0) (i32.const 1))
              (memory.copy (i32.const 9) (i32.const 8) (i32.const 1))
              (memory.fill (i32.const 10) (i32.const 120) (i32.const 1))
              (drop (memory.grow (i32.const 1)))
              (if (i32.ne (memory.size) (i32.const 2)) (then unreachable))
              (if (i32.ne (i32.load8_u offset=9 (i32.const 1)) (i32.const 120)) (then unreachable)))
            (start $start)"#;
        let other = r#"(import "own" "memory" (memory 1)) (global (mut i32) (i32.const 0))
            (func (loop (drop (i32.load (i32.const 0)))))"#;
        let component = format!(
            r#"(component (core module $own {own}) (core module $other {other})
                (core instance $own (instantiate $own))
                (core instance (instantiate $other (with "own" (instance $own)))))"#
        );
        // Its own reads and writes are not of the first memory now: only those for a loop and three bulk instructions
        // count.
        assert_eq!(checked(&component), (1, 4));
    }

    #[test]
    fn components_get_what_they_need() {
        let run = "(core module $m (func (loop))) (core instance (instantiate $m))";
        assert_eq!(checked("(component)"), (0, 0));
        assert_eq!(checked("(component (component))"), (0, 0));
        assert_eq!(checked(&format!("(component (component {run}))")), (1, 1));
        assert_eq!(checked(&format!("(component (component $c {run}) (instance (instantiate $c)) {run})")), (2, 2));
        let passes = format!("(component (component $o (component $i {run}) (instance (instantiate $i)))");
        assert_eq!(checked(&format!("{passes} (instance (instantiate $o)))")), (1, 1));
        // A module and types of the component around it.
        let outer = r#"(component (core module $m (func (export "f") (result i32) (loop) (i32.const 0)))
            (type $e (enum "a" "b"))
            (component $c
              (alias outer 1 $m (core module $n))
              (alias outer 1 $e (type $f))
              (export $x "x" (type $f))
              (core instance $i (instantiate $n))
              (func (export "f") (result $x) (canon lift (core func $i "f"))))
            (instance $c (instantiate $c)) (export "c" (instance $c))
            (type (component (alias outer 1 $e (type $g)) (import "h" (type (eq $g))))))"#;
        assert_eq!(checked(outer), (1, 1));
    }
}
