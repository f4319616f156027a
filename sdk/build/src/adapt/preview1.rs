//! The inert WASI preview 1; `preview1.wat` says what it does.

/// The bytes at the start of the guest's memory that the module uses.
pub(super) const RESERVED_BYTES: u32 = 1024;

/// `preview1.wat`, assembled.
pub(super) const MODULE: &[u8] = include_bytes!("preview1.wasm");

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// `MILLSTREAM_WRITE_PREVIEW1=1` writes the module instead of comparing it.
    #[test]
    fn the_module_is_the_text_beside_it() {
        let assembled = wat::parse_str(include_str!("preview1.wat")).unwrap();
        if std::env::var_os("MILLSTREAM_WRITE_PREVIEW1").is_some() {
            fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/adapt/preview1.wasm"), assembled).unwrap();
            return;
        }
        assert!(assembled == MODULE, "preview1.wat was changed: run this test with MILLSTREAM_WRITE_PREVIEW1=1");
    }
}
