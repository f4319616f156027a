//! Reloads under load: three versions of a plug-in take turns in a broker and in an application, which both call it all
//! the time. Two versions are in memory: the one that serves, and the one before. So each turn loads code and drops
//! some.
//!
//! Resident memory has to return to where it was. No batch may wait for a version to start: its instances are ready
//! before it takes over.

use std::env;
use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use millstream_client::ClientConfig;
use millstream_client::plugins::{ClusterPlugins, PluginStore};
use millstream_stage::{Engine, EngineConfig, Kind, Library, RecordsBuf, Stage};
use millstream_tests::{Broker, Tool, millstream};
use serde_json::Value;

use super::{PATIENCE, build, folder, new};
use crate::support::{Raw, Topic, batch};

/// The reloads in the test command; `MILLSTREAM_RELOADS` is another number.
const RELOADS: u32 = 40;

/// The reloads before the memory is measured first.
const WARM_UP: u32 = 12;

const VERSIONS: u32 = 3;

/// The callers at the broker, and those in the application.
const CALLERS: u64 = 2;

/// The rows of a batch.
const ROWS: usize = 100;

/// The calls of each place for which every version serves.
const SERVED: u64 = 10;

/// How far resident memory may be from where it was. The allocator keeps some megabytes for each thread that has loaded
/// a version. Code or instances of old versions would add 5 to 10 MiB with each reload.
const MEMORY_BYTES: u64 = 64 << 20;

/// Reloads a filter of a language under load, and checks waits and memory.
pub(super) fn under_load(language: &str) {
    let long = env::var("MILLSTREAM_RELOADS").ok().map(|count| count.parse().expect("a number of reloads"));
    let reloads = long.unwrap_or(RELOADS);
    let folder = folder();
    let file = build(&new(folder.path(), language, "filter"));
    let broker = Broker::builder()
        .set("flush.mode", "page-cache")
        .env("XDG_CACHE_HOME", folder.path().to_str().expect("a path of ASCII"))
        .start();
    push(&broker, folder.path(), &file);
    let name = format!("{language}-filter");
    let spec = format!(r#"{name}{{"text":"error"}}"#);
    let topic = Topic::create(&mut Raw::connect(&broker), "lines", 1, &[("stage.admit", &spec)]);

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
    let config = ClientConfig::new(&broker.bootstrap());
    let engine = EngineConfig { cache_dir: Some(folder.path().join("millstream")), ..EngineConfig::default() };
    let library = Arc::new(Library::new(Engine::new(engine).expect("an engine")));
    let (plugins, live) = runtime.block_on(async {
        let plugins = ClusterPlugins::follow(&config, library).await.expect("the plug-ins of the cluster");
        let live = plugins.stage(&spec, Kind::Filter).await.expect("a stage");
        (plugins, live)
    });
    let store = PluginStore::new(config).expect("a client");

    let (address, rows) = (broker.address(), vec!["an error of some length, as in a log"; ROWS]);
    let (at_broker, in_application) = (Place::new(), Place::new());
    let places = [&at_broker, &in_application];
    let (before, after) = thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let mut raw = Raw::to(address);
                at_broker.call(|| {
                    topic.produce(&mut raw, batch(&rows));
                });
            });
            scope.spawn(|| {
                let mut records = RecordsBuf::new(live.pin().columns());
                rows.iter().for_each(|row| records.push(0, None, Some(row.as_bytes()), []).expect("a small batch"));
                in_application.call(|| {
                    let kept = live.filter("lines", &records.as_records()).expect("a result");
                    assert_eq!(kept.count(), ROWS);
                });
            });
        }
        // Callers end also if something here panics.
        let _end = End(places);
        let mut swaps = 0;
        let mut reload = |count: u32| {
            for _ in 0..count {
                swaps += 1;
                runtime.block_on(store.activate(&name, 1 + swaps % VERSIONS)).expect("a version that serves");
                serves(&live, u64::from(swaps), places);
            }
        };
        reload(WARM_UP);
        let before = Memory::of(&broker);
        places.iter().for_each(|place| place.set(Phase::Reloads));
        let begun = Instant::now();
        reload(reloads);
        let took = begun.elapsed();
        places.iter().for_each(|place| place.set(Phase::Rests));
        // The same load without reloads, to compare with.
        thread::sleep(took / 4);
        let after = before.settled(&broker);
        (before, after)
    });
    println!("{reloads} reloads of a filter in {language}, batches of {ROWS} rows, {CALLERS} callers");
    println!("  at the broker:      {at_broker}");
    println!("  in the application: {in_application}");
    println!("  memory before {before}; after {after}");

    // Each place has one instance at first, and gets another when two callers meet. No version needs more.
    let (of_broker, of_application) = (waits(&broker, &name), live.stats().waits);
    let most = 2 * CALLERS;
    assert!(of_broker <= most, "{of_broker} batches at the broker waited for an instance");
    assert!(of_application <= most, "{of_application} batches in the application waited for an instance");
    assert_eq!(after.broker.code, before.broker.code, "code of old versions stays in the broker");
    // Other tests of this process load plug-ins too, unless this one runs alone.
    assert!(long.is_none() || after.application.code == before.application.code, "code stays in the application");
    assert!(after.is_near(&before), "the memory of the broker has grown");
    drop(plugins);
}

