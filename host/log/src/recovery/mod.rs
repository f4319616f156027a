//! Opens a log: loads what is there, and recovers it after a crash.

mod epochs;
mod listing;
mod load;
mod scan;

pub(crate) use listing::list;
pub use load::OpenOptions;
