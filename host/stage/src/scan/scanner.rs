//! One pass over a file, and the checks of its content.

use std::collections::BTreeSet;

use wasmparser::{
    ComponentExternalKind, ComponentTypeRef, Encoding, FunctionBody, Instance, MemoryType, Operator, Parser, Payload,
    TableType, TypeBounds, TypeRef, Validator, WasmFeatures,
};

use super::{Figure, HOST_INTERFACE, Inspection, Measure, Refusal};
use crate::contract::{Kind, PACKAGE, VERSION};
use crate::limits::{Limits, WASM_PAGE_BYTES};

/// The interfaces of the contract. All but `host` hold only types.
const INTERFACES: [&str; 3] = ["batch", "types", HOST_INTERFACE];

/// The features that a plug-in may use: those that compilers rely on, but no feature that is new, large, or computes
/// different results on different machines. The engine has the same: references to objects of the host (`externref`)
/// would need its garbage collector.
const FEATURES: WasmFeatures = WasmFeatures::WASM2
    .union(WasmFeatures::LIME1)
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::COMPONENT_MODEL)
    .difference(WasmFeatures::GC_TYPES);

/// The state of one pass over a file, including the modules inside it.
pub(super) struct Scanner<'b> {
    limits: &'b Limits,
    bytes: &'b [u8],
    /// The encodings of the modules and components that are open. The first is the file itself.
    open: Vec<Encoding>,
    imports: Vec<String>,
    exports: Vec<(String, ComponentExternalKind)>,
    /// What was measured, in the order of [`Measure::ALL`].
    have: [u64; Measure::ALL.len()],
    memories_with_pages: u32,
    /// Reasons to reject the file besides its figures.
    refusals: Vec<Refusal>,
    /// Whether the file was read to its end.
    is_read: bool,
}

