//! The default plug-ins as components, for programs that embed them: the `millstream` binary, and applications. The
//! build script of this crate builds them, which needs the target `wasm32-unknown-unknown`.

use std::sync::OnceLock;

/// The default plug-ins, sorted by name.
pub static DEFAULTS: [Plugin; COUNT] = include!(concat!(env!("OUT_DIR"), "/plugins.rs"));

const COUNT: usize = include!(concat!(env!("OUT_DIR"), "/count.rs"));

/// A default plug-in.
#[derive(Debug)]
pub struct Plugin {
    /// The name that users write.
    pub name: &'static str,
    /// Whether calls need a deadline: the work of the others is in proportion to their input.
    pub needs_deadline: bool,
    /// The component in zstd.
    packed: &'static [u8],
    size: usize,
    component: OnceLock<Vec<u8>>,
}

impl Plugin {
    /// Returns the component. The first call decompresses it, which takes some milliseconds.
    ///
    /// # Panics
    /// Never: the build script compressed it.
    pub fn component(&'static self) -> &'static [u8] {
        self.component.get_or_init(|| zstd::bulk::decompress(self.packed, self.size).expect("zstd of the build script"))
    }
}

/// Returns the default plug-in of a name.
pub fn find(name: &str) -> Option<&'static Plugin> {
    DEFAULTS.iter().find(|plugin| plugin.name == name)
}
