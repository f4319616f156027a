//! What Linux says about the process of a broker.

use anyhow::{Context, Result};

/// A process at one moment.
pub(crate) struct Process {
    /// The seconds that all threads have computed.
    pub(crate) computed: f64,
    /// Whether it has ended, and nothing has waited for it yet.
    pub(crate) has_ended: bool,
}

/// Reads the figures of a process.
///
/// # Errors
/// There is no such process.
pub(crate) fn process(id: u32) -> Result<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("a process")?.1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    // Linux counts in hundredths of a second for programs, whatever the kernel's own clock is.
    Ok(Process { computed: ticks as f64 / 100.0, has_ended: fields[0] == "Z" })
}
