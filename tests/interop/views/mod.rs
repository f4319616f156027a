//! Views, read by other projects' clients.

mod java;
mod watch;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use millstream_record::{BatchBuilder, Codec, TimestampType};
use millstream_tests::{Broker, Tool};
use millstream_wire::messages::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, PartitionProduceData, ProduceRequest, TopicProduceData,
};
use millstream_wire::{ErrorCode, Records, Str};

use crate::support::Raw;
use watch::{Fetch, Watch};

/// The one record in the long gap that the view shows.
const MATCH: &str = "keep this one";

/// The number of records before it, and after it.
const BEFORE: usize = 10_000_000;
const BEHIND: usize = 160_000;

/// The records of a batch, about 700 KB.
const A_BATCH: usize = 80_000;

/// The minimum bytes that the clients ask for. The gap has so few matches that only the timeout ends a fetch.
const MIN_BYTES: i32 = 65_536;
const MAX_WAIT: Duration = Duration::from_millis(700);

/// How much earlier than asked for a fetch may get its response, since clocks and timers differ a little.
const EARLY: Duration = Duration::from_millis(20);

const LIMIT: Duration = Duration::from_secs(240);

pub(crate) fn trials() -> Vec<Trial> {
    let python = |script: &'static str| {
        ["view-gap", "view-group"].into_iter().map(move |command| {
            let name = format!("views::{script}::{}", command.replace('-', "_"));
            crate::trial(&name, "MILLSTREAM_PYTHON", move |python| {
                with_script(command, Tool::new(python).env("PYTHONDONTWRITEBYTECODE", "1"), python_script(script));
            })
        })
    };
    let node = ["view-gap", "view-group", "dropped"].into_iter().map(|command| {
        let name = format!("views::kafkajs::{}", command.replace('-', "_"));
        crate::trial(&name, "MILLSTREAM_KAFKAJS", move |packages| {
            let script = folder("node").join("with_kafkajs.js");
            with_script(command, Tool::new("node").env("NODE_PATH", packages), script);
        })
    });
    let mut trials: Vec<Trial> = ["with_confluent_kafka", "with_kafka_python", "with_aiokafka"]
        .into_iter()
        .flat_map(python)
        .chain(node)
        .chain(java::trials())
        .collect();
    trials.push(crate::trial("views::kcat::view_gap", "MILLSTREAM_KCAT", |kcat| {
        gap(|bootstrap| by_kcat(kcat, bootstrap))
    }));
    trials
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop").join(name)
}

fn python_script(name: &str) -> PathBuf {
    folder("python").join(name).with_extension("py")
}

/// Runs one command of a script that prints `COMMAND: ok` on success.
fn with_script(command: &str, tool: Tool, script: PathBuf) {
    let run = |bootstrap: &str| {
        let output = tool.arg(script).args([command, bootstrap]).limit(LIMIT).succeed();
        assert!(output.ends_with(&format!("{command}: ok\n")), "{output}");
    };
    if command == "view-gap" {
        gap(run);
    } else {
        let broker = Broker::builder().set("group.initial.rebalance.delay.ms", "0").start();
        run(&broker.bootstrap());
    }
}

/// Reads to the end with kcat, which has to pass the gap behind the match to find it.
fn by_kcat(kcat: &str, bootstrap: &str) {
    let read = Tool::new(kcat)
        .args(["-q", "-b", bootstrap, "-C", "-t", "view", "-o", "beginning", "-e", "-f", "%o %s\n"])
        .args(["-X", &format!("fetch.min.bytes={MIN_BYTES}")])
        .args(["-X", &format!("fetch.wait.max.ms={}", MAX_WAIT.as_millis())])
        .limit(LIMIT)
        .succeed();
    assert_eq!(read, format!("{BEFORE} {MATCH}\n"));
}

/// Runs a client on a view that shows one of ten million records. A relay checks that the client neither spins nor
/// stalls, and that fetches take the time that it asked for.
fn gap(client: impl FnOnce(&str)) {
    let watch = Watch::listen();
    let advertised = format!("PLAINTEXT://{}", watch.address());
    let broker =
        Broker::builder().set("advertised.listeners", &advertised).set("group.initial.rebalance.delay.ms", "0").start();
    fill(&broker);
    watch.lead_to(broker.address());
    let begun = Instant::now();
    client(&watch.address().to_string());
    let (took, fetches) = (begun.elapsed(), watch.fetches());
    check(&fetches, took);
}

fn check(fetches: &[Fetch], took: Duration) {
    // The fetches come one at a time, each for as long as it may take. More of them would mean that the timeout was not
    // honoured.
    let most = took.as_millis() / MAX_WAIT.as_millis() + 3;
    assert!(!fetches.is_empty() && fetches.len() as u128 <= most, "{} fetches in {took:?}: {fetches:?}", fetches.len());
    for fetch in fetches {
        let asked = (fetch.min_bytes, Duration::from_millis(fetch.max_wait_ms as u64));
        assert_eq!(asked, (MIN_BYTES, MAX_WAIT), "{fetch:?}");
        assert!(fetch.took + EARLY >= MAX_WAIT, "response too early: {fetch:?} of {fetches:?}");
        assert!(fetch.took < MAX_WAIT + Duration::from_secs(5), "response too late: {fetch:?} of {fetches:?}");
    }
    let end = (BEFORE + 1 + BEHIND) as i64;
    let steps = fetches.windows(2);
    let stalled = steps.filter(|pair| pair[0].offset < end && pair[1].offset <= pair[0].offset).count();
    assert_eq!(stalled, 0, "a fetch that led nowhere: {fetches:?}");
}

/// Creates the topic and its view, and fills the log with batches of tiny records.
fn fill(broker: &Broker) {
    let mut raw = Raw::to(broker.address());
    create(&mut raw, "source", &[]);
    create(&mut raw, "view", &[("view.of", "source"), ("stage.filter", r#"contains{"text":"keep"}"#)]);
    let filler = batch(&vec!["-"; A_BATCH]);
    let fillers = |raw: &mut Raw, records: usize| (0..records / A_BATCH).for_each(|_| produce(raw, filler.clone()));
    fillers(&mut raw, BEFORE);
    produce(&mut raw, batch(&[MATCH]));
    fillers(&mut raw, BEHIND);
}

fn batch(values: &[&str]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    for value in values {
        builder.append(1_700_000_000_000, None, Some(value.as_bytes()), []).expect("room for a record");
    }
    builder.build().expect("a batch")
}

fn create(raw: &mut Raw, name: &str, configs: &[(&str, &str)]) {
    let configs = configs
        .iter()
        .map(|(name, value)| CreatableTopicConfig { name: Str::from(*name), value: Some(Str::from(*value)) });
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: -1,
        replication_factor: -1,
        configs: configs.collect(),
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, validate_only: false };
    let created = raw.call(7, &request).topics.remove(0);
    assert_eq!(created.error_code, ErrorCode::NONE, "{name}: {:?}", created.error_message);
}

fn produce(raw: &mut Raw, batch: Vec<u8>) {
    let data = PartitionProduceData { index: 0, records: Records::Bytes(batch.into()) };
    let topic = TopicProduceData { name: "source".into(), partition_data: vec![data], ..Default::default() };
    let request = ProduceRequest { transactional_id: None, acks: 1, timeout_ms: 30_000, topic_data: vec![topic] };
    let produced = raw.call(9, &request).responses.remove(0).partition_responses.remove(0);
    assert_eq!(produced.error_code, ErrorCode::NONE, "{:?}", produced.error_message);
}
