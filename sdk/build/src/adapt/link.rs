//! Links the inert [`preview1`](super::preview1) module into a core module, so that one module does all the work.
//!
//! Its types, functions and globals are appended to those of the module, and the imports of WASI become calls of these
//! functions. A host without components runs the result as it is.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;

use anyhow::{Context, Result, anyhow, bail};
use wasm_encoder::reencode::{self, Reencode, utils};
use wasm_encoder::{
    CodeSection, EntityType, FunctionSection, GlobalSection, ImportSection, Module, NameMap, NameSection, SectionId,
    TypeSection,
};
use wasmparser::{
    CodeSectionReader, CompositeInnerType, ExternalKind, FuncType, FunctionBody, FunctionSectionReader, Global,
    GlobalSectionReader, ImportSectionReader, Name, Parser, Payload, TypeRef, TypeSectionReader,
};

use super::{PREVIEW1, preview1};

/// Returns the module with each import of WASI preview 1 replaced by a function of the inert module.
///
/// # Errors
/// The module imports a function that preview 1 does not have, or with other parameters.
pub(super) fn link(module: &[u8]) -> Result<Vec<u8>> {
    let library = Parts::of(preview1::MODULE)?;
    let main = Parts::of(module)?;
    if main.bodies.is_empty() {
        bail!("it has no functions");
    }
    let mut linker = Linker { functions: main.places(&library)?, main: &main, library: &library, has_globals: false };
    let mut linked = Module::new();
    linker.parse_core_module(&mut linked, Parser::new(0), module).map_err(|error| anyhow!("cannot link: {error}"))?;
    Ok(linked.finish())
}

/// What a module consists of, as far as linking needs it.
#[derive(Default)]
struct Parts<'a> {
    /// The types; `None` is one that is not of a function.
    types: Vec<Option<FuncType>>,
    /// The functions that it imports: module, name and type.
    imports: Vec<(&'a str, &'a str, u32)>,
    /// The types of its own functions.
    functions: Vec<u32>,
    bodies: Vec<FunctionBody<'a>>,
    /// Its own globals, and how many it imports.
    globals: Vec<Global<'a>>,
    imported_globals: usize,
    /// The functions that it exports.
    exports: HashMap<&'a str, u32>,
}

impl<'a> Parts<'a> {
    fn of(module: &'a [u8]) -> Result<Parts<'a>> {
        let mut parts = Parts::default();
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::TypeSection(section) => {
                    for group in section {
                        parts.types.extend(group?.into_types().map(|one| match one.composite_type.inner {
                            CompositeInnerType::Func(function) => Some(function),
                            _ => None,
                        }));
                    }
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import?;
                        match import.ty {
                            TypeRef::Func(of) => parts.imports.push((import.module, import.name, of)),
                            TypeRef::Global(_) => parts.imported_globals += 1,
                            _ => {}
                        }
                    }
                }
                Payload::FunctionSection(section) => {
                    parts.functions = section.into_iter().collect::<Result<_, _>>()?;
                }
                Payload::GlobalSection(section) => parts.globals = section.into_iter().collect::<Result<_, _>>()?,
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        if export.kind == ExternalKind::Func {
                            parts.exports.insert(export.name, export.index);
                        }
                    }
                }
                Payload::CodeSectionEntry(body) => parts.bodies.push(body),
                _ => {}
            }
        }
        Ok(parts)
    }

    fn function_type(&self, of: u32) -> Option<&FuncType> {
        self.types.get(of as usize)?.as_ref()
    }

    /// Returns where each function of this module is after linking, its imports first.
    fn places(&self, library: &Parts<'_>) -> Result<Vec<u32>> {
        let is_kept = |(from, _, _): &&(&str, &str, u32)| *from != PREVIEW1;
        let kept = self.imports.iter().filter(is_kept).count();
        let own = kept + library.imports.len();
        let mut next_kept = 0..;
        let mut places = Vec::new();
        for (from, name, of) in &self.imports {
            if *from != PREVIEW1 {
                places.extend(next_kept.next());
                continue;
            }
            let export = library.exports.get(name);
            let export = *export.with_context(|| format!("it imports `{from}.{name}`, which does not exist"))? as usize;
            let at = export - library.imports.len();
            if self.function_type(*of) != library.function_type(library.functions[at]) {
                bail!("it imports `{from}.{name}` with other parameters or results than WASI preview 1 has");
            }
            places.push(u32::try_from(own + self.functions.len() + at)?);
        }
        for at in 0..self.functions.len() {
            places.push(u32::try_from(own + at)?);
        }
        Ok(places)
    }

    /// Returns how many functions it imports from elsewhere than preview 1.
    fn kept_imports(&self) -> u32 {
        count(self.imports.iter().filter(|(from, _, _)| *from != PREVIEW1).count())
    }
}

