//! Hot reload at full speed: four producers and two consumers, while a partitioner and a filter are swapped fifty times
//! each through a watched folder.
//!
//! Version v of the partitioner sends row i of a batch to partition v + i. The partitions of one producer's records, in
//! the order of sending, therefore show which version saw which rows: runs that rise by one and begin at v. If two
//! versions shared a batch, its run would begin at neither. Version v of the filter counts its rows under its own name.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use millstream_client::{Consumer, Producer, ProducerConfig, ProducerRecord, TopicPartition};
use millstream_stage::{Engine, EngineConfig, Kind, Library, Stage, StageSpec, Swapped, WatchEvent, Watcher};
use tempfile::TempDir;

use crate::guests::{Guest, IMPORT_COUNT};
use crate::records::{create, from_beginning};
use crate::{PATIENCE, both};

const SWAPS: u32 = 50;
const PRODUCERS: u32 = 4;
const PARTITIONS: i32 = 64;

/// The longest median pause of a call during a swap. It is far below a compilation, which takes tens of milliseconds.
/// Pauses take microseconds, except when the machine runs another thread meanwhile.
const PAUSE_MAX: Duration = Duration::from_millis(1);

pub(crate) fn trials() -> Vec<Trial> {
    both("stages are swapped fifty times at full speed", swaps)
}

fn partitioner(version: u32) -> Vec<u8> {
    Guest::partitioner().name("spread").version(&format!("1.0.{version}")).number(version).build()
}

fn filter(version: u32) -> Vec<u8> {
    let name = counter(version);
    let count =
        format!("(call $count (i32.const 192) (i32.const {}) (i64.extend_i32_u (local.get $rows)))", name.len());
    let guest = Guest::filter().name("counting").version(&format!("1.0.{version}"));
    guest.text(name).import(IMPORT_COUNT).hook("filter", &count).build()
}

fn counter(version: u32) -> String {
    format!("rows of {version}")
}

/// Replaces a file with a new version atomically, as a build should.
fn replace(folder: &Path, name: &str, component: &[u8]) {
    let aside = folder.join("aside");
    fs::write(&aside, component).unwrap();
    fs::rename(aside, folder.join(name)).unwrap();
}

async fn swaps(bootstrap: String) {
    let topic = create(&bootstrap, "swaps", PARTITIONS).await;
    let folder = TempDir::new().unwrap();
    replace(folder.path(), "spread.wasm", &partitioner(0));
    replace(folder.path(), "counting.wasm", &filter(0));
    let library = Arc::new(Library::new(Engine::new(EngineConfig::default()).unwrap()));
    assert!(library.add_folder(folder.path()).unwrap().is_empty());
    let resolve = |name: &str, kind| library.resolve(&StageSpec::parse(name).unwrap(), kind).unwrap();
    let (spread, counting) = (resolve("spread", Kind::Partitioner), resolve("counting", Kind::Filter));
    let swapped = Arc::new(Mutex::new(Vec::new()));
    let watcher = Watcher::start(library.clone(), {
        let swapped = swapped.clone();
        move |event| match event {
            WatchEvent::Reloaded { published, .. } => swapped.lock().unwrap().extend(published.swapped),
            event => panic!("{event:?}"),
        }
    })
    .unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|number| tokio::spawn(produce(bootstrap.clone(), topic.clone(), number, spread.clone(), stop.clone())))
        .collect();
    let (all_sent, ending) = tokio::sync::watch::channel(false);
    let consumers: Vec<_> = (0..2)
        .map(|half| tokio::spawn(consume(bootstrap.clone(), topic.clone(), half, counting.clone(), ending.clone())))
        .collect();

    let swapping = tokio::task::spawn_blocking({
        let (spread, counting) = (spread.clone(), counting.clone());
        move || swap_all(folder.path(), &spread, &counting)
    });
    let went_on = swapping.await.unwrap();
    stop.store(true, Ordering::SeqCst);
    let mut counts = Vec::new();
    for producer in producers {
        counts.push(producer.await.unwrap());
    }
    all_sent.send(true).unwrap();
    let mut partitions_of: Vec<Vec<Option<u8>>> = counts.iter().map(|count| vec![None; *count as usize]).collect();
    for consumer in consumers {
        for (partition, producer, number) in consumer.await.unwrap() {
            let place = &mut partitions_of[producer as usize][number as usize];
            assert_eq!(*place, None, "record {number} of producer {producer} was delivered twice");
            *place = Some(partition);
        }
    }
    drop(watcher);
    check_pauses(&swapped.lock().unwrap());
    for (producer, partitions) in partitions_of.iter().enumerate() {
        assert!(partitions.iter().all(Option::is_some), "a record of producer {producer} was not delivered");
        check_runs(producer, partitions);
    }
    check_stage(&spread, &counts);
    check_stage(&counting, &counts);
    let seen: u64 = counting.counters().values().sum();
    assert_eq!(seen, counting.stats().records, "each batch was counted whole by one version");
    let versions = counting.counters().len();
    // The number depends on the machine. If a swap delayed calls, or waited for them, there would be very few.
    assert!(versions as u32 > SWAPS / 5, "only {versions} versions of the filter saw rows");
    assert!(went_on > SWAPS / 5, "calls went on during {went_on} of {} swaps only", 2 * SWAPS);
}

