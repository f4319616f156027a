//! The SDK for Millstream's pipeline stages. A stage is a type with one function; the type's fields are its
//! configuration:
//!
//! ```
//! use millstream_sdk::{Filter, Record, Result};
//!
//! /// Keeps the records whose value holds the text.
//! #[derive(serde::Deserialize)]
//! struct Holds {
//!     text: String,
//! }
//!
//! impl Filter for Holds {
//!     fn keep(&self, record: &Record<'_>) -> Result<bool> {
//!         let value = std::str::from_utf8(record.value().unwrap_or_default())?;
//!         Ok(value.contains(&self.text))
//!     }
//! }
//!
//! millstream_sdk::filter!(Holds);
//! # fn main() {}
//! ```
//!
//! `millstream plugin build` makes a sandboxed component of the crate, and users name it with its configuration:
//! `holds{"text":"error"}`. There are four kinds, each a trait and a macro: [`Filter`], [`Partitioner`], [`Serializer`]
//! and [`Compressor`].
//!
//! - **Columns.** A batch reaches the sandbox column by column, and only the columns that the stage's `COLUMNS` names.
//! - **Errors.** An `Err` from a function that sees one record marks that record as bad. What is an error becomes one by
//!   `?`, and a text by `.into()`. A panic fails the whole batch, and its message is in the host's log.
//! - **State.** A stage runs in many instances at once and an instance may be thrown away, so state in fields marked
//!   `#[serde(skip)]` is good for caches, counters and the like, not for what must not be lost.
//! - **Tests.** Natively a stage is an ordinary type: call its functions, or [`filter::filter`] and its kin with a
//!   [`BatchBuf`]. The crate `millstream-testkit` runs the same vectors in the sandbox too.

mod batch;
mod bitmap;
mod buffer;
mod columns;
pub mod compressor;
pub mod config;
mod describe;
mod error;
pub mod filter;
pub mod host;
mod macros;
pub mod partitioner;
pub mod serializer;
mod sticky;

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod bindings;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod export;

pub use batch::{Batch, Column, Record};
pub use bitmap::Bitmap;
pub use buffer::{BatchBuf, ColumnBuf};
pub use columns::Columns;
pub use compressor::{Compressor, Format, read_at_most};
pub use describe::{Describe, Kind};
pub use error::{BadRow, BadRows, ConfigError, Error, Result, RowError};
pub use filter::Filter;
pub use partitioner::{Partitioner, Partitions};
pub use serializer::{Change, Changed, Serializer};
pub use sticky::Sticky;
