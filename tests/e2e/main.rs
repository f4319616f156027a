//! Tests the real process from outside: with hand-made bytes, our own client and the command line.

mod apis;
mod bench;
mod cluster;
mod cluster_start;
mod config_keys;
mod configs;
mod connections;
mod coordinators;
mod damaged_files;
mod data_folder;
mod deletions;
mod descriptors;
mod edge;
mod failover;
mod fetch;
#[path = "../fixtures/guests/mod.rs"]
#[allow(dead_code, reason = "shared with the tests of the sandbox, which use all of it")]
mod guests;
mod hostile;
mod idempotence;
mod log_dirs;
mod membership;
mod memory;
mod offsets;
mod plugins;
mod poison_batch;
mod process;
mod produce;
mod recovery;
mod replication;
mod retention;
mod settings;
mod support;
mod topics;
mod transactions;
mod views;
