//! The default plug-ins as they are embedded, in the sandbox, against what others hold to be right.

mod bindings;
mod codecs;
mod components;
mod ends;
mod refusals;
mod worlds;
