//! Reads a file before anything is compiled: is it a component, of a world of this contract, within
//! its limits? Compiling is where hostile modules do their harm (48 thousand locals, a million nested
//! blocks and a hundred thousand functions take seconds and gigabytes), so what is refused here costs
//! one pass over at most 4 MiB.
//!
//! First the sizes, which bound what everything after has to do; then the binary's own rules, with
//! the features that plug-ins may use and no others; then the contract, in its own terms.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use parking_lot::Mutex;
use wasmparser::{
    BinaryReaderError, ComponentExternalKind, ComponentTypeRef, Encoding, FunctionBody, MemoryType, Operator, Parser,
    Payload, TableType, TypeBounds, TypeRef, Validator, WasmFeatures,
};

use crate::contract::{Kind, PACKAGE, VERSION};
use crate::limits::{Limits, ModuleLimits, WASM_PAGE_BYTES};
use crate::plugin::Digest;

/// The one interface that offers functions to a plug-in.
pub(crate) const HOST_INTERFACE: &str = "host";

/// Interfaces of the contract's package; all but `host` hold types alone.
const INTERFACES: [&str; 3] = ["batch", "types", HOST_INTERFACE];

/// The features that a plug-in may use: those that compilers rely on, and nothing that is new, large
/// or gives different answers on different machines. The engine has no more than these either.
const FEATURES: WasmFeatures =
    WasmFeatures::WASM2.union(WasmFeatures::LIME1).union(WasmFeatures::TAIL_CALL).union(WasmFeatures::COMPONENT_MODEL);

/// Why a file is no plug-in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Not WebAssembly at all.
    #[error("not WebAssembly: {0}")]
    NotWasm(&'static str),
    /// A core module; plug-ins are components.
    #[error("a core WebAssembly module, not a component: build it with `millstream plugin build`")]
    CoreModule,
    /// Bytes that end early, make no sense, or use a feature that plug-ins may not.
    #[error("invalid at byte {offset}: {problem}")]
    Invalid {
        /// Where.
        offset: usize,
        /// What.
        problem: String,
    },
    /// A limit is passed.
    #[error("{what}: {have} is over the limit of {max}")]
    TooLarge {
        /// What is too large or too many.
        what: &'static str,
        /// How much there is.
        have: u64,
        /// The limit.
        max: u64,
    },
    /// A feature of WebAssembly that plug-ins may not use.
    #[error("uses {0}, which plug-ins may not")]
    Feature(&'static str),
    /// An import that this host does not know.
    #[error(
        "imports `{0}`, which this host does not offer: a plug-in may import \
         millstream:stage/host alone"
    )]
    UnknownImport(String),
    /// An import of WASI: files, network, clocks, random numbers.
    #[error("imports `{0}`, which was not granted: plug-ins have no access to the system")]
    NotGranted(String),
    /// An export that the contract asks for is missing.
    #[error("lacks the export `{name}`, which every {kind} has")]
    MissingExport {
        /// The world that the other exports belong to.
        kind: Kind,
        /// The function.
        name: &'static str,
    },
    /// No export belongs to any world.
    #[error("exports no call of a stage: it is no partitioner, serializer, compressor or filter")]
    NoWorld,
    /// Exports that belong to several worlds.
    #[error("exports the calls of a {0} and of a {1}: a plug-in is of one kind")]
    TwoWorlds(Kind, Kind),
    /// An export has the right name, but is no function.
    #[error("the export `{0}` is not a function")]
    NotAFunction(String),
    /// Made for another version of the contract.
    #[error("made for {PACKAGE}@{theirs}; this host offers {PACKAGE}@{ours}: rebuild it")]
    OtherVersion {
        /// The version that it was made for.
        theirs: String,
        /// The version that this host offers.
        ours: String,
    },
}

impl From<BinaryReaderError> for Refusal {
    fn from(error: BinaryReaderError) -> Refusal {
        Refusal::Invalid { offset: error.offset(), problem: error.message().to_owned() }
    }
}

/// What the scan found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The world that the exports belong to.
    pub kind: Kind,
    /// What the component imports.
    pub imports: Vec<String>,
    /// What the component exports.
    pub exports: Vec<String>,
    /// Functions in all core modules.
    pub functions: u32,
    /// The least linear memory that it starts with, in bytes.
    pub memory_bytes_min: u64,
}

/// How many components are remembered, and how long the names of one may be together, in bytes.
const REMEMBERED: usize = 256;
const REMEMBERED_NAMES_BYTES: usize = 4 << 10;

