//! The sandbox from outside: real components in a real engine.

// A guest or helper that no test uses fails to compile.
#![deny(dead_code)]

mod cache;
mod follow;
mod hostile;
mod isolate;
mod limits;
mod own;
mod swap;
mod versions;

#[path = "../../../../tests/fixtures/guests/mod.rs"]
mod guests;
mod support;