/// Returns a number of things in a module: a module has fewer than 2^32 of each.
fn count(things: usize) -> u32 {
    u32::try_from(things).unwrap_or(u32::MAX)
}

type Outcome<T = ()> = Result<T, reencode::Error<Infallible>>;

/// Writes the module with the library behind each of its sections.
struct Linker<'l> {
    main: &'l Parts<'l>,
    library: &'l Parts<'l>,
    /// Where each function of the module is after linking.
    functions: Vec<u32>,
    /// Whether the globals are written.
    has_globals: bool,
}

impl Linker<'_> {
    fn library(&self) -> Library {
        let imports = self.main.kept_imports();
        let own = imports + count(self.library.imports.len() + self.main.functions.len());
        Library {
            imports,
            imported: count(self.library.imports.len()),
            own,
            types: count(self.main.types.len()),
            globals: count(self.main.imported_globals + self.main.globals.len()),
        }
    }

    fn library_globals(&mut self, globals: &mut GlobalSection) -> Outcome {
        self.has_globals = true;
        let mut library = self.library();
        self.library.globals.iter().try_for_each(|global| library.parse_global(globals, global.clone()))
    }
}

impl Reencode for Linker<'_> {
    type Error = Infallible;

    fn function_index(&mut self, function: u32) -> Outcome<u32> {
        Ok(self.functions.get(function as usize).copied().unwrap_or(u32::MAX))
    }

    fn parse_type_section(&mut self, types: &mut TypeSection, section: TypeSectionReader<'_>) -> Outcome {
        utils::parse_type_section(self, types, section)?;
        for function in self.library.types.iter().flatten() {
            types.ty().func_type(&utils::func_type(self, function.clone())?);
        }
        Ok(())
    }

    fn parse_import_section(&mut self, imports: &mut ImportSection, section: ImportSectionReader<'_>) -> Outcome {
        for import in section.into_imports() {
            let import = import?;
            if import.module != PREVIEW1 {
                self.parse_import(imports, import)?;
            }
        }
        for (from, name, of) in &self.library.imports {
            imports.import(from, name, EntityType::Function(self.library().type_index(*of)?));
        }
        Ok(())
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: FunctionSectionReader<'_>,
    ) -> Outcome {
        utils::parse_function_section(self, functions, section)?;
        for of in &self.library.functions {
            functions.function(self.library().type_index(*of)?);
        }
        Ok(())
    }

    fn parse_global_section(&mut self, globals: &mut GlobalSection, section: GlobalSectionReader<'_>) -> Outcome {
        utils::parse_global_section(self, globals, section)?;
        self.library_globals(globals)
    }

    /// Writes the globals before the exports of a module that has no globals of its own.
    fn intersperse_section_hook(
        &mut self,
        module: &mut Module,
        _: Option<SectionId>,
        before: Option<SectionId>,
    ) -> Outcome {
        if before == Some(SectionId::Export) && !self.has_globals {
            let mut globals = GlobalSection::new();
            self.library_globals(&mut globals)?;
            module.section(&globals);
        }
        Ok(())
    }

    fn parse_code_section(&mut self, code: &mut CodeSection, section: CodeSectionReader<'_>) -> Outcome {
        utils::parse_code_section(self, code, section)?;
        let mut library = self.library();
        self.library.bodies.iter().try_for_each(|body| library.parse_function_body(code, body.clone()))
    }

    /// Keeps the names of functions in the order of their places, as the format demands.
    fn parse_custom_name_subsection(&mut self, names: &mut NameSection, section: Name<'_>) -> Outcome {
        let Name::Function(map) = section else {
            return utils::parse_custom_name_subsection(self, names, section);
        };
        let mut sorted = BTreeMap::new();
        for naming in map {
            let naming = naming?;
            sorted.insert(self.function_index(naming.index)?, naming.name);
        }
        let mut functions = NameMap::new();
        sorted.into_iter().for_each(|(place, name)| functions.append(place, name));
        names.functions(&functions);
        Ok(())
    }
}

