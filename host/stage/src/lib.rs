//! The sandbox for pipeline stages. It runs partitioners, serializers, compressors and filters as
//! WebAssembly components and knows nothing of Kafka. No other crate names wasmtime.
//!
//! # The life of a plug-in
//!
//! 1. **Scan** ([`mod@scan`]): reads the bytes without compiling them. Rejects what is not a component, exceeds
//!    a limit, imports something that is not offered, or lacks an export, and names each reason.
//! 2. **Compile** ([`compile`]): in this process, or in a child process that can be killed.
//! 3. **Cache** (`cache`): keeps compiled code by digest and engine. Loads only files that this host wrote.
//! 4. **Load** ([`plugin`]): instantiates it once, under the limits of any call, and reads its description.
//! 5. **Start** ([`stage`]): configures instances and probes them with a batch of no rows.
//! 6. **Call** (`call`): passes one batch, column by column ([`batch`]), to an instance from the `pool`. The
//!    response is checked before any of it is used. A trap, a passed deadline or a bad response is a typed
//!    error ([`error`]), and the instance is thrown away.
//! 7. **Swap** ([`activation`]): prepares a new version by steps 1 to 5 for every stage that follows it, or for
//!    none. Then it replaces the old version, in each stage between two batches.
//! 8. **Drain**: running calls finish on the old version, which is dropped with the last of them.
//!
//! When a batch fails, [`mod@isolate`] finds the rows that it fails for. `counters` counts what each version does;
//! `failure_detector` finds a version that fails too often, and the library rolls back to the last good one.
//!
//! A [`library`] keeps plug-ins by name, and a [`source`] their numbered versions. A [`mod@watch`]er reloads files
//! that change on disk.
//!
//! [`limits`] has what a plug-in may use, and `host_imports` the functions that the host offers. A call is stopped at
//! its `deadline`: `checks` inserts what stops it, and `ticker` keeps the clock. The contract is
//! `sdk/wit/1.0.0/stage.wit`; [`contract`] has its types.

pub mod activation;
pub mod batch;
mod cache;
mod call;
mod checks;
pub mod compile;
pub mod contract;
mod counters;
mod deadline;
pub mod engine;
pub mod error;
mod error_lines;
mod failure_detector;
mod host_imports;
mod instance;
pub mod isolate;
pub mod library;
pub mod limits;
mod pinned;
pub mod plugin;
mod pool;
mod probe;
mod rows;
pub mod scan;
pub mod source;
pub mod spec;
pub mod stage;
mod thread_time;
mod ticker;
pub mod watch;

pub use activation::{Activation, ActivationError, Refused};
pub use batch::{Bitmap, Changed, Column, ColumnBuf, ColumnFull, Headers, Records, RecordsBuf};
pub use compile::{COMPILE_CHILD_ARGUMENT, Compiler, compile_child_main};
pub use contract::{Columns, Description, Format, Kind, KindError, Level, RowError};
pub use counters::Counts;
pub use engine::{Engine, EngineConfig, EngineError, Trust};
pub use error::{Fault, LoadError, PublishError, ResolveError, StageError};
pub use failure_detector::{Failures, SpikeLimits, SpikeReason};
pub use host_imports::LogLine;
pub use isolate::{ISOLATION_CALLS_MAX, Isolated};
pub use library::{Library, Origin, Published, Spike, VersionCounts};
pub use limits::{Limits, ModuleLimits};
pub use pinned::Pinned;
pub use plugin::{DescriptionError, Digest, DigestError, Plugin};
pub use rows::Slice;
pub use scan::{Figure, Inspection, Measure, Refusal, Refusals, Scan};
pub use source::{EMBEDDED_NUMBER, FetchError, VersionName, VersionSource};
pub use spec::{NameError, Source, SpecError, StageSpec};
pub use stage::{Stage, StageStats, Swapped};
pub use thread_time::thread_time;
pub use watch::{WatchError, WatchEvent, Watcher};
