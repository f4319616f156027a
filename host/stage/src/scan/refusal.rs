//! The reasons to reject a file.

use std::fmt;

use wasmparser::BinaryReaderError;

use super::Figure;
use crate::contract::{Kind, PACKAGE};

/// A reason why a file is not a plug-in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Not WebAssembly at all.
    #[error("not WebAssembly: {0}")]
    NotWasm(&'static str),
    /// A core module; plug-ins are components.
    #[error("a core WebAssembly module, not a component: make it one with `millstream plugin adapt FILE -o COMPONENT`")]
    CoreModule,
    /// Bytes that end early, make no sense, or use a feature that plug-ins may not use.
    #[error("invalid at byte {offset}: {problem}")]
    Invalid {
        /// The position in the file.
        offset: usize,
        /// What is wrong there.
        problem: String,
    },
    /// A limit is exceeded.
    #[error("{0}")]
    TooLarge(Figure),
    /// A feature of WebAssembly that plug-ins may not use.
    #[error("uses {0}, which plug-ins may not use: {advice}", advice = feature_advice(.0))]
    Feature(&'static str),
    /// An import that this host does not know.
    #[error(
        "imports `{0}`, which this host does not offer: a plug-in may only import {PACKAGE}/host{advice}",
        advice = import_advice(.0)
    )]
    UnknownImport(String),
    /// An import of WASI: files, network, clocks, random numbers.
    #[error(
        "imports `{0}`: a plug-in has no access to files, network, clocks or random numbers; give the core module to \
         `millstream plugin adapt`, not to another adapter (C, Go), or pass --stub-wasi (JavaScript, Python)"
    )]
    Wasi(String),
    /// An export of the contract is missing.
    #[error("lacks the export `{name}`, which every {kind} has")]
    MissingExport {
        /// The world that the other exports belong to.
        kind: Kind,
        /// The function.
        name: &'static str,
    },
    /// No export belongs to any world.
    #[error("exports no function of a partitioner, serializer, compressor or filter")]
    NoWorld,
    /// Exports that belong to several worlds.
    #[error("exports the functions of a {0} and of a {1}: a plug-in has one kind")]
    TwoWorlds(Kind, Kind),
    /// An export has the right name, but is not a function.
    #[error("the export `{0}` is not a function")]
    NotAFunction(String),
    /// Built for another version of the contract.
    #[error("built for {PACKAGE}@{theirs}, but this host offers {PACKAGE}@{ours}: build it again")]
    OtherVersion {
        /// The version that it was built for.
        theirs: String,
        /// The version that this host offers.
        ours: String,
    },
}

/// Returns what to do about a feature.
fn feature_advice(feature: &str) -> &'static str {
    if feature.contains("memories with pages") {
        return "link the modules to one, or give all but one a memory of no pages";
    }
    match feature {
        "exceptions" => "compile without exceptions, such as with -fno-exceptions",
        "a start function of the component" => "start from `configure`",
        _ => "compile for 32-bit WebAssembly 2.0 with SIMD, without newer features",
    }
}

/// Returns what else to do about an import that is not offered.
fn import_advice(name: &str) -> &'static str {
    match name.split_once('.') {
        Some(("env", "abort")) => "; compile with `--use abort=` (AssemblyScript)",
        Some(("env", _)) => "; link the library that defines it",
        _ => "",
    }
}

impl From<BinaryReaderError> for Refusal {
    fn from(error: BinaryReaderError) -> Refusal {
        Refusal::Invalid { offset: error.offset(), problem: error.message().to_owned() }
    }
}

/// The number of reasons that one line of text names.
const SHOWN: usize = 4;

/// All reasons why a file is not a plug-in; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusals {
    first: Refusal,
    others: Vec<Refusal>,
}

impl Refusals {
    /// Returns `None` if there are no reasons.
    pub(crate) fn new(refusals: Vec<Refusal>) -> Option<Refusals> {
        let mut refusals = refusals.into_iter();
        refusals.next().map(|first| Refusals { first, others: refusals.collect() })
    }

    /// Returns the first reason.
    pub fn first(&self) -> &Refusal {
        &self.first
    }

    /// Returns every reason.
    pub fn iter(&self) -> impl Iterator<Item = &Refusal> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl From<Refusal> for Refusals {
    fn from(first: Refusal) -> Refusals {
        Refusals { first, others: Vec::new() }
    }
}

impl fmt::Display for Refusals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.first)?;
        for other in self.others.iter().take(SHOWN - 1) {
            write!(formatter, "; {other}")?;
        }
        match self.others.len().saturating_sub(SHOWN - 1) {
            0 => Ok(()),
            more => write!(formatter, "; and {more} more (`millstream plugin inspect` lists all)"),
        }
    }
}

impl std::error::Error for Refusals {}
