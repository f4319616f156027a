//! Ports that a test gives to a process before it starts.

use std::net::{Ipv4Addr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// Ports below those that Linux gives to outgoing connections. One of these may be free now, and be taken by a
/// connection of another test before the process listens.
const FIRST: u32 = 10_000;
const COUNT: u32 = 22_000;

/// Returns free ports, which differ from those of all other calls in this process.
///
/// # Panics
/// Too few are free.
pub fn free_ports(count: usize) -> Vec<u16> {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    // Processes that run at the same time begin far apart.
    let first = process::id().wrapping_mul(7919);
    let next = || {
        let tried = TRIED.fetch_add(1, Ordering::Relaxed);
        assert!(tried < COUNT, "no port is free");
        u16::try_from(FIRST + first.wrapping_add(tried) % COUNT).expect("a port")
    };
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    std::iter::repeat_with(next).filter(is_free).take(count).collect()
}
