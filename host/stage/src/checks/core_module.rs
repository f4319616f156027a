//! Copies a core module with the page and the writes to it.

use std::convert::Infallible;

use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{CodeSection, Function, ImportSection, Instruction, MemArg, Module, SectionId};
use wasmparser::{FunctionBody, ImportSectionReader, Operator};

use super::page::{PAGE, PAGE_IMPORT, page_type};

/// Copies a core module, and adds the page and the writes.
#[derive(Default)]
pub(super) struct CoreModule {
    has_page: bool,
}

impl CoreModule {
    fn import_page(&mut self, imports: &mut ImportSection) {
        imports.import(PAGE_IMPORT, PAGE, page_type());
        self.has_page = true;
    }
}

impl Reencode for CoreModule {
    type Error = Infallible;

    fn memory_index(&mut self, memory: u32) -> Result<u32, Error<Infallible>> {
        Ok(memory + 1)
    }

    fn parse_import_section(
        &mut self,
        imports: &mut ImportSection,
        section: ImportSectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        self.import_page(imports);
        utils::parse_import_section(self, imports, section)
    }

    fn intersperse_section_hook(
        &mut self,
        module: &mut Module,
        _after: Option<SectionId>,
        before: Option<SectionId>,
    ) -> Result<(), Error<Infallible>> {
        if !self.has_page && !matches!(before, Some(SectionId::Type | SectionId::Import)) {
            let mut imports = ImportSection::new();
            self.import_page(&mut imports);
            module.section(&imports);
        }
        Ok(())
    }

    fn parse_function_body(&mut self, code: &mut CodeSection, body: FunctionBody<'_>) -> Result<(), Error<Infallible>> {
        let mut function = self.new_function_with_parsed_locals(&body)?;
        if calls_another(&body)? {
            write_to_page(&mut function);
        }
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            let operator = operators.read()?;
            let begins_turn = matches!(operator, Operator::Loop { .. });
            if is_bulk(&operator) {
                write_to_page(&mut function);
            }
            function.instruction(&self.instruction(operator)?);
            if begins_turn {
                write_to_page(&mut function);
            }
        }
        code.function(&function);
        Ok(())
    }
}

/// Returns whether a function may not end by itself, loops aside.
fn calls_another(body: &FunctionBody<'_>) -> Result<bool, Error<Infallible>> {
    let mut operators = body.get_operators_reader()?;
    while !operators.eof() {
        if let Operator::Call { .. }
        | Operator::CallIndirect { .. }
        | Operator::ReturnCall { .. }
        | Operator::ReturnCallIndirect { .. } = operators.read()?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns whether one instruction may take milliseconds. Thousands of them need no loop.
fn is_bulk(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::MemoryFill { .. }
            | Operator::MemoryCopy { .. }
            | Operator::MemoryInit { .. }
            | Operator::TableFill { .. }
            | Operator::TableCopy { .. }
            | Operator::TableInit { .. }
    )
}

/// Writes a byte. A read would do as well, but the compiler may drop one that follows another.
fn write_to_page(function: &mut Function) {
    function.instruction(&Instruction::I32Const(0));
    function.instruction(&Instruction::I32Const(0));
    function.instruction(&Instruction::I32Store8(MemArg { offset: 0, align: 0, memory_index: 0 }));
}