impl<'b> Scanner<'b> {
    pub(super) fn new(limits: &'b Limits, bytes: &'b [u8]) -> Scanner<'b> {
        Scanner {
            limits,
            bytes,
            open: Vec::new(),
            imports: Vec::new(),
            exports: Vec::new(),
            have: [0; Measure::ALL.len()],
            memories_with_pages: 0,
            refusals: Vec::new(),
            is_read: false,
        }
    }

    /// Reads the file and collects its figures, imports and exports.
    pub(super) fn read(&mut self) {
        self.add(Measure::SizeBytes, self.bytes.len() as u64);
        if let Err(refusal) = check_header(self.bytes) {
            let is_core = refusal == Refusal::CoreModule;
            self.refuse(refusal);
            // The figures of a core module help its author too.
            if !is_core {
                return;
            }
        }
        match self.read_payloads() {
            Ok(()) => self.is_read = true,
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// Checks the rules of the binary format.
    pub(super) fn validate(&mut self) {
        if let Err(error) = Validator::new_with_features(FEATURES).validate_all(self.bytes) {
            self.refuse(error.into());
        }
    }

    /// Returns whether there is no reason to reject the file yet.
    pub(super) fn is_good_so_far(&self) -> bool {
        self.refusals.is_empty() && self.figures().all(|figure| figure.refusal().is_none())
    }

    /// Returns whether the file was read to its end.
    pub(super) fn is_readable(&self) -> bool {
        self.is_read
    }

    pub(super) fn has_unsupported_feature(&self) -> bool {
        self.refusals.iter().any(|refusal| matches!(refusal, Refusal::Feature(_)))
    }

    /// Checks the exports, and returns all that was found.
    pub(super) fn finish(mut self) -> Inspection {
        let is_component = !self.refusals.contains(&Refusal::CoreModule);
        let kind = if self.is_read && is_component { self.world() } else { None };
        let figures: Vec<Figure> = self.figures().collect();
        let too_large = figures.iter().filter_map(|figure| figure.refusal());
        Inspection {
            kind,
            refusals: too_large.chain(self.refusals).collect(),
            imports: self.imports,
            exports: self.exports.into_iter().map(|(name, _)| name).collect(),
            figures,
        }
    }

    fn figures(&self) -> impl Iterator<Item = Figure> {
        Measure::ALL.into_iter().zip(self.have).map(|(measure, have)| Figure::new(measure, have, self.limits))
    }

    fn add(&mut self, measure: Measure, more: u64) {
        let have = &mut self.have[measure as usize];
        *have = have.saturating_add(more);
    }

    fn at_least(&mut self, measure: Measure, have: u64) {
        let known = &mut self.have[measure as usize];
        *known = have.max(*known);
    }

    /// Adds a reason, once.
    fn refuse(&mut self, refusal: Refusal) {
        if !self.refusals.contains(&refusal) {
            self.refusals.push(refusal);
        }
    }

    /// Returns whether the current payload belongs to the file itself, not to something nested in it.
    fn at_top(&self) -> bool {
        self.open.len() == 1
    }

    fn read_payloads(&mut self) -> Result<(), Refusal> {
        for payload in Parser::new(0).parse_all(self.bytes) {
            match payload? {
                Payload::Version { encoding, .. } => {
                    self.open.push(encoding);
                    self.add(Measure::Parts, 1);
                }
                Payload::End(_) => {
                    self.open.pop();
                }
                Payload::CustomSection(section) => self.add(Measure::CustomBytes, section.range().len() as u64),
                Payload::UnknownSection { id, range, .. } => {
                    let problem = format!("unknown section {id}");
                    return Err(Refusal::Invalid { offset: range.start, problem });
                }
                payload if self.open.last() == Some(&Encoding::Component) => self.component(payload)?,
                payload => self.core(payload)?,
            }
        }
        Ok(())
    }

    fn component(&mut self, payload: Payload<'_>) -> Result<(), Refusal> {
        match payload {
            Payload::ComponentImportSection(section) => {
                self.add(Measure::Items, section.count().into());
                for import in section {
                    let import = import?;
                    // A world may define types of its own; the component then imports their names.
                    if self.at_top() && !matches!(import.ty, ComponentTypeRef::Type(TypeBounds::Eq(_))) {
                        check_import(import.name.name).unwrap_or_else(|refusal| self.refuse(refusal));
                        self.imports.push(import.name.name.to_owned());
                    }
                }
            }
            Payload::ComponentExportSection(section) => {
                self.add(Measure::Items, section.count().into());
                for export in section {
                    let export = export?;
                    if self.at_top() {
                        self.exports.push((export.name.name.to_owned(), export.kind));
                    }
                }
            }
            Payload::InstanceSection(section) => {
                self.add(Measure::Parts, section.count().into());
                for instance in section {
                    // The others only group exports of existing instances.
                    if let Instance::Instantiate { .. } = instance? {
                        self.add(Measure::CoreInstances, 1);
                    }
                }
            }
            Payload::ComponentInstanceSection(section) => self.add(Measure::Parts, section.count().into()),
            Payload::ComponentTypeSection(section) => self.add(Measure::Items, section.count().into()),
            Payload::CoreTypeSection(section) => self.add(Measure::Items, section.count().into()),
            Payload::ComponentAliasSection(section) => self.add(Measure::Items, section.count().into()),
            Payload::ComponentCanonicalSection(section) => self.add(Measure::Items, section.count().into()),
            Payload::ComponentStartSection { .. } => {
                self.refuse(Refusal::Feature("a start function of the component"));
            }
            // The nested module or component follows as payloads of its own.
            _ => {}
        }
        Ok(())
    }

    fn core(&mut self, payload: Payload<'_>) -> Result<(), Refusal> {
        match payload {
            Payload::TypeSection(section) => self.add(Measure::Items, section.count().into()),
            Payload::ImportSection(section) => {
                self.add(Measure::Items, section.count().into());
                for import in section.into_imports() {
                    let import = import?;
                    if self.at_top() {
                        self.imports.push(format!("{}.{}", import.module, import.name));
                    }
                    match import.ty {
                        TypeRef::Memory(memory) => self.memory_type(&memory),
                        TypeRef::Table(table) => self.table(&table),
                        TypeRef::Tag(_) => self.refuse(Refusal::Feature("exceptions")),
                        _ => {}
                    }
                }
            }
            Payload::FunctionSection(section) => self.add(Measure::Functions, section.count().into()),
            Payload::TableSection(section) => {
                self.add(Measure::Items, section.count().into());
                for table in section {
                    self.table(&table?.ty);
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    self.memory(&memory?);
                }
            }
            Payload::TagSection(_) => self.refuse(Refusal::Feature("exceptions")),
            Payload::GlobalSection(section) => self.add(Measure::Items, section.count().into()),
            Payload::ExportSection(section) => self.add(Measure::Items, section.count().into()),
            Payload::ElementSection(section) => self.add(Measure::Items, section.count().into()),
            Payload::DataSection(section) => self.add(Measure::DataSegments, section.count().into()),
            Payload::CodeSectionEntry(body) => self.body(&body)?,
            _ => {}
        }
        Ok(())
    }

    fn memory(&mut self, memory: &MemoryType) {
        self.memory_type(memory);
        self.add(Measure::Memories, 1);
        // Tools add memories without pages to modules that stand in for imports. They cost nothing.
        self.memories_with_pages += u32::from(memory.initial > 0);
        if self.memories_with_pages > 1 {
            self.refuse(Refusal::Feature("several memories with pages"));
        }
        self.at_least(Measure::MemoryBytesMin, memory.initial.saturating_mul(WASM_PAGE_BYTES as u64));
    }

    fn memory_type(&mut self, memory: &MemoryType) {
        if memory.memory64 {
            self.refuse(Refusal::Feature("64-bit memories"));
        }
        if memory.shared {
            self.refuse(Refusal::Feature("shared memories (threads)"));
        }
        if memory.page_size_log2.is_some() {
            self.refuse(Refusal::Feature("custom page sizes"));
        }
    }

    fn table(&mut self, table: &TableType) {
        if table.table64 {
            self.refuse(Refusal::Feature("64-bit tables"));
        }
        if table.shared {
            self.refuse(Refusal::Feature("shared tables (threads)"));
        }
        self.at_least(Measure::TableElementsMin, table.initial);
    }

    fn body(&mut self, body: &FunctionBody<'_>) -> Result<(), Refusal> {
        self.at_least(Measure::BodyBytes, body.range().len() as u64);
        let mut locals = 0u64;
        for local in body.get_locals_reader()? {
            locals += u64::from(local?.0);
        }
        self.at_least(Measure::Locals, locals);
        let mut depth = 0u64;
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            match operators.read()? {
                Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => {
                    depth += 1;
                    self.at_least(Measure::BlockDepth, depth);
                }
                Operator::TryTable { .. } | Operator::Try { .. } => self.refuse(Refusal::Feature("exceptions")),
                Operator::End => depth = depth.saturating_sub(1),
                Operator::BrTable { targets } => self.at_least(Measure::BranchTargets, targets.len().into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Returns the world that the exports belong to, and adds a reason for each missing export.
    fn world(&mut self) -> Option<Kind> {
        let names: BTreeSet<&str> = self.exports.iter().map(|(name, _)| name.as_str()).collect();
        let has = |name: &&str| names.contains(*name);
        let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| kind.calls().iter().any(&has)).collect();
        let [kind, others @ ..] = &kinds[..] else {
            self.refuse(Refusal::NoWorld);
            return None;
        };
        let kind = *kind;
        let wanted = || ["describe", "configure"].iter().chain(kind.calls());
        let missing = wanted().filter(|name| !has(name)).map(|&name| Refusal::MissingExport { kind, name });
        let is_wanted = |name: &str| wanted().any(|wanted| *wanted == name);
        let not_functions = self.exports.iter().filter(|(_, external)| *external != ComponentExternalKind::Func);
        let not_functions = not_functions.filter(|(name, _)| is_wanted(name));
        let not_functions = not_functions.map(|(name, _)| Refusal::NotAFunction(name.clone()));
        let too_many = others.iter().map(|other| Refusal::TwoWorlds(kind, *other));
        let found: Vec<Refusal> = too_many.chain(missing).chain(not_functions).collect();
        found.into_iter().for_each(|refusal| self.refuse(refusal));
        Some(kind)
    }
}

fn check_header(bytes: &[u8]) -> Result<(), Refusal> {
    if Parser::is_component(bytes) {
        return Ok(());
    }
    if Parser::is_core_wasm(bytes) {
        return Err(Refusal::CoreModule);
    }
    if bytes.is_empty() {
        return Err(Refusal::NotWasm("the file is empty"));
    }
    if bytes.starts_with(b"\x7fELF") {
        return Err(Refusal::NotWasm("native or precompiled code; pass the component itself"));
    }
    if bytes.starts_with(b"\0asm") {
        return Err(Refusal::NotWasm("an unknown version of the binary format"));
    }
    let start = &bytes[..bytes.len().min(256)];
    let is_text = start.is_ascii() && !start.contains(&0);
    Err(Refusal::NotWasm(if is_text { "a text file" } else { "the first bytes are not those of a component" }))
}

/// Checks one import of the component: an interface of the contract, of a version that this host can serve.
fn check_import(name: &str) -> Result<(), Refusal> {
    if name.starts_with("wasi:") {
        return Err(Refusal::Wasi(name.to_owned()));
    }
    let unknown = || Refusal::UnknownImport(name.to_owned());
    let (path, version) = name.split_once('@').ok_or_else(unknown)?;
    let interface = path.strip_prefix(PACKAGE).and_then(|rest| rest.strip_prefix('/')).ok_or_else(unknown)?;
    if !serves(version) {
        let (major, minor, patch) = VERSION;
        return Err(Refusal::OtherVersion { theirs: version.to_owned(), ours: format!("{major}.{minor}.{patch}") });
    }
    if !INTERFACES.contains(&interface) {
        return Err(unknown());
    }
    Ok(())
}

/// Returns whether this host serves plug-ins that were built for `version`: the same major, no newer minor.
fn serves(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse::<u64>());
    let (Some(Ok(major)), Some(Ok(minor)), Some(Ok(_)), None) =
        (numbers.next(), numbers.next(), numbers.next(), numbers.next())
    else {
        return false;
    };
    major == VERSION.0 && minor <= VERSION.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_named_when_they_are_rejected() {
        assert_eq!(check_import("millstream:stage/host@1.0.0"), Ok(()));
        assert_eq!(check_import("millstream:stage/types@1.0.7"), Ok(()));
        let refused = |name: &str| check_import(name).unwrap_err().to_string();
        assert!(refused("wasi:sockets/tcp@0.2.0").contains("wasi:sockets/tcp@0.2.0"));
        assert!(refused("acme:db/query@1.0.0").contains("acme:db/query@1.0.0"));
        assert!(refused("millstream:stage/extra@1.0.0").contains("extra"));
        assert!(refused("plain").contains("plain"));
        let other = refused("millstream:stage/types@2.1.0");
        assert!(other.contains("2.1.0") && other.contains("1.0.0"), "{other}");
        assert!(refused("millstream:stage/types@1.1.0").contains("1.1.0"));
    }

    #[test]
    fn every_measure_has_its_place() {
        for (place, measure) in Measure::ALL.into_iter().enumerate() {
            assert_eq!(measure as usize, place);
        }
    }
}
