//! End-to-end tests: real clients against the real process.
