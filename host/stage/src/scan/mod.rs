//! Reads a file before anything is compiled: is it a component, of a world of this contract, within its limits?
//! Compiling hostile modules is what does harm: 48 thousand locals, a million nested blocks or a hundred thousand
//! functions take seconds and gigabytes. A file that is rejected here costs one pass over its bytes.
//!
//! The scan measures everything that has a limit ([`Measure`]), and checks the binary format with only the features
//! that plug-ins may use. Then it checks imports and exports against the contract. It collects every reason to reject a
//! file.

mod measure;
mod refusal;
mod scanner;

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::contract::Kind;
use crate::limits::Limits;
use crate::plugin::Digest;

use self::scanner::Scanner;

pub use self::measure::{Figure, Measure};
pub use self::refusal::{Refusal, Refusals};

/// The interface of the contract that offers functions to a plug-in.
pub(crate) const HOST_INTERFACE: &str = "host";

/// The result of scanning a file that passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The world that the exports belong to.
    pub kind: Kind,
    /// The imports of the component.
    pub imports: Vec<String>,
    /// The exports of the component.
    pub exports: Vec<String>,
    /// The number of functions in all core modules.
    pub functions: u32,
    /// The linear memory that it starts with, in bytes.
    pub memory_bytes_min: u64,
}

/// All that a scan finds in a file, whether it passes or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The world that the exports belong to, if they belong to one.
    pub kind: Option<Kind>,
    /// The imports of the component; of a core module, as `MODULE.NAME`.
    pub imports: Vec<String>,
    /// The exports of the component.
    pub exports: Vec<String>,
    /// Everything that has a limit, as far as the file could be read.
    pub figures: Vec<Figure>,
    /// The reasons to reject the file. Empty if the scan passes it.
    pub refusals: Vec<Refusal>,
}

/// Scans the bytes of a file.
///
/// # Errors
/// [`Refusals`] has every reason. For a file over the size limit it has only the size, since the caller may have cut
/// it.
pub fn scan(bytes: &[u8], limits: &Limits) -> Result<Scan, Refusals> {
    let size = Figure::new(Measure::SizeBytes, bytes.len() as u64, limits);
    if let Some(refusal) = size.refusal() {
        return Err(Refusals::from(refusal));
    }
    let mut scanner = Scanner::new(limits, bytes);
    scanner.read();
    // Validating takes long for some modules that are over a limit.
    if scanner.is_good_so_far() {
        scanner.validate();
    }
    scanner.finish().into_scan()
}

/// Scans the bytes of a file for its author, and continues where [`scan`] would stop.
pub fn inspect(bytes: &[u8], limits: &Limits) -> Inspection {
    let mut scanner = Scanner::new(limits, bytes);
    scanner.read();
    // The validator would report an unsupported feature a second time.
    if scanner.is_readable() && !scanner.has_unsupported_feature() {
        scanner.validate();
    }
    scanner.finish()
}

impl Inspection {
    /// Returns the value of one measure.
    pub fn figure(&self, measure: Measure) -> u64 {
        self.figures.iter().find(|figure| figure.measure == measure).map_or(0, |figure| figure.have)
    }

    fn into_scan(self) -> Result<Scan, Refusals> {
        let functions = u32::try_from(self.figure(Measure::Functions)).unwrap_or(u32::MAX);
        let memory_bytes_min = self.figure(Measure::MemoryBytesMin);
        match (self.kind, Refusals::new(self.refusals)) {
            (_, Some(refusals)) => Err(refusals),
            (None, None) => Err(Refusals::from(Refusal::NoWorld)),
            (Some(kind), None) => {
                Ok(Scan { kind, imports: self.imports, exports: self.exports, functions, memory_bytes_min })
            }
        }
    }
}

/// The number of components that are remembered, and the most bytes of names that one may have.
const REMEMBERED: usize = 256;
const REMEMBERED_NAMES_BYTES: usize = 4 << 10;

