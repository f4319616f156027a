//! The errors of plug-ins. An error names the plug-in, its version and the row, if one is to blame. It is logged where
//! it is handled, not here.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::activation::ActivationError;
use crate::contract::{Kind, RowError};
use crate::engine::EngineError;
use crate::plugin::{DescriptionError, Plugin};
use crate::scan::Refusals;
use crate::source::{FetchError, VersionName};
use crate::spec::SpecError;

/// Reports that a stage failed: in a call, in its configuration or at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageError {
    /// The plug-in's name.
    pub plugin: Arc<str>,
    /// The version that the plug-in states.
    pub version: Arc<str>,
    /// The number of the version in a store, if it has one.
    pub number: Option<u32>,
    /// What went wrong.
    pub fault: Fault,
}

impl StageError {
    /// Makes the error of a version.
    pub fn of(plugin: &Plugin, fault: Fault) -> StageError {
        let (name, version) = (Arc::clone(plugin.shared_name()), Arc::clone(plugin.shared_version()));
        StageError { plugin: name, version, number: plugin.number(), fault }
    }

    /// Returns the version for display.
    pub fn version_name(&self) -> VersionName<'_> {
        VersionName { plugin: &self.plugin, version: &self.version, number: self.number }
    }

    /// Returns the rows to blame, in order. Empty if the fault is about the whole batch.
    pub fn rows(&self) -> Vec<u32> {
        match &self.fault {
            Fault::Rows(rows) => rows.iter().map(|bad| bad.row).collect(),
            Fault::BadResponse { row: Some(row), .. } => vec![*row],
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for StageError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "stage {}: {}", self.version_name(), self.fault)
    }
}

impl std::error::Error for StageError {}

/// The fault of a stage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The stage rejects these rows, and no others.
    #[error("{}", describe_rows(.0))]
    Rows(Vec<RowError>),
    /// The stage rejects the whole batch.
    #[error("the batch was rejected: {0}")]
    Batch(String),
    /// The stage rejects its configuration.
    #[error("bad configuration{}: {message}", describe_field(.field))]
    Config {
        /// A JSON Pointer (RFC 6901) to the wrong field; empty for the whole configuration.
        field: String,
        /// The plug-in's message.
        message: String,
    },
    /// The guest trapped in a call.
    #[error("trapped in `{call}`: {reason}")]
    Trap {
        /// The call of the contract that was running.
        call: &'static str,
        /// The kind of trap, and what the plug-in logged.
        reason: String,
    },
    /// The guest used up its stack.
    #[error("call stack exhausted in `{call}` (limit {limit_bytes} bytes)")]
    Stack {
        /// The call of the contract that was running.
        call: &'static str,
        /// The limit that was exceeded.
        limit_bytes: usize,
    },
    /// The call ran too long.
    #[error("`{call}` ran longer than its deadline of {} ms", .limit.as_millis())]
    Deadline {
        /// The call of the contract that was running.
        call: &'static str,
        /// The limit that was exceeded.
        limit: Duration,
    },
    /// The guest asked for more memory than its limit, and then failed.
    #[error("out of memory in `{call}` (limit {limit_bytes} bytes)")]
    Memory {
        /// The call of the contract that was running.
        call: &'static str,
        /// The limit that was exceeded.
        limit_bytes: usize,
    },
    /// The response breaks the contract.
    #[error("bad response of `{call}`{}: {problem}", describe_row(.row))]
    BadResponse {
        /// The call of the contract that returned it.
        call: &'static str,
        /// The first row that is wrong.
        row: Option<u32>,
        /// What is wrong.
        problem: String,
    },
    /// The response is larger than its limit. It was not copied.
    #[error("the response of `{call}` is larger than its limit of {max_bytes} bytes")]
    ResponseTooLarge {
        /// The call of the contract that returned it.
        call: &'static str,
        /// The limit.
        max_bytes: usize,
    },
    /// Compressed bytes do not decompress to the bytes before.
    #[error("the compressed batch does not decompress to the same bytes: {problem}")]
    Lossy {
        /// The difference.
        problem: String,
    },
    /// The input does not fit the guest's memory. Split the batch.
    #[error("a batch of {bytes} bytes does not fit the plug-in's memory of {max_bytes} bytes")]
    InputTooLarge {
        /// The size of the batch.
        bytes: usize,
        /// The memory of the guest.
        max_bytes: usize,
    },
    /// The caller left out a column that the stage reads, or passed it with another number of rows.
    #[error("the batch lacks the column `{column}`, which the stage reads")]
    ColumnMissing {
        /// The column.
        column: &'static str,
    },
    /// The stage is of another kind than the call or the new version.
    #[error("is a {have}, not a {want}")]
    WrongKind {
        /// The kind that it is.
        have: Kind,
        /// The kind that is expected.
        want: Kind,
    },
    /// Too many instances run at once on this host.
    #[error("too many instances run at once: the limit is {0}")]
    Exhausted(u32),
}

