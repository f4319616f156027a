//! The SDK for pipeline stages of Millstream. A stage is a type with one function; the fields of the type are its
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
//! `millstream plugin new holds --kind filter` makes such a crate, `millstream plugin test` tests it, and
//! `millstream plugin build` builds it into a component for the sandbox. Users write its name and its configuration:
//! `holds{"text":"error"}`. There are four kinds, each a trait and a macro: [`Filter`], [`Partitioner`], [`Serializer`]
//! and [`Compressor`].
//!
//! - **Columns.** A batch reaches the sandbox column by column, and only the columns in the `COLUMNS` of the stage.
//! - **Errors.** An `Err` from a function that sees one record marks that record as bad. Any error converts with `?`,
//!   and a text with `.into()`. A panic fails the whole batch, and its message is in the log of the host.
//! - **State.** A stage runs in many instances at once, and an instance may be discarded. State in fields marked
//!   `#[serde(skip)]` is good for caches and buffers, not for data that must not be lost.
//! - **Tests.** Natively a stage is an ordinary type: call its functions, or those that the host calls, such as
//!   [`filter::filter`], with a [`BatchBuf`]. [`testkit`] runs the same vectors in the sandbox too.

mod batch;
mod bitmap;
mod buffer;
mod columns;
pub mod compressor;
pub mod config;
mod describe;
mod error;
pub mod filter;
mod hash;
pub mod host;
pub mod json;
mod macros;
pub mod partitioner;
pub mod schema_id;
pub mod serializer;
mod sticky;
#[cfg(not(target_arch = "wasm32"))]
pub mod testkit;

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
pub use hash::murmur2;
pub use partitioner::{Partitioner, Partitions};
pub use serializer::{Change, Changed, Serializer};
pub use sticky::Sticky;
