//! Opens a log: loads what is there, and recovers it after a crash.

mod load;
mod scan;

pub use load::OpenOptions;
pub(crate) use load::list;