/// Writes the parts of the library with their places after linking.
struct Library {
    /// The place of its first import.
    imports: u32,
    /// How many functions it imports.
    imported: u32,
    /// The place of its first own function.
    own: u32,
    /// The places of its first type and global.
    types: u32,
    globals: u32,
}

impl Reencode for Library {
    type Error = Infallible;

    fn function_index(&mut self, function: u32) -> Outcome<u32> {
        Ok(match function.checked_sub(self.imported) {
            Some(own) => self.own + own,
            None => self.imports + function,
        })
    }

    fn type_index(&mut self, of: u32) -> Outcome<u32> {
        Ok(self.types + of)
    }

    fn global_index(&mut self, global: u32) -> Outcome<u32> {
        Ok(self.globals + global)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn linked(text: &str) -> String {
        let module = link(&wat::parse_str(text).unwrap()).unwrap();
        wasmparser::Validator::new().validate_all(&module).unwrap();
        let parts = Parts::of(&module).unwrap();
        assert!(parts.imports.iter().all(|(from, _, _)| *from != PREVIEW1));
        // Names follow their functions.
        let mut names = Vec::new();
        for payload in Parser::new(0).parse_all(&module) {
            if let Payload::CustomSection(section) = payload.unwrap()
                && let wasmparser::KnownCustom::Name(section) = section.as_known()
            {
                for part in section {
                    if let Name::Function(map) = part.unwrap() {
                        names.extend(map.into_iter().map(|naming| {
                            let naming = naming.unwrap();
                            format!("{} {}", naming.index, naming.name)
                        }));
                    }
                }
            }
        }
        let imports: Vec<String> = parts.imports.iter().map(|(_, name, _)| (*name).to_owned()).collect();
        format!("{}; {}; run {}", imports.join(" "), names.join(", "), parts.exports["run"])
    }

    const WRITE: &str =
        r#"(import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))"#;
    const COUNT: &str = r#"(import "millstream:stage/host@1.0.0" "count" (func $count (param i32 i32 i64)))"#;

    #[test]
    fn calls_of_wasi_reach_the_library_and_all_others_their_functions() {
        let library = Parts::of(preview1::MODULE).unwrap();
        // `count`, `log`, `$own` and `$run` come first.
        let write = 4 + library.exports["fd_write"] - 1;
        let found = linked(&format!(
            r#"(module {WRITE} {COUNT} (memory (export "memory") 1) (table 2 funcref)
                (elem (i32.const 0) $own $write) (global $g (mut i32) (i32.const 0))
                (func $own (call $count (i32.const 0) (i32.const 0) (i64.const 1)))
                (func $run (export "run") (call $own)
                    (global.set $g (call $write (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)))))"#
        ));
        assert_eq!(found, format!("count log; 0 count, 2 own, 3 run, {write} write; run 3"));
    }

    #[test]
    fn a_module_without_globals_or_other_imports_is_linked() {
        let found = linked(&format!(
            r#"(module {WRITE} (memory 1) (func (export "run") (result i32)
                (call $write (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0))))"#
        ));
        assert!(found.starts_with("log; ") && found.ends_with("; run 1"), "{found}");
    }

    #[test]
    fn what_preview_1_does_not_have_is_named() {
        let refused = |import: &str| {
            let text = format!(r#"(module (import "wasi_snapshot_preview1" {import}) (memory 1) (func))"#);
            link(&wat::parse_str(text).unwrap()).unwrap_err().to_string()
        };
        assert!(refused(r#""made_up" (func)"#).contains("made_up"));
        let other = refused(r#""fd_write" (func (param i64))"#);
        assert!(other.contains("`wasi_snapshot_preview1.fd_write` with other parameters"), "{other}");
    }
}
