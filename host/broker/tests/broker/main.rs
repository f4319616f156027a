//! The broker over real sockets, with a client that sends exactly what a test needs.

mod client;
mod compaction;
mod fetch;
mod produce;
mod protocol;
mod restart;
mod topics;
mod transactions;
