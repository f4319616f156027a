//! What can go wrong with a plug-in, typed. An error names the plug-in, its version and, where there
//! is one, the row; it is logged where it is handled, not here.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::activation::ActivationError;
use crate::contract::{Kind, RowError};
use crate::engine::EngineError;
use crate::plugin::Plugin;
use crate::scan::Refusal;
use crate::source::VersionName;
use crate::spec::SpecError;

/// A stage failed: a call, its configuration or its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageError {
    /// The plug-in's name.
    pub plugin: Arc<str>,
    /// The plug-in's version, in its own words.
    pub version: Arc<str>,
    /// Its number in a store, if it has one.
    pub number: Option<u32>,
    /// What went wrong.
    pub fault: Fault,
}

impl StageError {
    /// A fault of this version.
    pub fn of(plugin: &Plugin, fault: Fault) -> StageError {
        let (name, version) = (Arc::clone(plugin.shared_name()), Arc::clone(plugin.shared_version()));
        StageError { plugin: name, version, number: plugin.number(), fault }
    }

    /// The version as it is shown.
    pub fn version_name(&self) -> VersionName<'_> {
        VersionName { plugin: &self.plugin, version: &self.version, number: self.number }
    }

    /// The rows that the fault is about, in order; empty when it is about the whole batch.
    pub fn rows(&self) -> Vec<u32> {
        match &self.fault {
            Fault::Rows(rows) => rows.iter().map(|bad| bad.row).collect(),
            Fault::BadAnswer { row: Some(row), .. } => vec![*row],
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

/// What a stage did wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The stage calls these rows bad, and no others.
    #[error("{}", describe_rows(.0))]
    Rows(Vec<RowError>),
    /// The stage refuses the whole batch.
    #[error("the batch was refused: {0}")]
    Batch(String),
    /// The stage refuses its configuration.
    #[error("bad configuration{}: {message}", describe_field(.field))]
    Config {
        /// A JSON Pointer (RFC 6901); empty for the whole.
        field: String,
        /// What is wrong, in the plug-in's words.
        message: String,
    },
    /// The guest trapped in a call.
    #[error("trapped in `{call}`: {reason}")]
    Trap {
        /// The call of the contract that was running.
        call: &'static str,
        /// What the trap was.
        reason: String,
    },
    /// The guest's stack is used up.
    #[error("call stack exhausted in `{call}` (limit {limit_bytes} bytes)")]
    Stack {
        /// The call of the contract that was running.
        call: &'static str,
        /// The limit that was passed.
        limit_bytes: usize,
    },
    /// The call ran for too long.
    #[error("`{call}` ran longer than its deadline of {} ms", .limit.as_millis())]
    Deadline {
        /// The call of the contract that was running.
        call: &'static str,
        /// The limit that was passed.
        limit: Duration,
    },
    /// The guest asked for more memory than it may have, and failed for want of it.
    #[error("out of memory in `{call}` (limit {limit_bytes} bytes)")]
    Memory {
        /// The call of the contract that was running.
        call: &'static str,
        /// The limit that was passed.
        limit_bytes: usize,
    },
    /// The answer breaks the contract.
    #[error("bad answer from `{call}`{}: {problem}", describe_row(.row))]
    BadAnswer {
        /// The call of the contract that answered.
        call: &'static str,
        /// The first row that is wrong.
        row: Option<u32>,
        /// What is wrong.
        problem: String,
    },
    /// The answer is larger than it may be; it was not copied.
    #[error("the answer of `{call}` is larger than its bound of {max_bytes} bytes")]
    AnswerTooLarge {
        /// The call of the contract that answered.
        call: &'static str,
        /// The bound.
        max_bytes: usize,
    },
    /// What was compressed does not come back.
    #[error("what was compressed does not decompress to the same bytes: {problem}")]
    Lossy {
        /// What is different.
        problem: String,
    },
    /// The input does not fit the guest's memory; split the batch.
    #[error("a batch of {bytes} bytes does not fit the plug-in's memory of {max_bytes} bytes")]
    InputTooLarge {
        /// What the batch needs.
        bytes: usize,
        /// What there is.
        max_bytes: usize,
    },
    /// The caller left out a column that the stage reads, or gave it another number of rows.
    #[error("the batch lacks the column `{column}`, which the stage reads")]
    ColumnMissing {
        /// The column.
        column: &'static str,
    },
    /// The stage is of another kind than the call or the new version.
    #[error("is a {have}, not a {want}")]
    WrongKind {
        /// What it is.
        have: Kind,
        /// What was wanted.
        want: Kind,
    },
    /// Too many instances run at once on this host.
    #[error("no room for another instance: {0} run at once")]
    Exhausted(u32),
}

impl Fault {
    /// Whether the guest misbehaved, rather than said no: its instance is thrown away.
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
            | Fault::BadAnswer { .. }
            | Fault::AnswerTooLarge { .. }
            | Fault::Lossy { .. } => true,
        }
    }

    /// Whether a row of the batch may be to blame, so that it makes sense to look for it.
    pub fn is_about_rows(&self) -> bool {
        match self {
            Fault::Rows(_) | Fault::Batch(_) | Fault::InputTooLarge { .. } | Fault::Lossy { .. } => true,
            Fault::Config { .. } | Fault::ColumnMissing { .. } | Fault::WrongKind { .. } | Fault::Exhausted(_) => false,
            Fault::Trap { call, .. }
            | Fault::Stack { call, .. }
            | Fault::Deadline { call, .. }
            | Fault::Memory { call, .. }
            | Fault::BadAnswer { call, .. }
            | Fault::AnswerTooLarge { call, .. } => !matches!(*call, "instantiate" | "configure"),
        }
    }
}

