//! The broker over real sockets, by a client that sends exactly what a test wants.

mod client;
mod fetch;
mod produce;
mod protocol;
mod restart;
mod topics;