/// Remembers the components that passed the scan of one engine, whose limits never change. A version that is activated
/// again need not be scanned again: its compiled code comes from the cache in less time.
#[derive(Debug, Default)]
pub(crate) struct Scanned(Mutex<VecDeque<(Digest, Scan)>>);

impl Scanned {
    /// Calls [`scan`], unless bytes with this digest passed before. The digest must be that of `bytes`.
    pub(crate) fn scan(&self, digest: &Digest, bytes: &[u8], limits: &Limits) -> Result<Scan, Refusals> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rejected_files_are_scanned_again() {
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
    fn other_files_than_components_are_named() {
        let refused = |bytes: &[u8]| scan(bytes, &Limits::default()).unwrap_err().first().clone();
        assert_eq!(refused(b""), Refusal::NotWasm("the file is empty"));
        assert_eq!(refused(b"(module)"), Refusal::NotWasm("a text file"));
        assert_eq!(refused(b"\0asm\x01\0\0\0"), Refusal::CoreModule);
        assert!(matches!(refused(b"\x7fELF\x02"), Refusal::NotWasm(_)));
        assert!(matches!(refused(&[0xff; 64]), Refusal::NotWasm(_)));
        assert_eq!(refused(b"\0asm\x0d\0\x01\0"), Refusal::NoWorld);
    }
    #[test]
    fn a_file_is_rejected_for_every_reason() {
        let text = r#"(component
            (import "wasi:clocks/wall-clock@0.2.0" (instance))
            (import "acme:db/query@1.0.0" (instance))
            (core module
                (memory 300)
                (table 20000 funcref)
                (func (local i32)))
            (core module (memory 1)))"#;
        let bytes = wat::parse_str(text).unwrap();
        let limits = Limits { memory_bytes: 1 << 20, ..Limits::default() };
        let figure = |measure, have| Refusal::TooLarge(Figure::new(measure, have, &limits));
        let expected = [
            figure(Measure::MemoryBytesMin, 300 << 16),
            figure(Measure::TableElementsMin, 20_000),
            Refusal::Wasi("wasi:clocks/wall-clock@0.2.0".to_owned()),
            Refusal::UnknownImport("acme:db/query@1.0.0".to_owned()),
            Refusal::Feature("several memories with pages"),
            Refusal::NoWorld,
        ];
        let refusals = scan(&bytes, &limits).unwrap_err();
        assert!(refusals.iter().eq(&expected), "{refusals}");
        let text = refusals.to_string();
        assert!(text.contains("19660800 is over the limit of 1048576"), "{text}");
        assert!(text.ends_with("; and 2 more (`millstream plugin inspect` lists all)"), "{text}");
        let found = inspect(&bytes, &limits);
        assert_eq!(found.refusals, expected);
        assert_eq!((found.figure(Measure::Parts), found.figure(Measure::Locals)), (3, 1));
    }

    #[test]
    fn a_file_over_the_size_limit_is_still_inspected() {
        let mut limits = Limits::default();
        let bytes = wat::parse_str("(component (core module (memory 1 1 shared)))").unwrap();
        limits.module.size_bytes = bytes.len() - 1;
        let too_large = Refusal::TooLarge(Figure::new(Measure::SizeBytes, bytes.len() as u64, &limits));
        assert_eq!(scan(&bytes, &limits), Err(Refusals::from(too_large.clone())));
        let found = inspect(&bytes, &limits).refusals;
        assert_eq!(found, [too_large, Refusal::Feature("shared memories (threads)"), Refusal::NoWorld]);
    }

    #[test]
    fn a_core_module_is_inspected_too() {
        let module = r#"(module (import "wasi_snapshot_preview1" "fd_write" (func)) (func) (func))"#;
        let found = inspect(&wat::parse_str(module).unwrap(), &Limits::default());
        assert_eq!(found.refusals, [Refusal::CoreModule]);
        assert_eq!(
            (found.figure(Measure::Functions), &found.imports[..]),
            (2, &["wasi_snapshot_preview1.fd_write".to_owned()][..])
        );
    }
}
