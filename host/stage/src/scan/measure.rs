//! The properties of a file that have a limit.

use std::fmt;

use super::Refusal;
use crate::limits::Limits;

/// A property of a file that has a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Measure {
    /// The size of the file.
    SizeBytes,
    /// Functions in all core modules together.
    Functions,
    /// The body of the largest function.
    BodyBytes,
    /// The most locals of a function.
    Locals,
    /// The deepest nesting of blocks.
    BlockDepth,
    /// The most targets of a `br_table`.
    BranchTargets,
    /// Data segments in all core modules together.
    DataSegments,
    /// Custom sections together: names and debug information.
    CustomBytes,
    /// Core modules, nested components and instances of either.
    Parts,
    /// Types, imports, exports, aliases and canonical functions.
    Items,
    /// The linear memory that it starts with.
    MemoryBytesMin,
    /// The elements that its largest table starts with.
    TableElementsMin,
}

impl Measure {
    /// Every measure, in the order in which they are shown.
    pub const ALL: [Measure; 12] = [
        Measure::SizeBytes,
        Measure::Functions,
        Measure::BodyBytes,
        Measure::Locals,
        Measure::BlockDepth,
        Measure::BranchTargets,
        Measure::DataSegments,
        Measure::CustomBytes,
        Measure::Parts,
        Measure::Items,
        Measure::MemoryBytesMin,
        Measure::TableElementsMin,
    ];

    /// Returns its name, with its unit.
    pub fn name(self) -> &'static str {
        match self {
            Measure::SizeBytes => "file size in bytes",
            Measure::Functions => "functions",
            Measure::BodyBytes => "largest function in bytes",
            Measure::Locals => "most locals of a function",
            Measure::BlockDepth => "deepest nesting of blocks",
            Measure::BranchTargets => "most targets of a br_table",
            Measure::DataSegments => "data segments",
            Measure::CustomBytes => "custom sections in bytes",
            Measure::Parts => "modules, components and instances",
            Measure::Items => "types, imports, exports and aliases",
            Measure::MemoryBytesMin => "initial memory in bytes",
            Measure::TableElementsMin => "initial table elements",
        }
    }

    /// Returns its key in JSON.
    pub fn key(self) -> &'static str {
        match self {
            Measure::SizeBytes => "size_bytes",
            Measure::Functions => "functions",
            Measure::BodyBytes => "body_bytes",
            Measure::Locals => "locals",
            Measure::BlockDepth => "block_depth",
            Measure::BranchTargets => "branch_targets",
            Measure::DataSegments => "data_segments",
            Measure::CustomBytes => "custom_bytes",
            Measure::Parts => "parts",
            Measure::Items => "items",
            Measure::MemoryBytesMin => "memory_bytes_min",
            Measure::TableElementsMin => "table_elements_min",
        }
    }

    /// Returns what an author can do about a value over the limit, whatever the language.
    fn advice(self) -> Option<&'static str> {
        match self {
            Measure::CustomBytes => Some("strip the debug information"),
            Measure::DataSegments => Some("merge neighbouring segments"),
            Measure::MemoryBytesMin => Some("it includes the stack: give the linker a smaller stack size"),
            _ => None,
        }
    }

    /// Returns its limit.
    pub fn max(self, limits: &Limits) -> u64 {
        let module = &limits.module;
        match self {
            Measure::SizeBytes => module.size_bytes as u64,
            Measure::Functions => module.functions.into(),
            Measure::BodyBytes => module.body_bytes as u64,
            Measure::Locals => module.locals.into(),
            Measure::BlockDepth => module.block_depth.into(),
            Measure::BranchTargets => module.branch_targets.into(),
            Measure::DataSegments => module.data_segments.into(),
            Measure::CustomBytes => module.custom_bytes as u64,
            Measure::Parts => module.parts.into(),
            Measure::Items => module.items.into(),
            Measure::MemoryBytesMin => limits.memory_bytes as u64,
            Measure::TableElementsMin => limits.table_elements as u64,
        }
    }
}

/// The value of one measure in a file, and its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figure {
    /// What was measured.
    pub measure: Measure,
    /// The value in the file.
    pub have: u64,
    /// The limit.
    pub max: u64,
}

impl Figure {
    pub(crate) fn new(measure: Measure, have: u64, limits: &Limits) -> Figure {
        Figure { measure, have, max: measure.max(limits) }
    }

    /// Returns the reason to reject the file, if it is over the limit.
    pub(crate) fn refusal(self) -> Option<Refusal> {
        (self.have > self.max).then_some(Refusal::TooLarge(self))
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {} is over the limit of {}", self.measure.name(), self.have, self.max)?;
        match self.measure.advice() {
            Some(advice) => write!(formatter, " ({advice})"),
            None => Ok(()),
        }
    }
}
