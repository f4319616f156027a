//! Faults below one process: a clock that jumps, fsyncs that fail or stall. A small library between the process and
//! the C library makes them (`process_faults.c`).

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use millstream_tests::Cluster;
use tempfile::TempDir;

/// What a test prints that cannot build the library.
pub(crate) const NOT_RUN: &str = "not run: faults below a process need the compiler cc";

/// A fault, and its place in the file that the library maps.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// The seconds that the wall clock is ahead.
    Clock = 0,
    /// How many fsyncs of records fail from now on.
    FailingRecords = 8,
    /// How many fsyncs of the metadata fail from now on.
    FailingMetadata = 16,
    /// The milliseconds by which each fsync stalls.
    StallMs = 24,
}

/// A cluster of three nodes with faults below each of them.
pub(crate) struct FaultyCluster {
    pub(crate) cluster: Cluster,
    faults: Vec<File>,
    _temporary: TempDir,
}

impl FaultyCluster {
    /// Starts the nodes. `None` if the library cannot be built.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Option<Self> {
        let temporary = TempDir::new().expect("a folder");
        let library = build(temporary.path())?;
        let path = |id: usize| temporary.path().join(format!("faults-{id}"));
        let faults = (1..=3).map(|id| {
            fs::write(path(id), [0; 32]).expect("a file");
            OpenOptions::new().write(true).open(path(id)).expect("a file")
        });
        let faults = faults.collect();
        let cluster = Cluster::start_with(3, settings, |id, node| {
            let preload = library.to_str().expect("text");
            node.env("LD_PRELOAD", preload).env("MILLSTREAM_TEST_FAULTS", path(id).to_str().expect("text"))
        });
        Some(Self { cluster, faults, _temporary: temporary })
    }

    /// Sets a fault of a node.
    pub(crate) fn set(&self, id: i32, fault: Fault, value: i64) {
        let file = &self.faults[usize::try_from(id).expect("an id") - 1];
        file.write_all_at(&value.to_ne_bytes(), fault as u64).expect("written");
    }
}

fn build(folder: &Path) -> Option<PathBuf> {
    let (source, library) = (folder.join("process_faults.c"), folder.join("process_faults.so"));
    fs::write(&source, include_str!("process_faults.c")).expect("a file");
    let built = Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source).output();
    let built = built.ok()?;
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(library)
}
