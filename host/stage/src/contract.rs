//! Defines the types of the stage contract (`sdk/wit/1.0.0/stage.wit`) for the host: descriptions and errors. Columns
//! are in [`crate::batch`].
//!
//! The types derive wasmtime's conversions directly, so that a call copies between guest and host once.

#![allow(unsafe_code, reason = "the derive macros expand to `unsafe impl`s, whose layout they check themselves")]

use std::fmt;
use std::str::FromStr;

use wasmtime::component::{ComponentType, Lift, Lower};

/// The package that every world of the contract belongs to.
pub const PACKAGE: &str = "millstream:stage";

/// The version of the contract that this host offers.
pub const VERSION: (u64, u64, u64) = (1, 0, 0);

/// The world that a plug-in implements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ComponentType, Lift, Lower)]
#[component(enum)]
#[repr(u8)]
pub enum Kind {
    /// Maps every row to a partition.
    #[component(name = "partitioner")]
    Partitioner,
    /// Makes new keys and values for every row, when it is produced and when it is consumed.
    #[component(name = "serializer")]
    Serializer,
    /// Compresses the records of a batch.
    #[component(name = "compressor")]
    Compressor,
    /// Decides which rows to keep.
    #[component(name = "filter")]
    Filter,
}

impl Kind {
    /// All kinds, in the order of the contract.
    pub const ALL: [Kind; 4] = [Kind::Partitioner, Kind::Serializer, Kind::Compressor, Kind::Filter];

    /// Returns the name of the world in the contract. The command line uses it too.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Partitioner => "partitioner",
            Kind::Serializer => "serializer",
            Kind::Compressor => "compressor",
            Kind::Filter => "filter",
        }
    }

    /// Returns the functions that a component of this world exports, besides `describe` and `configure`.
    pub fn calls(self) -> &'static [&'static str] {
        match self {
            Kind::Partitioner => &["partition"],
            Kind::Serializer => &["serialize", "deserialize"],
            Kind::Compressor => &["compress", "decompress"],
            Kind::Filter => &["filter"],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// A text that does not name a kind of stage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a kind of stage: use partitioner, serializer, compressor or filter")]
pub struct KindError(String);

impl FromStr for Kind {
    type Err = KindError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Kind::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| KindError(text.to_owned()))
    }
}

/// The columns that a stage reads. The host copies no others to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Columns {
    /// Reads the records' timestamps.
    pub timestamps: bool,
    /// Reads the records' keys.
    pub keys: bool,
    /// Reads the records' values.
    pub values: bool,
    /// Reads the records' headers.
    pub headers: bool,
}

impl Columns {
    /// Every column.
    pub const ALL: Columns = Columns { timestamps: true, keys: true, values: true, headers: true };

    /// No column: the stage only needs the number of rows.
    pub const NONE: Columns = Columns { timestamps: false, keys: false, values: false, headers: false };

    /// Returns the columns that either of two stages reads.
    #[must_use]
    pub fn union(self, other: Columns) -> Columns {
        Columns {
            timestamps: self.timestamps || other.timestamps,
            keys: self.keys || other.keys,
            values: self.values || other.values,
            headers: self.headers || other.headers,
        }
    }
}

impl fmt::Display for Columns {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named =
            [(self.timestamps, "timestamps"), (self.keys, "keys"), (self.values, "values"), (self.headers, "headers")];
        let names: Vec<&str> = named.iter().filter(|(read, _)| *read).map(|(_, name)| *name).collect();
        if names.is_empty() { formatter.pad("none") } else { formatter.pad(&names.join(", ")) }
    }
}

/// The format that a compressor writes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, ComponentType, Lift, Lower)]
#[component(variant)]
pub enum Format {
    /// Kafka's codec 1.
    #[component(name = "gzip")]
    Gzip,
    /// Kafka's codec 2.
    #[component(name = "snappy")]
    Snappy,
    /// Kafka's codec 3.
    #[component(name = "lz4")]
    Lz4,
    /// Kafka's codec 4.
    #[component(name = "zstd")]
    Zstd,
    /// A format that only the plug-in reads, by name.
    #[component(name = "private")]
    Private(String),
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Format::Gzip => "gzip",
            Format::Snappy => "snappy",
            Format::Lz4 => "lz4",
            Format::Zstd => "zstd",
            Format::Private(name) => name,
        })
    }
}

/// The description that a plug-in gives of itself, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The name: at most 64 letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// The version, such as `1.2.0`: characters as in the name, and `+`.
    pub version: String,
    /// The world that it implements.
    pub kind: Kind,
    /// The columns that it reads.
    pub columns: Columns,
    /// The format that it writes, if it is a compressor.
    pub format: Option<Format>,
}

pub(crate) use raw::RawColumns;

#[allow(missing_docs, unreachable_pub, reason = "the macro makes public items without docs, which stay in this crate")]
mod raw {
    wasmtime::component::flags! {
        RawColumns {
            #[component(name = "timestamps")]
            const TIMESTAMPS;
            #[component(name = "keys")]
            const KEYS;
            #[component(name = "values")]
            const VALUES;
            #[component(name = "headers")]
            const HEADERS;
        }
    }
}

impl From<RawColumns> for Columns {
    fn from(raw: RawColumns) -> Columns {
        let reads = |column: RawColumns| raw & column == column;
        Columns {
            timestamps: reads(RawColumns::TIMESTAMPS),
            keys: reads(RawColumns::KEYS),
            values: reads(RawColumns::VALUES),
            headers: reads(RawColumns::HEADERS),
        }
    }
}

/// The response of `describe`, not checked yet.
#[derive(Debug, Clone, ComponentType, Lift)]
#[component(record)]
pub(crate) struct RawDescription {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) kind: Kind,
    pub(crate) columns: RawColumns,
    pub(crate) format: Option<Format>,
}

/// The response of `configure` that rejects a configuration.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lift)]
#[component(record)]
pub(crate) struct ConfigError {
    pub(crate) field: String,
    pub(crate) message: String,
}

/// A row that a stage rejects.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lift)]
#[component(record)]
pub struct RowError {
    /// The row in the batch, from 0.
    pub row: u32,
    /// The plug-in's message.
    pub message: String,
}

/// The error that a stage returns.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lift)]
#[component(variant)]
pub(crate) enum GuestError {
    #[component(name = "rows")]
    Rows(Vec<RowError>),
    #[component(name = "batch")]
    Batch(String),
}

/// The level of a line in a plug-in's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
pub enum Level {
    /// A failure.
    #[component(name = "error")]
    Error,
    /// A warning.
    #[component(name = "warn")]
    Warn,
    /// Information.
    #[component(name = "info")]
    Info,
    /// Details for debugging.
    #[component(name = "debug")]
    Debug,
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        })
    }
}
