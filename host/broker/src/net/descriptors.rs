//! File descriptors: the limit of the process, and what happens when they run out.
//!
//! A connection takes one descriptor, and so does each open file of a log. Connections are rejected before the last
//! descriptor is taken, so that logs can still be rolled. If no descriptor is left, `accept` fails, and the client
//! would wait silently in the kernel's queue. One descriptor is therefore kept in reserve. It is closed to accept the
//! connection, which is then closed at once, and opened again.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The descriptors that connections leave to files, if the limit is large.
const KEPT_FOR_FILES: u64 = 64;

/// The share of a small limit that connections leave to files.
const KEPT_SHARE: u64 = 8;

/// Raises the soft limit of open files to the hard limit, as the JVM does.
pub(crate) fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::debug!(from = current, to = maximum, "raised the limit of open files"),
        Err(error) => tracing::warn!(soft = current, hard = maximum, "cannot raise the limit of open files: {error}"),
    }
}

/// The descriptors of the process, for the listeners.
#[derive(Debug)]
pub(crate) struct Descriptors {
    /// The descriptors of connections must be lower than this: the kernel always returns the lowest free one.
    end: u64,
    /// Closed to accept and close a connection when no descriptor is left.
    reserve: Mutex<Option<File>>,
}

impl Descriptors {
    /// Reads the limit of the process, and opens the reserve.
    pub(crate) fn new() -> io::Result<Self> {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let end = limit - KEPT_FOR_FILES.min(limit / KEPT_SHARE);
        Ok(Self { end, reserve: Mutex::new(Some(open_reserve()?)) })
    }

    /// Returns whether a new connection leaves enough descriptors to files.
    pub(crate) fn has_room(&self, connection: &impl AsFd) -> bool {
        u64::try_from(connection.as_fd().as_raw_fd()).is_ok_and(|number| number < self.end)
    }

    /// Returns whether an error means that no descriptor is left.
    pub(crate) fn are_exhausted(error: &io::Error) -> bool {
        matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
    }

    /// Accepts a connection with the reserve, and closes it. Returns whether that worked: another thread may have taken
    /// the descriptor first.
    pub(crate) fn refuse_one(&self, accept: impl FnOnce() -> bool) -> bool {
        let mut reserve = self.reserve.lock();
        *reserve = None;
        let refused = accept();
        *reserve = open_reserve().ok();
        refused
    }
}

fn open_reserve() -> io::Result<File> {
    File::open("/dev/null")
}
