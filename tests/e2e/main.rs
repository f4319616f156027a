//! The real process, seen from outside: hand-made bytes, our own client and the command line.

mod apis;
mod configs;
mod connections;
mod data_folder;
mod edge;
mod fetch;
mod hostile;
mod idempotence;
mod offsets;
mod process;
mod produce;
mod recovery;
mod retention;
mod settings;
mod support;
mod topics;
mod views;
