//! Wraps a core module into a component.

use anyhow::{Context, Result, bail};
use wit_component::ComponentEncoder;

/// Wraps a core module that was built with the SDK into a component.
///
/// # Errors
/// `module` is not a core module, was not built with the SDK, or lacks a function of its world.
pub fn componentize(module: &[u8]) -> Result<Vec<u8>> {
    if !has_contract(module) {
        bail!(
            "it exports no stage: write millstream_sdk::filter!(Type), partitioner!, serializer! or compressor! \
             in src/lib.rs"
        );
    }
    ComponentEncoder::default()
        .module(module)
        .context("the module that cargo built cannot be read")?
        .validate(true)
        .encode()
        .context("the module that cargo built does not fit the contract")
}

/// Returns whether a custom section of the module names the world that it was built for.
fn has_contract(module: &[u8]) -> bool {
    const SECTION: &[u8] = b"component-type:";
    module.windows(SECTION.len()).any(|window| window == SECTION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_module_without_a_stage_says_what_to_write() {
        let empty = b"\0asm\x01\0\0\0";
        let error = componentize(empty).unwrap_err().to_string();
        assert!(error.contains("millstream_sdk::filter!(Type)"), "{error}");
    }

    #[test]
    fn garbage_is_rejected() {
        let error = componentize(b"component-type: but not a module").unwrap_err();
        assert!(format!("{error:#}").contains("cannot be read"), "{error:#}");
    }
}
