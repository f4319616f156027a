//! Hostile plug-ins. None of them ends the process, no part of a bad response is used, and the stage works again after
//! each of them.
//!
//! R: rejected when it is loaded or started, and the old version stays in use. T: the call fails with a typed error,
//! the instance is thrown away, and the next call works.

mod answers;
mod contract;
mod loops;
mod memory;
mod modules;
mod noise;
