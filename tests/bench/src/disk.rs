//! What the disk does by itself.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Returns the times of 1,000 appends of this many bytes to a file, each with its fdatasync, in ascending order.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn fdatasyncs(bytes: usize) -> Result<Vec<Duration>> {
    let mut file = tempfile::tempfile()?;
    let bytes = vec![1; bytes];
    let mut times = Vec::with_capacity(1000);
    for _ in 0..1000 {
        let begun = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}