/// The components that one engine, whose limits never change, has let in: what was scanned once need not be scanned each time
/// that it is put to use again. A version that serves in turns with others takes its code from the cache in less time.
#[derive(Debug, Default)]
pub(crate) struct Scanned(Mutex<VecDeque<(Digest, Scan)>>);

impl Scanned {
    /// [`scan`], unless the bytes of this digest have passed it before. The digest has to be theirs.
    pub(crate) fn scan(&self, digest: &Digest, bytes: &[u8], limits: &Limits) -> Result<Scan, Refusal> {
        let known = self.0.lock().iter().find(|(known, _)| known == digest).map(|(_, scan)| scan.clone());
        if let Some(scan) = known {
            return Ok(scan);
        }
        // Not under the lock: a scan takes a millisecond.
        let found = scan(bytes, limits)?;
        self.remember(*digest, &found);
        Ok(found)
    }

    fn remember(&self, digest: Digest, found: &Scan) {
        let names: usize = found.imports.iter().chain(&found.exports).map(String::len).sum();
        if names > REMEMBERED_NAMES_BYTES {
            return;
        }
        let mut scanned = self.0.lock();
        if scanned.len() >= REMEMBERED {
            scanned.pop_front();
        }
        scanned.push_back((digest, found.clone()));
    }
}

/// Scans the bytes of a file.
///
/// # Errors
/// [`Refusal`]: the first reason found.
pub fn scan(bytes: &[u8], limits: &Limits) -> Result<Scan, Refusal> {
    at_most("module size in bytes", bytes.len(), limits.module.size_bytes)?;
    check_header(bytes)?;
    let mut scanner = Scanner::new(limits);
    for payload in Parser::new(0).parse_all(bytes) {
        scanner.payload(payload?)?;
    }
    Validator::new_with_features(FEATURES).validate_all(bytes)?;
    scanner.finish()
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
        let problem = "native or precompiled code; give the component itself";
        return Err(Refusal::NotWasm(problem));
    }
    if bytes.starts_with(b"\0asm") {
        return Err(Refusal::NotWasm("an unknown version of the binary format"));
    }
    let start = &bytes[..bytes.len().min(256)];
    let is_text = start.is_ascii() && !start.contains(&0);
    Err(Refusal::NotWasm(if is_text { "a text file" } else { "the first bytes are not those of a component" }))
}

fn at_most(what: &'static str, have: impl TryInto<u64>, max: impl TryInto<u64>) -> Result<(), Refusal> {
    let have = have.try_into().unwrap_or(u64::MAX);
    let max = max.try_into().unwrap_or(u64::MAX);
    if have > max {
        return Err(Refusal::TooLarge { what, have, max });
    }
    Ok(())
}

/// The state of one pass over a file, modules inside it included.
struct Scanner<'l> {
    limits: &'l Limits,
    /// Encodings of the modules and components that are open; the first is the file itself.
    open: Vec<Encoding>,
    imports: Vec<String>,
    exports: Vec<(String, ComponentExternalKind)>,
    functions: u32,
    data_segments: u32,
    custom_bytes: usize,
    parts: u32,
    items: u32,
    memories: u32,
    memory_bytes_min: u64,
}

impl<'l> Scanner<'l> {
    fn new(limits: &'l Limits) -> Scanner<'l> {
        Scanner {
            limits,
            open: Vec::new(),
            imports: Vec::new(),
            exports: Vec::new(),
            functions: 0,
            data_segments: 0,
            custom_bytes: 0,
            parts: 0,
            items: 0,
            memories: 0,
            memory_bytes_min: 0,
        }
    }

    fn module(&self) -> &'l ModuleLimits {
        &self.limits.module
    }

    /// Whether what is read now belongs to the file itself, not to something nested in it.
    fn at_top(&self) -> bool {
        self.open.len() == 1
    }

    fn payload(&mut self, payload: Payload<'_>) -> Result<(), Refusal> {
        match payload {
            Payload::Version { encoding, .. } => {
                self.open.push(encoding);
                self.parts(1)
            }
            Payload::End(_) => {
                self.open.pop();
                Ok(())
            }
            Payload::CustomSection(section) => self.custom(section.range()),
            Payload::UnknownSection { id, range, .. } => {
                Err(Refusal::Invalid { offset: range.start, problem: format!("unknown section {id}") })
            }
            payload if self.open.last() == Some(&Encoding::Component) => self.component(payload),
            payload => self.core(payload),
        }
    }

    fn custom(&mut self, range: Range<usize>) -> Result<(), Refusal> {
        self.custom_bytes += range.len();
        at_most("custom sections in bytes (strip the debug information)", self.custom_bytes, self.module().custom_bytes)
    }

