//! Counts calls and their outcomes. A call adds to a few atomic numbers and takes no lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The numbers that calls add to.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    calls: AtomicU64,
    records: AtomicU64,
    nanos: AtomicU64,
    errors: AtomicU64,
    traps: AtomicU64,
    bad_records: AtomicU64,
    /// Records, and one for each call without records: failure rates are computed from it.
    work: AtomicU64,
    waits: AtomicU64,
    wait_max_nanos: AtomicU64,
}

/// The values of the counters of a version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls, including failed ones.
    pub calls: u64,
    /// Rows of all calls. A row counts once, however often it is retried.
    pub records: u64,
    /// Time of all calls.
    pub nanos: u64,
    /// Calls that failed, for any reason.
    pub errors: u64,
    /// Calls that failed because the plug-in misbehaved.
    pub traps: u64,
    /// Rows that failed.
    pub bad_records: u64,
    /// Calls that found no idle instance, and waited until one was created.
    pub waits: u64,
    /// The longest of these waits.
    pub wait_max_nanos: u64,
}

impl Counters {
    /// Counts a call.
    pub(crate) fn called(&self, rows: u64, nanos: u64) {
        self.records.fetch_add(rows, Relaxed);
        self.work.fetch_add(rows.max(1), Relaxed);
        self.called_again(nanos);
    }

    /// Counts a call for records that were counted before.
    pub(crate) fn called_again(&self, nanos: u64) {
        self.calls.fetch_add(1, Relaxed);
        self.nanos.fetch_add(nanos, Relaxed);
    }

    /// Counts the failure of a call.
    pub(crate) fn failed(&self, is_trap: bool) {
        self.errors.fetch_add(1, Relaxed);
        self.traps.fetch_add(u64::from(is_trap), Relaxed);
    }

    /// Counts a call that waited until an instance was created.
    pub(crate) fn waited(&self, nanos: u64) {
        self.waits.fetch_add(1, Relaxed);
        self.wait_max_nanos.fetch_max(nanos, Relaxed);
    }

    /// Counts rows that failed.
    pub(crate) fn add_bad_records(&self, rows: u64) {
        self.bad_records.fetch_add(rows, Relaxed);
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            calls: self.calls.load(Relaxed),
            records: self.records.load(Relaxed),
            nanos: self.nanos.load(Relaxed),
            errors: self.errors.load(Relaxed),
            traps: self.traps.load(Relaxed),
            bad_records: self.bad_records.load(Relaxed),
            waits: self.waits.load(Relaxed),
            wait_max_nanos: self.wait_max_nanos.load(Relaxed),
        }
    }

    /// Returns the units of work so far, and the bad records.
    pub(crate) fn work_and_bad(&self) -> (u64, u64) {
        (self.work.load(Relaxed), self.bad_records.load(Relaxed))
    }
}
