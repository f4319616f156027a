//! The page and the modules that a component gets before its own.

use wasm_encoder::{
    Alias, CanonicalFunctionSection, CanonicalOption, CodeSection, Component, ComponentAliasSection,
    ComponentImportSection, ComponentTypeRef, ComponentTypeSection, ComponentValType, EntityType, ExportKind,
    ExportSection, Function, FunctionSection, ImportSection, InstanceSection, Instruction, MemorySection, MemoryType,
    Module, ModuleArg, ModuleSection, PrimitiveValType, StartSection, TypeSection, ValType,
};

use crate::limits::WASM_PAGE_BYTES;

/// The name of the host's function that receives a page, and of the module that has it.
pub(crate) const PAGE_IMPORT: &str = "deadline-page";

/// The export of the page's module.
pub(super) const PAGE: &str = "page";

/// What the checks add to the front of each index space of a component.
pub(super) mod added {
    pub(in crate::checks) const TYPES: u32 = 2;
    pub(in crate::checks) const FUNCTIONS: u32 = 1;
    pub(in crate::checks) const MODULES: u32 = 2;
    pub(in crate::checks) const CORE_INSTANCES: u32 = 3;
    pub(in crate::checks) const CORE_FUNCTIONS: u32 = 1;
    pub(in crate::checks) const MEMORIES: u32 = 1;
}

/// Adds the host's function to the start of a component, as its first one.
pub(super) fn add_function(component: &mut Component) {
    let mut types = ComponentTypeSection::new();
    types.defined_type().list(PrimitiveValType::U8);
    let no_result: Option<ComponentValType> = None;
    types.function().params([(PAGE, ComponentValType::Type(0))]).result(no_result);
    component.section(&types);
    let mut imports = ComponentImportSection::new();
    imports.import(PAGE_IMPORT, ComponentTypeRef::Func(1));
    component.section(&imports);
}

/// Adds the page and its announcement after that.
pub(super) fn add_page(component: &mut Component) {
    component.section(&ModuleSection(&page_module()));
    component.section(&ModuleSection(&announcer()));
    let mut page = InstanceSection::new();
    page.instantiate(0, std::iter::empty::<(&str, ModuleArg)>());
    component.section(&page);
    let mut memory = ComponentAliasSection::new();
    memory.alias(Alias::CoreInstanceExport { instance: 0, kind: ExportKind::Memory, name: PAGE });
    component.section(&memory);
    let mut lowered = CanonicalFunctionSection::new();
    lowered.lower(0, [CanonicalOption::Memory(0)]);
    component.section(&lowered);
    let mut announcement = InstanceSection::new();
    announcement.export_items([("announce", ExportKind::Func, 0)]);
    announcement.instantiate(1, [(PAGE_IMPORT, ModuleArg::Instance(1))]);
    component.section(&announcement);
}

pub(super) fn page_type() -> MemoryType {
    MemoryType { minimum: 1, maximum: Some(1), memory64: false, shared: false, page_size_log2: None }
}

fn page_module() -> Module {
    let mut memories = MemorySection::new();
    memories.memory(page_type());
    let mut exports = ExportSection::new();
    exports.export(PAGE, ExportKind::Memory, 0);
    let mut module = Module::new();
    module.section(&memories).section(&exports);
    module
}

/// Returns the module whose start function passes the page to the host.
fn announcer() -> Module {
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32, ValType::I32], []);
    types.ty().function([], []);
    let mut imports = ImportSection::new();
    imports.import(PAGE_IMPORT, "announce", EntityType::Function(0));
    let mut functions = FunctionSection::new();
    functions.function(1);
    let mut start = Function::new([]);
    start.instruction(&Instruction::I32Const(0));
    start.instruction(&Instruction::I32Const(WASM_PAGE_BYTES as i32));
    start.instruction(&Instruction::Call(0));
    start.instruction(&Instruction::End);
    let mut code = CodeSection::new();
    code.function(&start);
    let mut module = Module::new();
    module.section(&types).section(&imports).section(&functions);
    module.section(&StartSection { function_index: 1 }).section(&code);
    module
}
