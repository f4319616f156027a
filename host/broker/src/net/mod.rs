//! The network: listeners, connections, and the bytes that go in and out.
//!
//! A connection does not know any API. It splits bytes into requests, passes them to [`crate::api`], and sends the
//! responses in request order.

pub(crate) mod connection;
pub(crate) mod descriptors;
mod frame_buffer;
pub(crate) mod listener;
pub(crate) mod message_memory;
pub(crate) mod nodes;
mod pace;
pub(crate) mod send_queue;
pub(crate) mod types;
