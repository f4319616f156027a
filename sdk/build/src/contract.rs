//! The contract between host and plug-in, for builds.

use anyhow::{Context, Result};
use wit_parser::{Resolve, WorldId};

/// The contract as text.
pub(crate) const TEXT: &str = include_str!("../../wit/1.0.0/stage.wit");

/// The kinds of stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Chooses the partition of each record.
    Partitioner,
    /// Changes keys and values.
    Serializer,
    /// Makes batches smaller.
    Compressor,
    /// Decides which records to keep.
    Filter,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 4] = [Kind::Partitioner, Kind::Serializer, Kind::Compressor, Kind::Filter];

    /// Returns its name, which is that of its world.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Partitioner => "partitioner",
            Kind::Serializer => "serializer",
            Kind::Compressor => "compressor",
            Kind::Filter => "filter",
        }
    }

    /// Returns the functions that only this kind exports.
    pub(crate) fn calls(self) -> &'static [&'static str] {
        match self {
            Kind::Partitioner => &["partition"],
            Kind::Serializer => &["serialize", "deserialize"],
            Kind::Compressor => &["compress", "decompress"],
            Kind::Filter => &["filter"],
        }
    }
}

/// Returns the world of a kind.
pub(crate) fn world(kind: Kind) -> Result<(Resolve, WorldId)> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("stage.wit", TEXT).context("the contract does not parse")?;
    let world = resolve.select_world(&[package], Some(kind.name()))?;
    Ok((resolve, world))
}
