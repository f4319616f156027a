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
    /// Instances of core modules.
    CoreInstances,
    /// Memories, with pages and without.
    Memories,
    /// Types, imports, exports, aliases and canonical functions.
    Items,
    /// The linear memory that it starts with.
    MemoryBytesMin,
    /// The elements that its largest table starts with.
    TableElementsMin,
}

impl Measure {
    /// Every measure, in the order in which they are shown.
    pub const ALL: [Measure; 14] = [
        Measure::SizeBytes,
        Measure::Functions,
        Measure::BodyBytes,
        Measure::Locals,
        Measure::BlockDepth,
        Measure::BranchTargets,
        Measure::DataSegments,
        Measure::CustomBytes,
        Measure::Parts,
        Measure::CoreInstances,
        Measure::Memories,
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
            Measure::CoreInstances => "core instances",
            Measure::Memories => "memories",
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
            Measure::CoreInstances => "core_instances",
            Measure::Memories => "memories",
            Measure::Items => "items",
            Measure::MemoryBytesMin => "memory_bytes_min",
            Measure::TableElementsMin => "table_elements_min",
        }
    }

    /// Returns what an author can do about a value over the limit, whatever the language.
    fn advice(self) -> &'static str {
        match self {
            Measure::SizeBytes | Measure::Functions | Measure::BodyBytes => {
                "optimise for size, or leave out what is not used"
            }
            Measure::Locals | Measure::BlockDepth | Measure::BranchTargets => "split the function",
            Measure::CustomBytes => "strip the debug information",
            Measure::DataSegments => "merge neighbouring segments: `millstream plugin adapt` does",
            Measure::Parts | Measure::CoreInstances | Measure::Memories => {
                "link the modules to one before they become a component"
            }
            Measure::Items => "leave out what the contract does not need",
            Measure::MemoryBytesMin => {
                "it includes the stack: give the linker a smaller one, such as -z stack-size=65536"
            }
            Measure::TableElementsMin => "leave out functions that are only called by address",
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
            Measure::CoreInstances => module.core_instances.into(),
            Measure::Memories => module.memories.into(),
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

    /// Returns whether the profile `large` allows the value, and this limit does not.
    fn fits_large(self) -> bool {
        (self.max + 1..=self.measure.max(&Limits::large())).contains(&self.have)
    }

    /// Returns the reason to reject the file, if it is over the limit.
    pub(crate) fn refusal(self) -> Option<Refusal> {
        (self.have > self.max).then_some(Refusal::TooLarge(self))
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figure { measure, have, max } = self;
        write!(formatter, "{}: {have} is over the limit of {max} ({})", measure.name(), measure.advice())?;
        if self.fits_large() {
            write!(formatter, "; the profile `large` allows it")?;
        }
        Ok(())
    }
}
