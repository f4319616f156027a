//! Hostile plug-ins, row by row of the table in the design: none ends the process, none is half
//! believed, and after each the stage that it hit goes on.
//!
//! R: refused when it is loaded or started, and the old version serves on. T: the call fails with a
//! typed error, the instance is thrown away, and the next call works.

// A guest that no test uses is dead code: it does not compile.
#![deny(dead_code)]

mod answers;
mod contract;
mod loops;
mod memory;
mod modules;
mod noise;

#[path = "../../../../tests/fixtures/guests/mod.rs"]
mod guests;
#[path = "../support/mod.rs"]
mod support;
