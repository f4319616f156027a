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

/// A figure of the memory of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// All resident pages, those of files that it shares with others too.
    Resident,
    /// The resident pages of its own, without files: heap and stacks.
    Anonymous,
    /// The most that was resident since [`forget_peak`].
    Peak,
}

/// Returns a figure of the memory of a process, in bytes.
///
/// # Errors
/// There is no such process.
pub(crate) fn memory(id: u32, which: Memory) -> Result<u64> {
    let field = match which {
        Memory::Resident => "VmRSS:",
        Memory::Anonymous => "RssAnon:",
        Memory::Peak => "VmHWM:",
    };
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let found = status.lines().find_map(|line| line.strip_prefix(field)).context("a process with memory")?;
    Ok(1024 * found.trim().trim_end_matches(" kB").parse::<u64>()?)
}

/// Makes Linux count the peak of the resident memory of a process anew.
///
/// # Errors
/// The process belongs to another user, or has ended.
pub(crate) fn forget_peak(id: u32) -> Result<()> {
    Ok(std::fs::write(format!("/proc/{id}/clear_refs"), "5")?)
}

/// Touches memory once and lets it go, so that the host has given it to this machine: 8 GB, or half of what is free.
///
/// # Errors
/// Linux does not tell what is free.
pub(crate) fn touch_memory() -> Result<()> {
    const MOST: usize = 8_000_000_000;
    const PIECE: usize = 64 << 20;
    let free = std::fs::read_to_string("/proc/meminfo")?;
    let free = free.lines().find_map(|line| line.strip_prefix("MemAvailable:")).context("the free memory")?;
    let free = 1024 * free.trim().trim_end_matches(" kB").parse::<usize>()?;
    let pieces: Vec<Vec<u8>> = (0..MOST.min(free / 2) / PIECE).map(|_| vec![1; PIECE]).collect();
    std::hint::black_box(&pieces);
    Ok(())
}