fn describe_rows(rows: &[RowError]) -> String {
    match rows {
        [] => "no row is bad".to_owned(),
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

/// A file is not a plug-in that this host runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Refused by the scan, before anything was compiled.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The compiler refuses it.
    #[error("does not compile: {0}")]
    Compile(String),
    /// There is no engine for it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The compiler took too long or too much memory and was killed.
    #[error("the compiler was stopped: {0}")]
    CompilerKilled(String),
    /// The child process that compiles could not be run.
    #[error("cannot run the compiler {}: {source}", .program.display())]
    CompilerMissing {
        /// The program that should run.
        program: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// An import or export has another type than the contract's.
    #[error("does not fit the contract: {0}")]
    Contract(String),
    /// It failed while it was started or described.
    #[error("does not start: {0}")]
    Start(Fault),
    /// What it says about itself is not acceptable.
    #[error("bad description: {0}")]
    Description(String),
    /// The file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A stored version cannot be fetched.
    #[error("cannot be fetched: {0}")]
    Fetch(String),
    /// The digest is not the one that was asked for.
    #[error("the digest is {have}, not {want}")]
    Digest {
        /// What the bytes have, in hexadecimal.
        have: String,
        /// What was asked for, in hexadecimal.
        want: String,
    },
}

/// A version was not put to use.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// It is not a plug-in that this host runs.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It does not serve where it would have to.
    #[error(transparent)]
    Refused(#[from] ActivationError),
}

/// A stage cannot be had as it was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// It is not written as a stage is.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// No plug-in has that name.
    #[error("no plug-in is named `{name}`; there are: {known}")]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// The plug-in has versions, and none of them serves.
    #[error("no version of plug-in `{name}` is active; activate one, or name one as in `{name}@{known}`")]
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
        /// The version that was asked for.
        wanted: String,
        /// The versions that there are.
        known: String,
    },
    /// The plug-in is for something else.
    #[error("`{spec}` is a {have}, and a {want} is wanted here")]
    WrongKind {
        /// The stage as it was written.
        spec: String,
        /// What it is.
        have: Kind,
        /// What was wanted.
        want: Kind,
    },
    /// The plug-in does not load.
    #[error("plug-in `{plugin}`: {source}")]
    Load {
        /// The name or file.
        plugin: String,
        /// Why.
        source: LoadError,
    },
    /// The stage does not start with this configuration.
    #[error(transparent)]
    Start(#[from] StageError),
}