    fn parts(&mut self, more: u32) -> Result<(), Refusal> {
        self.parts = self.parts.saturating_add(more);
        at_most("modules, components and instances", self.parts, self.module().parts)
    }

    fn items(&mut self, more: u32) -> Result<(), Refusal> {
        self.items = self.items.saturating_add(more);
        at_most("types, imports, exports and aliases", self.items, self.module().items)
    }

    fn component(&mut self, payload: Payload<'_>) -> Result<(), Refusal> {
        match payload {
            Payload::ComponentImportSection(section) => {
                self.items(section.count())?;
                let at_top = self.at_top();
                for import in section {
                    let import = import?;
                    // A world may define types of its own; the component then imports their names.
                    if at_top && !matches!(import.ty, ComponentTypeRef::Type(TypeBounds::Eq(_))) {
                        check_import(import.name.name)?;
                        self.imports.push(import.name.name.to_owned());
                    }
                }
            }
            Payload::ComponentExportSection(section) => {
                self.items(section.count())?;
                let at_top = self.at_top();
                for export in section {
                    let export = export?;
                    if at_top {
                        self.exports.push((export.name.name.to_owned(), export.kind));
                    }
                }
            }
            Payload::InstanceSection(section) => self.parts(section.count())?,
            Payload::ComponentInstanceSection(section) => self.parts(section.count())?,
            Payload::ComponentTypeSection(section) => self.items(section.count())?,
            Payload::CoreTypeSection(section) => self.items(section.count())?,
            Payload::ComponentAliasSection(section) => self.items(section.count())?,
            Payload::ComponentCanonicalSection(section) => self.items(section.count())?,
            Payload::ComponentStartSection { .. } => {
                return Err(Refusal::Feature("a start function of the component"));
            }
            // The nested module or component follows as payloads of its own.
            _ => {}
        }
        Ok(())
    }

    fn core(&mut self, payload: Payload<'_>) -> Result<(), Refusal> {
        match payload {
            Payload::TypeSection(section) => self.items(section.count()),
            Payload::ImportSection(section) => {
                self.items(section.count())?;
                for import in section.into_imports() {
                    match import?.ty {
                        TypeRef::Memory(memory) => self.memory_type(&memory)?,
                        TypeRef::Table(table) => self.table(&table)?,
                        TypeRef::Tag(_) => return Err(Refusal::Feature("exceptions")),
                        _ => {}
                    }
                }
                Ok(())
            }
            Payload::FunctionSection(section) => {
                self.functions = self.functions.saturating_add(section.count());
                at_most("functions", self.functions, self.module().functions)
            }
            Payload::TableSection(section) => {
                self.items(section.count())?;
                section.into_iter().try_for_each(|table| self.table(&table?.ty))
            }
            Payload::MemorySection(section) => section.into_iter().try_for_each(|memory| self.memory(&memory?)),
            Payload::TagSection(_) => Err(Refusal::Feature("exceptions")),
            Payload::GlobalSection(section) => self.items(section.count()),
            Payload::ExportSection(section) => self.items(section.count()),
            Payload::ElementSection(section) => self.items(section.count()),
            Payload::DataSection(section) => {
                self.data_segments = self.data_segments.saturating_add(section.count());
                at_most("data segments", self.data_segments, self.module().data_segments)
            }
            Payload::CodeSectionEntry(body) => self.body(&body),
            _ => Ok(()),
        }
    }

    fn memory(&mut self, memory: &MemoryType) -> Result<(), Refusal> {
        self.memory_type(memory)?;
        self.memories += 1;
        if self.memories > 1 {
            return Err(Refusal::Feature("several memories"));
        }
        self.memory_bytes_min = memory.initial.saturating_mul(WASM_PAGE_BYTES as u64);
        let what = "least memory in bytes";
        at_most(what, self.memory_bytes_min, self.limits.memory_bytes)
    }

    fn memory_type(&self, memory: &MemoryType) -> Result<(), Refusal> {
        if memory.memory64 {
            return Err(Refusal::Feature("64-bit memories"));
        }
        if memory.shared {
            return Err(Refusal::Feature("shared memories (threads)"));
        }
        if memory.page_size_log2.is_some() {
            return Err(Refusal::Feature("custom page sizes"));
        }
        Ok(())
    }

    fn table(&self, table: &TableType) -> Result<(), Refusal> {
        if table.table64 {
            return Err(Refusal::Feature("64-bit tables"));
        }
        if table.shared {
            return Err(Refusal::Feature("shared tables (threads)"));
        }
        at_most("least table elements", table.initial, self.limits.table_elements)
    }

