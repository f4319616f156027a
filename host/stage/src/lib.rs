//! The sandbox for pipeline stages. It runs partitioners, serializers, compressors and filters as
//! WebAssembly components and knows nothing of Kafka; no other crate names wasmtime.
//!
//! # The life of a plug-in
//!
//! 1. **Scan** ([`mod@scan`]): the bytes are read, nothing is compiled. Not a component, over a limit, an
//!    import that is not granted, an export that is missing: refused, by name.
//! 2. **Compile** ([`compile`]): in this process, or in a child that can be killed.
//! 3. **Cache** (`cache`): compiled code is kept by digest and engine; only files that this host wrote
//!    are ever loaded.
//! 4. **Load** ([`plugin`]): instantiated once, under the limits of any call, and asked what it is.
//! 5. **Start** ([`stage`]): instances are configured and probed with a batch of no rows.
//! 6. **Call** (`call`): one call carries one batch, column by column ([`batch`]), on an instance from
//!    the `pool`. The answer is checked before any of it is used. A trap, a passed deadline or a bad
//!    answer is a typed error ([`error`]), and the instance is thrown away.
//! 7. **Swap** ([`activation`]): a new version goes through 1 to 5 aside, for every stage that follows it or
//!    for none, then takes their slots, each between two batches.
//! 8. **Drain**: calls that run finish on the old version; the last of them lets go of it.
//!
//! A batch that fails is searched for the rows that it fails for ([`mod@isolate`]). What every version does
//! is counted (`tally`); one that goes wrong too often gives its place to the last good one.
//!
//! Plug-ins have names in a [`library`], and numbers where a [`source`] keeps their versions; a
//! [`mod@watch`]er reloads what changes on disk.
//!
//! What a plug-in may use is in [`limits`], the deadline's clock in `ticker`, what the host offers it
//! in `host_imports`; the contract itself is `sdk/wit/1.0.0/stage.wit`, seen from here in [`contract`].

pub mod activation;
pub mod batch;
mod cache;
mod call;
pub mod compile;
pub mod contract;
pub mod engine;
pub mod error;
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
mod tally;
mod ticker;
pub mod watch;

pub use activation::{Activation, ActivationError, Refused};
pub use batch::{Bitmap, Changed, Column, ColumnBuf, ColumnFull, Headers, Records, RecordsBuf};
pub use compile::{COMPILE_CHILD_ARGUMENT, Compiler, compile_child_main};
pub use contract::{Columns, Description, Format, Kind, Level, RowError};
pub use engine::{Engine, EngineConfig, EngineError, Trust};
pub use error::{Fault, LoadError, PublishError, ResolveError, StageError};
pub use host_imports::LogLine;
pub use isolate::{ISOLATION_CALLS_MAX, Isolated};
pub use library::{Library, Origin, Published, Spike, VersionCounts};
pub use limits::{Limits, ModuleLimits};
pub use pinned::Pinned;
pub use plugin::{Digest, Plugin};
pub use rows::Slice;
pub use scan::{Refusal, Scan};
pub use source::{EMBEDDED_NUMBER, VersionName, VersionSource};
pub use spec::{Source, SpecError, StageSpec};
pub use stage::{Stage, StageStats, Swapped};
pub use tally::{Counts, SpikeLimits, SpikeReason};
pub use ticker::thread_time;
pub use watch::{WatchError, WatchEvent, Watcher};
