//! The bindings that `wit-bindgen` generates from the contract: one module for each world. The interfaces that the
//! worlds share are in the module of the first.
//!
//! They are checked in, since the generator takes longer to compile than everything else that a plug-in needs. A test
//! generates them again and compares.
//!
//! Only the export macro of a world emits the custom section that describes it, in the crate of the plug-in: the module
//! of a filter describes the world `filter`, and no import of another world.

#![allow(missing_docs, unreachable_pub, unsafe_code, rust_2018_idioms, clippy::all, reason = "generated code")]

#[rustfmt::skip]
pub mod compressor;
#[rustfmt::skip]
pub mod filter;
#[rustfmt::skip]
pub mod partitioner;
#[rustfmt::skip]
pub mod serializer;