/// Stores the versions: the same code, each with another custom section at its end.
fn push(broker: &Broker, caches: &Path, file: &Path) {
    let component = fs::read(file).expect("the component");
    let pushed = broker.scratch().join("pushed.wasm");
    for version in 1..=VERSIONS {
        fs::write(&pushed, [&component[..], &[0, 2, 1, version as u8]].concat()).expect("a file of the test's own");
        let tool = Tool::new(millstream()).args(["plugin", "push"]).arg(&pushed).args(["-b", &broker.bootstrap()]);
        tool.env("XDG_CACHE_HOME", caches).limit(PATIENCE).succeed();
    }
}

/// Returns how many batches at the broker waited for an instance of the plug-in.
fn waits(broker: &Broker, name: &str) -> u64 {
    let stats = Tool::new(millstream()).args(["plugin", "stats", "--json", "-b", &broker.bootstrap()]).succeed();
    let stats: Value = serde_json::from_str(&stats).expect("JSON");
    let mut versions = stats["versions"].as_array().expect("a list").clone();
    versions.retain(|version| version["name"] == name);
    assert!(versions.len() == VERSIONS as usize && versions.iter().all(|version| version["calls"] != 0), "{stats}");
    versions.iter().map(|version| version["waits"].as_u64().expect("a number")).sum()
}

/// Waits until the application uses a version too, and every version was called in both places.
fn serves(live: &Stage, swaps: u64, places: [&Place; 2]) {
    let end = Instant::now() + PATIENCE;
    while live.stats().swaps < swaps {
        assert!(Instant::now() < end, "the application does not use the version of reload {swaps}");
        thread::sleep(Duration::from_millis(1));
    }
    let wanted = places.map(|place| place.calls.load(Relaxed) + SERVED);
    while places.iter().zip(wanted).any(|(place, wanted)| place.calls.load(Relaxed) < wanted) {
        assert!(Instant::now() < end, "no batch is served after reload {swaps}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// What callers do.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Phase {
    WarmsUp,
    Reloads,
    Rests,
    Ends,
}

/// A place where batches are processed.
struct Place {
    phase: AtomicU8,
    calls: AtomicU64,
    /// How long batches took, in microseconds: with reloads, and without.
    times: [Mutex<Histogram<u64>>; 2],
}

impl Place {
    fn new() -> Place {
        let times = [(); 2].map(|()| Mutex::new(Histogram::new(3).expect("three digits")));
        Place { phase: AtomicU8::new(Phase::WarmsUp as u8), calls: AtomicU64::default(), times }
    }

    fn set(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    /// Calls all the time, until the end.
    fn call(&self, mut call: impl FnMut()) {
        loop {
            let phase = self.phase.load(Relaxed);
            if phase == Phase::Ends as u8 {
                break;
            }
            let begun = Instant::now();
            call();
            self.calls.fetch_add(1, Relaxed);
            let times = match phase {
                _ if phase == Phase::Reloads as u8 => &self.times[0],
                _ if phase == Phase::Rests as u8 => &self.times[1],
                _ => continue,
            };
            let micros = begun.elapsed().as_micros() as u64;
            times.lock().expect("no caller panics").record(micros).expect("a histogram that grows");
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (times, end) in self.times.iter().zip(["with reloads; ", "without"]) {
            let times = times.lock().expect("no caller panics");
            let at = |share| times.value_at_quantile(share) as f64 / 1e3;
            let (count, longest) = (times.len(), times.max() as f64 / 1e3);
            let most = [0.5, 0.99, 0.999].map(at);
            write!(formatter, "{count} in {most:.2?} ms (50, 99, 99.9 %), at most {longest:.2} {end}")?;
        }
        Ok(())
    }
}

/// Ends the callers when it is dropped.
struct End<'p>([&'p Place; 2]);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|place| place.set(Phase::Ends));
    }
}

/// The memory of the broker's process and of this one, the application.
struct Memory {
    broker: Used,
    application: Used,
}

impl Memory {
    fn of(broker: &Broker) -> Memory {
        let broker = Used::by(&broker.pid().as_raw_nonzero().to_string());
        Memory { broker, application: Used::by("self") }
    }

    fn is_near(&self, before: &Memory) -> bool {
        self.broker.resident <= before.broker.resident + MEMORY_BYTES
    }

    /// Returns the memory once it is near this again, or after some seconds as it is.
    fn settled(&self, broker: &Broker) -> Memory {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let now = Memory::of(broker);
            if now.is_near(self) || Instant::now() > end {
                return now;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "broker {}, application {}", self.broker, self.application)
    }
}

/// The memory of a process, in bytes.
struct Used {
    resident: u64,
    /// Machine code that is not in a file: that of plug-ins.
    code: u64,
}

impl Used {
    fn by(process: &str) -> Used {
        let read = |file: &str| fs::read_to_string(format!("/proc/{process}/{file}")).expect("the process runs");
        let (sizes, maps) = (read("statm"), read("maps"));
        let pages: u64 = sizes.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("numbers");
        let address = |text: &str| u64::from_str_radix(text, 16).expect("an address");
        let code = maps.lines().filter_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [range, "r-xp", _, _, _] => range.split_once('-').map(|(start, end)| address(end) - address(start)),
            _ => None,
        });
        Used { resident: pages * 4096, code: code.sum() }
    }
}

impl fmt::Display for Used {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} MiB (code of plug-ins {} MiB)", self.resident >> 20, self.code >> 20)
    }
}
