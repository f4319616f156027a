//! Builds a plug-in crate into a component.
