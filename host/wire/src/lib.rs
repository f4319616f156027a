//! Kafka's protocol messages: bounded, zero-copy, without sockets.
