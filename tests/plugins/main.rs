//! Tests the embedded default plug-ins in the sandbox against other implementations.

mod bindings;
mod codecs;
mod components;
mod ends;
mod examples;
mod refusals;
mod schemas;
mod worlds;