impl Fault {
    /// Returns whether the guest misbehaved. Its instance is then thrown away.
    pub fn is_trap(&self) -> bool {
        match self {
            Fault::Rows(_)
            | Fault::Batch(_)
            | Fault::Config { .. }
            | Fault::InputTooLarge { .. }
            | Fault::ColumnMissing { .. }
            | Fault::WrongKind { .. }
            | Fault::Exhausted(_) => false,
            Fault::Trap { .. }
            | Fault::Stack { .. }
            | Fault::Deadline { .. }
            | Fault::Memory { .. }
            | Fault::BadResponse { .. }
            | Fault::ResponseTooLarge { .. }
            | Fault::Lossy { .. } => true,
        }
    }

    /// Returns whether a row of the batch may be to blame, so that it makes sense to search for it.
    pub fn is_about_rows(&self) -> bool {
        match self {
            Fault::Rows(_) | Fault::Batch(_) | Fault::InputTooLarge { .. } | Fault::Lossy { .. } => true,
            Fault::Config { .. } | Fault::ColumnMissing { .. } | Fault::WrongKind { .. } | Fault::Exhausted(_) => false,
            Fault::Trap { call, .. }
            | Fault::Stack { call, .. }
            | Fault::Deadline { call, .. }
            | Fault::Memory { call, .. }
            | Fault::BadResponse { call, .. }
            | Fault::ResponseTooLarge { call, .. } => !matches!(*call, "instantiate" | "configure"),
        }
    }
}

fn describe_rows(rows: &[RowError]) -> String {
    match rows {
        [] => "no row is named".to_owned(),
        [bad] => format!("row {}: {}", bad.row, bad.message),
        [bad, rest @ ..] => {
            let others = rest.len();
            format!("row {}: {} (and {others} more rows)", bad.row, bad.message)
        }
    }
}

fn describe_field(field: &str) -> String {
    if field.is_empty() { String::new() } else { format!(" at `{field}`") }
}

fn describe_row(row: &Option<u32>) -> String {
    row.map_or_else(String::new, |row| format!(" at row {row}"))
}

/// Reports that a plug-in cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The scan rejects it, before it is compiled.
    #[error(transparent)]
    Refused(#[from] Refusals),
    /// The compiler rejects it.
    #[error("does not compile: {0}")]
    Compile(String),
    /// The engine for it cannot be started.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The compiler took too long or too much memory and was killed.
    #[error("the compiler was stopped: {0}")]
    CompilerKilled(String),
    /// The child process that compiles cannot be run.
    #[error("cannot run the compiler {}: {source}", .program.display())]
    CompilerMissing {
        /// The program.
        program: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// An import or export has another type than the contract's.
    #[error("does not fit the contract: {0}")]
    Contract(String),
    /// It fails while it is started or describes itself.
    #[error("does not start: {0}")]
    Start(Fault),
    /// Its description of itself is not acceptable.
    #[error("bad description: {0}")]
    Description(#[from] DescriptionError),
    /// The file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A stored version cannot be fetched.
    #[error("cannot fetch its bytes: {0}")]
    Fetch(#[from] FetchError),
    /// The bytes have another digest than expected.
    #[error("the digest is {have}, not {want}")]
    Digest {
        /// The digest of the bytes, in hexadecimal.
        have: String,
        /// The expected digest, in hexadecimal.
        want: String,
    },
}

/// Reports that a version cannot be activated.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// It cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A stage that would use it rejects it.
    #[error(transparent)]
    Refused(#[from] ActivationError),
}

/// Reports that a stage cannot be started from its specification.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The specification is not valid.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// No plug-in has that name.
    #[error("there is no plug-in `{name}`; known plug-ins: {known}")]
    Unknown {
        /// The name.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// The plug-in has versions, but none is active.
    #[error("no version of plug-in `{name}` is active: activate one, or pin one as in `{name}@{known}`")]
    Inactive {
        /// The plug-in.
        name: String,
        /// The newest of its versions.
        known: u32,
    },
    /// The plug-in does not have that version.
    #[error("plug-in `{name}` has no version {wanted}; it has: {known}")]
    Version {
        /// The plug-in.
        name: String,
        /// The version.
        wanted: String,
        /// The versions that exist.
        known: String,
    },
    /// The plug-in has another kind.
    #[error("`{spec}` is a {have}, but a {want} is needed here")]
    WrongKind {
        /// The specification of the stage.
        spec: String,
        /// The kind that it is.
        have: Kind,
        /// The kind that is expected.
        want: Kind,
    },
    /// The plug-in cannot be loaded.
    #[error("plug-in `{plugin}`: {source}")]
    Load {
        /// The name or file.
        plugin: String,
        /// The reason.
        source: LoadError,
    },
    /// The stage does not start with this configuration.
    #[error(transparent)]
    Start(#[from] StageError),
}