    fn body(&self, body: &FunctionBody<'_>) -> Result<(), Refusal> {
        let limits = self.module();
        at_most("bytes of a function", body.range().len(), limits.body_bytes)?;
        let mut locals = 0u64;
        for local in body.get_locals_reader()? {
            locals += u64::from(local?.0);
            at_most("locals of a function", locals, limits.locals)?;
        }
        let mut depth = 0u32;
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            match operators.read()? {
                Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => {
                    depth += 1;
                    at_most("blocks inside blocks", depth, limits.block_depth)?;
                }
                Operator::TryTable { .. } | Operator::Try { .. } => {
                    return Err(Refusal::Feature("exceptions"));
                }
                Operator::End => depth = depth.saturating_sub(1),
                Operator::BrTable { targets } => {
                    at_most("targets of a br_table", targets.len(), limits.branch_targets)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Scan, Refusal> {
        let kind = self.world()?;
        Ok(Scan {
            kind,
            imports: self.imports,
            exports: self.exports.into_iter().map(|(name, _)| name).collect(),
            functions: self.functions,
            memory_bytes_min: self.memory_bytes_min,
        })
    }

    /// The world that the exports belong to, complete.
    fn world(&self) -> Result<Kind, Refusal> {
        let names: BTreeSet<&str> = self.exports.iter().map(|(name, _)| name.as_str()).collect();
        let has = |name: &&str| names.contains(*name);
        let mut worlds = Kind::ALL.into_iter().filter(|kind| kind.calls().iter().any(&has));
        let kind = worlds.next().ok_or(Refusal::NoWorld)?;
        if let Some(other) = worlds.next() {
            return Err(Refusal::TwoWorlds(kind, other));
        }
        let wanted = || ["describe", "configure"].iter().chain(kind.calls());
        if let Some(&name) = wanted().find(|name| !has(name)) {
            return Err(Refusal::MissingExport { kind, name });
        }
        let no_function = self
            .exports
            .iter()
            .find(|(name, external)| wanted().any(|wanted| wanted == name) && *external != ComponentExternalKind::Func);
        match no_function {
            Some((name, _)) => Err(Refusal::NotAFunction(name.clone())),
            None => Ok(kind),
        }
    }
}

/// Checks one import of the component: an interface of the contract, of a version that this host
/// can serve.
fn check_import(name: &str) -> Result<(), Refusal> {
    if name.starts_with("wasi:") {
        return Err(Refusal::NotGranted(name.to_owned()));
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

/// Whether this host serves plug-ins made for `version`: the same major, no newer minor.
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
    fn what_was_let_in_is_not_scanned_again_and_what_was_refused_is() {
        let scanned = Scanned::default();
        let limits = Limits::default();
        let digest = |number: usize| Digest::of(&number.to_le_bytes());
        let found = Scan { kind: Kind::Filter, imports: vec![], exports: vec![], functions: 1, memory_bytes_min: 0 };
        scanned.remember(digest(0), &found);
        assert_eq!(scanned.scan(&digest(0), b"not looked at", &limits), Ok(found.clone()));
        for _ in 0..2 {
            assert!(scanned.scan(&digest(1), b"no component", &limits).is_err());
        }
        let wordy = Scan { exports: vec!["x".repeat(REMEMBERED_NAMES_BYTES + 1)], ..found.clone() };
        scanned.remember(digest(2), &wordy);
        assert!(scanned.scan(&digest(2), b"", &limits).is_err(), "names take memory");
        (3..3 + REMEMBERED).for_each(|number| scanned.remember(digest(number), &found));
        assert!(scanned.scan(&digest(0), b"", &limits).is_err(), "the oldest is forgotten");
    }

    #[test]
    fn imports_are_named_when_refused() {
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
    fn what_is_not_a_component_is_named() {
        let refused = |bytes: &[u8]| scan(bytes, &Limits::default()).unwrap_err();
        assert_eq!(refused(b""), Refusal::NotWasm("the file is empty"));
        assert_eq!(refused(b"(module)"), Refusal::NotWasm("a text file"));
        assert_eq!(refused(b"\0asm\x01\0\0\0"), Refusal::CoreModule);
        assert!(matches!(refused(b"\x7fELF\x02"), Refusal::NotWasm(_)));
        assert!(matches!(refused(&[0xff; 64]), Refusal::NotWasm(_)));
        assert_eq!(refused(b"\0asm\x0d\0\x01\0"), Refusal::NoWorld);
    }
}
