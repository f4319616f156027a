//! What can be seen of the process from outside: its memory, its files, and whether it serves others.

use std::ffi::OsStr;
use std::fs;
use std::time::{Duration, Instant};

use millstream_tests::{Broker, Tool, millstream};
use millstream_wire::messages::ApiVersionsRequest;

use super::{Raw, Topic, batch};

/// How long a request of somebody else may take while the broker is attacked. An idle machine needs a
/// thousandth; a loaded one that runs tests in parallel is given room.
const AT_ONCE: Duration = Duration::from_secs(5);

/// The resident memory of a broker, its peaks included.
pub(crate) struct Memory {
    pid: String,
    base: usize,
}

impl Memory {
    /// Forgets earlier peaks and measures from here.
    pub(crate) fn watch(broker: &Broker) -> Self {
        let pid = broker.pid().as_raw_nonzero().to_string();
        // 5 resets VmHWM, see proc(5).
        fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the peak of an own child can be reset");
        let base = status(&pid, "VmRSS");
        Self { pid, base }
    }

    /// The highest since `watch`, above what it was then.
    pub(crate) fn growth_max(&self) -> usize {
        status(&self.pid, "VmHWM").saturating_sub(self.base)
    }

    /// Now, above what it was at `watch`.
    pub(crate) fn growth(&self) -> usize {
        status(&self.pid, "VmRSS").saturating_sub(self.base)
    }

    /// Fails if it has been above `bytes` more than at `watch`.
    pub(crate) fn assert_grew_less_than(&self, bytes: usize, what: &str) {
        let growth = self.growth_max();
        assert!(growth < bytes, "{what}: resident memory grew by {} KiB, at most {} KiB", growth >> 10, bytes >> 10);
    }
}

/// A line of `/proc/PID/status` in bytes.
fn status(pid: &str, field: &str) -> usize {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("the broker runs");
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    kib.unwrap_or_else(|| panic!("{field} in {text}")) << 10
}

/// How many files and sockets the broker has open.
pub(crate) fn open_files(broker: &Broker) -> usize {
    let folder = format!("/proc/{}/fd", broker.pid().as_raw_nonzero());
    fs::read_dir(folder).expect("the broker runs").count()
}

/// Somebody who does nothing wrong on a connection of their own.
pub(crate) struct Neighbour {
    raw: Raw,
    topic: Topic,
    produced: usize,
}

impl Neighbour {
    /// Connects, with a topic of their own.
    pub(crate) fn of(broker: &Broker) -> Self {
        let mut raw = Raw::connect(broker);
        let topic = Topic::create(&mut raw, "neighbour", 1, &[]);
        Self { raw, topic, produced: 0 }
    }

    /// The process lives, the old connection and a new one are served at once, and what was produced is there.
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

/// Runs `millstream serve` with arguments that it must refuse, and gives what it says on its standard error.
pub(crate) fn refused<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> String {
    let end = Tool::new(millstream())
        .args(["serve", "--listen", "127.0.0.1:0"])
        .args(args)
        .limit(Duration::from_secs(20))
        .run();
    assert_eq!(end.code, Some(1), "it must end with 1\n{}{}", end.stdout, end.stderr);
    assert_eq!(end.stdout, "", "nothing belongs on the standard output of a refusal");
    assert!(!end.stderr.contains("panicked"), "{}", end.stderr);
    end.stderr
}
