//! What the build embedded: the sources of the SDK, which `millstream plugin new` copies.

/// The files that a separate plug-in needs beside it, by their path from its folder.
pub(crate) const SDK: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/sdk.rs"));
