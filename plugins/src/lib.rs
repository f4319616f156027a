//! The default plug-ins as components, for programs that embed them: the `millstream` binary, and applications. The
//! build script of this crate builds them, which needs the target `wasm32-unknown-unknown`.

/// Name and component of each, sorted by name.
pub const DEFAULTS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/plugins.rs"));
