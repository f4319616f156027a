//! The SDK for pipeline stages: write one function on a trait.