/// Swaps both stages in turn. Returns for each stage during how many swaps it served calls.
fn swap_all(folder: &Path, spread: &Stage, counting: &Stage) -> u32 {
    let mut went_on = 0;
    for version in 1..=SWAPS {
        for (stage, name, component) in
            [(spread, "spread.wasm", partitioner(version)), (counting, "counting.wasm", filter(version))]
        {
            let calls = stage.stats().calls;
            replace(folder, name, &component);
            let end = Instant::now() + PATIENCE;
            while stage.stats().swaps < u64::from(version) {
                assert!(Instant::now() < end, "version {version} of {name} does not take over");
                std::thread::sleep(Duration::from_millis(1));
            }
            went_on += u32::from(stage.stats().calls > calls);
        }
    }
    went_on
}

/// Sends numbered records as fast as the buffer takes them. Returns their number.
async fn produce(bootstrap: String, topic: String, producer: u32, spread: Arc<Stage>, stop: Arc<AtomicBool>) -> u32 {
    let mut config = ProducerConfig::new(&bootstrap);
    config.buffer_memory = 1 << 20;
    let client = Producer::builder(config).partitioner(spread).build().unwrap();
    let failure = Arc::new(Mutex::new(None));
    let mut number = 0_u32;
    while !stop.load(Ordering::SeqCst) {
        let value = [producer.to_be_bytes(), number.to_be_bytes()].concat();
        let failure = failure.clone();
        let note = move |verdict: Result<_, _>| {
            if let Err(error) = verdict {
                failure.lock().unwrap().get_or_insert(error);
            }
        };
        client.send_with_callback(ProducerRecord::new(&topic).value(&value), note).await.unwrap();
        number += 1;
    }
    client.close(PATIENCE).await.unwrap();
    let failure = failure.lock().unwrap().take();
    assert!(failure.is_none(), "{failure:?}");
    number
}

/// Reads half of the partitions, to their ends once everything was sent.
async fn consume(
    bootstrap: String,
    topic: String,
    half: i32,
    counting: Arc<Stage>,
    ending: tokio::sync::watch::Receiver<bool>,
) -> Vec<(u8, u32, u32)> {
    let mut config = from_beginning(&bootstrap);
    config.max_poll_records = 10_000;
    let consumer = Consumer::builder(config).filter(counting).build().unwrap();
    let partitions: Vec<_> = (half * PARTITIONS / 2..(half + 1) * PARTITIONS / 2)
        .map(|one| TopicPartition::new(topic.as_str(), one))
        .collect();
    consumer.assign(partitions.clone()).unwrap();
    let mut read = Vec::new();
    let mut ends = None;
    loop {
        for record in consumer.poll(Duration::from_millis(50)).await.unwrap() {
            let (producer, number) = record.value.as_deref().unwrap().split_at(4);
            let word = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
            read.push((record.partition as u8, word(producer), word(number)));
        }
        if ends.is_none() && *ending.borrow() {
            ends = Some(consumer.end_offsets(&partitions).await.unwrap());
        }
        let done = |ends: &std::collections::BTreeMap<TopicPartition, i64>| {
            ends.iter().all(|(one, end)| consumer.position(one).is_some_and(|position| position >= *end))
        };
        if ends.as_ref().is_some_and(done) {
            break;
        }
    }
    consumer.close().await.unwrap();
    read
}

/// Checks the partitions in the order of sending: runs that rise by one, each from the number of a version. Versions
/// never go back.
fn check_runs(producer: usize, partitions: &[Option<u8>]) {
    let mut version = 0;
    let mut next = None;
    for (number, partition) in partitions.iter().enumerate() {
        let partition = partition.expect("it was checked that all are there");
        if next != Some(partition) {
            assert!(
                (version..=SWAPS as u8).contains(&partition),
                "record {number} of producer {producer} went to {partition}, in the middle of a batch of \
                 version {version}"
            );
            version = partition;
        }
        next = Some((partition + 1) % PARTITIONS as u8);
    }
}

fn check_pauses(swapped: &[Swapped]) {
    assert_eq!(swapped.len(), 2 * SWAPS as usize);
    let mut pauses: Vec<Duration> = swapped.iter().map(|one| one.pause).collect();
    pauses.sort();
    let median = pauses[pauses.len() / 2];
    assert!(median < PAUSE_MAX, "a swap held calls up for {median:?}");
}

fn check_stage(stage: &Stage, counts: &[u32]) {
    let stats = stage.stats();
    assert_eq!((stats.swaps, stats.errors, stats.traps), (u64::from(SWAPS), 0, 0));
    assert_eq!(stats.records, counts.iter().map(|count| u64::from(*count)).sum::<u64>());
}
