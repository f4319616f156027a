//! Tests the embedded default plug-ins in the sandbox against other implementations.

mod bindings;
mod codecs;
mod components;
mod ends;
mod refusals;
mod worlds;
