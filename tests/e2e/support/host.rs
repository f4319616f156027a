//! What a test sees of the process from outside: its memory, its open files, and whether it serves other clients.

use std::ffi::OsStr;
use std::fs;
use std::time::{Duration, Instant};

use millstream_tests::{Broker, Tool, millstream};
use millstream_wire::messages::ApiVersionsRequest;

use super::{Raw, Topic, batch};

/// The longest time for another client's request while the broker is attacked. An idle machine needs a thousandth of
/// it; the rest is room for a loaded machine.
const AT_ONCE: Duration = Duration::from_secs(5);

/// The resident memory of a broker, peaks included.
pub(crate) struct Memory {
    pid: String,
    base: usize,
}

impl Memory {
    /// Forgets earlier peaks and measures from now on.
    pub(crate) fn watch(broker: &Broker) -> Self {
        let pid = broker.pid().as_raw_nonzero().to_string();
        // 5 resets VmHWM; see proc(5).
        fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the peak of an own child can be reset");
        let base = status(&pid, "VmRSS");
        Self { pid, base }
    }

    /// Returns the highest growth since `watch`.
    pub(crate) fn growth_max(&self) -> usize {
        status(&self.pid, "VmHWM").saturating_sub(self.base)
    }

    /// Returns the growth since `watch` that is still resident.
    pub(crate) fn growth(&self) -> usize {
        status(&self.pid, "VmRSS").saturating_sub(self.base)
    }

    /// Fails if memory ever grew by `bytes` or more since `watch`.
    pub(crate) fn assert_grew_less_than(&self, bytes: usize, what: &str) {
        let growth = self.growth_max();
        assert!(growth < bytes, "{what}: resident memory grew by {} KiB, at most {} KiB", growth >> 10, bytes >> 10);
    }
}

/// Returns a line of `/proc/PID/status` in bytes.
fn status(pid: &str, field: &str) -> usize {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("the broker runs");
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    kib.unwrap_or_else(|| panic!("{field} in {text}")) << 10
}

/// Returns the number of files and sockets that the broker has open.
pub(crate) fn open_files(broker: &Broker) -> usize {
    let folder = format!("/proc/{}/fd", broker.pid().as_raw_nonzero());
    fs::read_dir(folder).expect("the broker runs").count()
}

/// A client that does nothing wrong, on a separate connection.
pub(crate) struct Neighbour {
    raw: Raw,
    topic: Topic,
    produced: usize,
}

impl Neighbour {
    /// Connects, and creates a topic for this client.
    pub(crate) fn of(broker: &Broker) -> Self {
        let mut raw = Raw::connect(broker);
        let topic = Topic::create(&mut raw, "neighbour", 1, &[]);
        Self { raw, topic, produced: 0 }
    }

    /// Checks that the process lives, that an old and a new connection are served within [`AT_ONCE`], and that all
    /// produced records are there.
    pub(crate) fn is_served(&mut self, broker: &mut Broker, after: &str) {
        assert!(broker.is_running(), "after {after} the broker is gone");
        let start = Instant::now();
        assert!(!Raw::connect(broker).call(3, &api_versions()).api_keys.is_empty());
        let offset = self.topic.produce(&mut self.raw, batch(&["well"]));
        assert_eq!(offset, self.produced as i64, "after {after}");
        self.produced += 1;
        assert_eq!(self.topic.read(&mut self.raw, 0).len(), self.produced, "after {after}");
        assert!(start.elapsed() < AT_ONCE, "after {after} the neighbour waited {:?}", start.elapsed());
    }
}

fn api_versions() -> ApiVersionsRequest {
    ApiVersionsRequest {
        client_software_name: "neighbour".into(),
        client_software_version: "1".into(),
        ..Default::default()
    }
}

/// Runs `millstream serve` with arguments that it must reject, and returns its standard error.
pub(crate) fn refused<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> String {
    let end = Tool::new(millstream())
        .args(["serve", "--listen", "127.0.0.1:0"])
        .args(args)
        .limit(Duration::from_secs(20))
        .run();
    assert_eq!(end.code, Some(1), "it must end with 1\n{}{}", end.stdout, end.stderr);
    assert_eq!(end.stdout, "", "a rejected start writes nothing to standard output");
    assert!(!end.stderr.contains("panicked"), "{}", end.stderr);
    end.stderr
}
