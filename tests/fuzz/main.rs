//! Property tests and fuzz targets: generated inputs for all that reads bytes of a client or of a disk.
//!
//! Each target is one file. `bolero` generates its inputs for [`TEST_TIME`], or for the time in
//! `BOLERO_RANDOM_TEST_TIME_MS`. A failure prints the smallest input that it finds and a seed; with that seed in
//! `BOLERO_RANDOM_SEED` the next run begins with the same input.

mod allocations;
mod batch_view;
mod compaction;
mod damage;
mod decompression;
mod folder;
mod parsers;
mod records;
mod recovery;
mod request_decoders;
#[path = "../../host/wire/tests/support/mod.rs"]
mod schemas;
mod wire_round_trip;

use std::time::Duration;

/// How long each property gets inputs in the test command.
const TEST_TIME: Duration = Duration::from_secs(2);
