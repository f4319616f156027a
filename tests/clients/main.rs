//! Clients and tools that nobody here wrote, each against the real process.

fn main() {}
