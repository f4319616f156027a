//! Plug-ins in the cluster: the same operations through plain Kafka APIs at our broker and at Apache Kafka, and
//! applications that follow them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use millstream_client::plugins::{ClusterPlugins, PluginError, PluginStore, Pushed, RegistryError, TOPIC};
use millstream_client::{
    Admin, ClientConfig, Consumer, ConsumerConfig, Error, Producer, ProducerConfig, ProducerRecord, TopicPartition,
};
use millstream_registry::format::{EventKind, Key};
use millstream_stage::{Column, Digest, Engine, EngineConfig, Kind, Library, Records, Stage};
use millstream_tests::{Tool, millstream};

use crate::guests::Guest;
use crate::records::{create, read_all};
use crate::{PATIENCE, both, unique};

pub(crate) fn trials() -> Vec<Trial> {
    [
        both("plug-ins are pushed, activated, rolled back and deleted", operations),
        both("concurrent pushes all become versions", pushers),
        both("an application follows the cluster's versions", follow),
        both("a topic's stages come from the cluster", topic_stages),
        both("a running application follows the stages of its topic", followed_topic),
        both("records without a meaning change nothing", hostile),
        both("commands push, and take stages from the cluster", commands),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn config(bootstrap: &str) -> ClientConfig {
    ClientConfig::new(bootstrap)
}

fn store(bootstrap: &str) -> PluginStore {
    PluginStore::new(config(bootstrap)).unwrap()
}

fn engine() -> Engine {
    Engine::new(EngineConfig::default()).unwrap()
}

fn filter(name: &str, version: u32) -> Guest {
    Guest::filter().name(name).version(&format!("{version}.0.0"))
}

async fn push(store: &PluginStore, guest: &Guest, activate: bool) -> Result<Pushed, PluginError> {
    let component = guest.build();
    let plugin = engine().load(&component).unwrap();
    store.push(&component, &plugin, None, activate).await
}

/// Waits until `condition` holds.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "timed out waiting for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn operations(bootstrap: String) {
    let name = unique("region");
    let store = store(&bootstrap);
    let first = push(&store, &filter(&name, 1), true).await.unwrap();
    assert_eq!((first.number, first.active, first.is_new), (1, true, true));
    let again = push(&store, &filter(&name, 1), true).await.unwrap();
    assert_eq!((again.number, again.active, again.is_new), (1, true, false));
    let second = push(&store, &filter(&name, 2), false).await.unwrap();
    assert_eq!((second.number, second.active), (2, false));
    assert_eq!(store.load(&name, None).await.unwrap(), filter(&name, 1).build());
    assert_eq!(store.load(&name, Some(2)).await.unwrap(), filter(&name, 2).build());
    assert_eq!(store.activate(&name, 2).await.unwrap(), 2);
    assert_eq!(store.rollback(&name, "a test", false).await.unwrap(), 1);
    let image = store.image().await.unwrap();
    let manifest = image.plugin(&name).unwrap();
    let events: Vec<_> = manifest.history.iter().map(|event| (event.event, event.version)).collect();
    assert_eq!(
        events,
        [
            (EventKind::Pushed, 1),
            (EventKind::Activated, 1),
            (EventKind::Pushed, 2),
            (EventKind::Activated, 2),
            (EventKind::RolledBack, 1)
        ]
    );
    assert_eq!(manifest.version(2).unwrap().bad.as_deref(), Some("a test"));
    let nothing = store.rollback(&name, "again", false).await;
    assert!(
        matches!(nothing, Err(PluginError::Registry(RegistryError::NothingBefore { active: 1, .. }))),
        "{nothing:?}"
    );
    let serves = store.delete(&name, Some(1)).await;
    assert!(matches!(serves, Err(PluginError::Registry(RegistryError::Active { number: 1, .. }))), "{serves:?}");
    store.delete(&name, Some(2)).await.unwrap();
    let image = store.image().await.unwrap();
    assert_eq!(image.plugin(&name).unwrap().numbers(), "1");
    assert_eq!(image.place(&second.digest, 0), None, "its bytes are gone too");
    let third = push(&store, &filter(&name, 2), true).await.unwrap();
    assert_eq!((third.number, third.is_new), (3, true), "numbers are not given twice");
    let other = Guest::compressor().name(&name);
    assert!(matches!(push(&store, &other, true).await, Err(PluginError::Registry(RegistryError::Kind { .. }))));
    store.delete(&name, None).await.unwrap();
    let image = store.image().await.unwrap();
    assert!(image.plugin(&name).is_none());
    assert_eq!((image.place(&first.digest, 0), image.place(&second.digest, 0)), (None, None));
    assert!(matches!(store.load(&name, None).await, Err(PluginError::Registry(RegistryError::Unknown { .. }))));
    store.close().await;
}

async fn pushers(bootstrap: String) {
    const PUSHERS: u32 = 6;
    let name = unique("contended");
    // The topic exists before they begin.
    push(&store(&bootstrap), &filter(&name, 100), true).await.unwrap();
    let pushers: Vec<_> = (0..PUSHERS)
        .map(|version| {
            let (bootstrap, name) = (bootstrap.clone(), name.clone());
            tokio::spawn(async move {
                let pushed = push(&store(&bootstrap), &filter(&name, version), true).await.unwrap();
                (version, pushed.number)
            })
        })
        .collect();
    let mut numbers = BTreeMap::new();
    for pusher in pushers {
        let (version, number) = pusher.await.unwrap();
        numbers.insert(number, format!("{version}.0.0"));
    }
    assert_eq!(numbers.keys().copied().collect::<Vec<_>>(), (2..=PUSHERS + 1).collect::<Vec<_>>());
    let store = store(&bootstrap);
    let image = store.image().await.unwrap();
    let manifest = image.plugin(&name).unwrap();
    for (number, version) in numbers {
        assert_eq!(manifest.version(number).unwrap().version, version);
        let component = store.load(&name, Some(number)).await.unwrap();
        assert_eq!(Digest::of(&component), manifest.version(number).unwrap().digest);
    }
    assert_eq!(manifest.active, PUSHERS + 1, "the last push is active");
}

/// Calls a filter with one row, and returns whether the call succeeded.
fn call(stage: &Stage) -> bool {
    let keys = Column { data: &[], ends: &[0], nulls: &[1] };
    let values = Column { data: b"value", ends: &[5], nulls: &[] };
    let records = Records { rows: 1, timestamps: &[0], keys: Some(keys), values: Some(values), headers: None };
    stage.filter("topic", &records).is_ok()
}

async fn follow(bootstrap: String) {
    let name = unique("followed");
    let store = store(&bootstrap);
    // At our broker the topic does not exist yet.
    let early = ClusterPlugins::follow(&config(&bootstrap), Arc::new(Library::new(engine()))).await.unwrap();
    push(&store, &filter(&name, 1), true).await.unwrap();
    until("the topic to be found", || early.library().names().contains(&name)).await;
    assert_eq!(early.stage(&name, Kind::Filter).await.unwrap().plugin().version(), "1.0.0");
    let plugins = ClusterPlugins::follow(&config(&bootstrap), Arc::new(Library::new(engine()))).await.unwrap();
    let stage = plugins.stage(&name, Kind::Filter).await.unwrap();
    let pinned = plugins.stage(&format!("{name}@1"), Kind::Filter).await.unwrap();
    let version = || stage.plugin().version().to_owned();
    assert_eq!(version(), "1.0.0");
    push(&store, &filter(&name, 2), true).await.unwrap();
    until("version 2 to serve", || version() == "2.0.0").await;
    assert!(call(&stage));
    // The new version does not work here, so this process keeps the one before, whatever the cluster says.
    push(&store, &filter(&name, 3).hook("configure", "unreachable"), true).await.unwrap();
    push(&store, &filter(&name, 4), false).await.unwrap();
    until("version 4 to be known", || plugins.library().names().contains(&name)).await;
    let anew = plugins.stage(&name, Kind::Filter).await.unwrap();
    assert_eq!((version().as_str(), anew.plugin().version()), ("2.0.0", "2.0.0"));
    store.activate(&name, 4).await.unwrap();
    until("version 4 to serve", || version() == "4.0.0").await;
    // The new version fails here, so this process uses the last good one again.
    push(&store, &filter(&name, 5).hook_with_rows("filter", "unreachable"), true).await.unwrap();
    until("version 5 to serve", || version() == "5.0.0").await;
    assert_eq!([(); 3].map(|()| call(&stage)), [false; 3]);
    until("version 4 to serve again", || version() == "4.0.0").await;
    assert!(call(&stage));
    store.rollback(&name, "it traps", false).await.unwrap();
    push(&store, &filter(&name, 6), true).await.unwrap();
    until("version 6 to serve", || version() == "6.0.0").await;
    assert_eq!(pinned.plugin().version(), "1.0.0");
    let unknown = plugins.stage(&format!("{name}@77"), Kind::Filter).await.unwrap_err();
    assert!(unknown.to_string().contains("has no version 77"), "{unknown}");
}

fn spread(name: &str, number: u32) -> Guest {
    Guest::partitioner().name(name).version(&format!("{number}.0.0")).number(number)
}

async fn topic_stages(bootstrap: String) {
    let (topic, name) = (create(&bootstrap, "staged", 8).await, unique("spread"));
    let store = store(&bootstrap);
    push(&store, &spread(&name, 3), true).await.unwrap();
    let admin = Admin::new(config(&bootstrap)).unwrap();
    ask_for(&admin, &store, &topic, &[("stage.partitioner", Some(&name)), ("stage.compressor", Some("zstd"))]).await;
    let plugins = ClusterPlugins::follow(&config(&bootstrap), defaults()).await.unwrap();
    let wanted = plugins.topic_stages(&topic).await.unwrap();
    assert_eq!((wanted.partitioner.as_deref(), wanted.serializer), (Some(name.as_str()), None));
    let builder = Producer::builder(ProducerConfig::new(&bootstrap));
    let producer = builder.stages_from_cluster(&plugins, &topic).await.unwrap().build().unwrap();
    // The producer still follows the cluster.
    drop(plugins);
    let sent = producer.send(ProducerRecord::new(&topic).value(b"one")).await.unwrap().await.unwrap();
    assert_eq!(sent.partition, 3);
    push(&store, &spread(&name, 5), true).await.unwrap();
    let end = Instant::now() + PATIENCE;
    let mut partitions = BTreeSet::new();
    while !partitions.contains(&5) {
        assert!(Instant::now() < end, "the new version does not take over in the producer");
        let sent = producer.send(ProducerRecord::new(&topic).value(b"more")).await.unwrap().await.unwrap();
        partitions.insert(sent.partition);
    }
    assert!(partitions.is_subset(&[3, 5].into()), "{partitions:?}");
    producer.close(PATIENCE).await.unwrap();
    assert!(read_all(&bootstrap, &topic).await.len() >= 2);
}

/// Returns the default plug-ins, as an application may have them.
fn defaults() -> Arc<Library> {
    let library = Library::new(engine());
    for plugin in &millstream_plugins::DEFAULTS {
        library.add_embedded(plugin.name, plugin.needs_deadline, || plugin.component());
    }
    Arc::new(library)
}

/// Sets the stages of a topic. A cluster that knows these configs stores them with the topic, another one in the store.
async fn ask_for(admin: &Admin, store: &PluginStore, topic: &str, stages: &[(&str, Option<&str>)]) {
    let changes: Vec<_> = stages.iter().map(|(key, stage)| ((*key).to_owned(), stage.map(str::to_owned))).collect();
    match admin.alter_configs(topic, &changes.iter().cloned().collect()).await {
        Ok(()) => {}
        Err(Error::Broker { .. }) => store.set_topic_stages(topic, &changes).await.unwrap(),
        Err(error) => panic!("{error}"),
    }
    // Apache Kafka silently drops configs that it does not know.
    if stages.iter().any(|(_, stage)| stage.is_none()) && store.image().await.unwrap().topic(topic).is_some() {
        store.set_topic_stages(topic, &changes).await.unwrap();
    }
}

/// Sends a record and returns its partition.
async fn partition_of_next(producer: &Producer, topic: &str) -> i32 {
    producer.send(ProducerRecord::new(topic).value(b"{}")).await.unwrap().await.unwrap().partition
}

/// Sends until the records go to `wanted`. Until then they must go to one of `before`.
async fn until_partition(producer: &Producer, topic: &str, before: &[i32], wanted: i32) {
    let end = Instant::now() + PATIENCE;
    loop {
        let partition = partition_of_next(producer, topic).await;
        if partition == wanted {
            return;
        }
        assert!(before.contains(&partition), "no stage of the topic chooses {partition}");
        assert!(Instant::now() < end, "the topic's new stages do not take over");
    }
}

async fn followed_topic(bootstrap: String) {
    let topic = create(&bootstrap, "followed-topic", 8).await;
    let (three, five) = (unique("three"), unique("five"));
    let store = store(&bootstrap);
    push(&store, &spread(&three, 3), true).await.unwrap();
    push(&store, &spread(&five, 5), true).await.unwrap();
    let admin = Admin::new(config(&bootstrap)).unwrap();
    ask_for(&admin, &store, &topic, &[("stage.partitioner", Some(&three))]).await;
    let config = ClientConfig { metadata_max_age: Duration::from_millis(100), ..config(&bootstrap) };
    // An application without the default plug-ins does not have the stage that is active at the broker.
    let bare = ClusterPlugins::follow(&config, Arc::new(Library::new(engine()))).await.unwrap();
    let builder = Producer::builder(ProducerConfig::new(&bootstrap));
    let producer = builder.stages_from_cluster(&bare, &topic).await.unwrap().build().unwrap();
    let plugins = ClusterPlugins::follow(&config, defaults()).await.unwrap();
    let builder = Consumer::builder(ConsumerConfig::new(&bootstrap));
    let consumer = builder.stages_from_cluster(&plugins, &topic).await.unwrap().build().unwrap();
    consumer.assign((0..8).map(|partition| TopicPartition::new(topic.as_str(), partition))).unwrap();
    assert_eq!(partition_of_next(&producer, &topic).await, 3);
    ask_for(&admin, &store, &topic, &[("stage.partitioner", Some(&five))]).await;
    until_partition(&producer, &topic, &[3], 5).await;
    // The application does not have this stage. The ones before stay in use until the next good ones are set.
    ask_for(&admin, &store, &topic, &[("stage.serializer", Some("json"))]).await;
    for _ in 0..20 {
        assert_eq!(partition_of_next(&producer, &topic).await, 5);
    }
    // The consumer uses it too: from some batch on, values that are not JSON fail there.
    let end = Instant::now() + PATIENCE;
    let failure = loop {
        assert!(Instant::now() < end, "the topic's new serializer does not take over");
        producer.send(ProducerRecord::new(&topic).value(b"no JSON")).await.unwrap().await.unwrap();
        if let Err(error) = consumer.poll(Duration::from_millis(100)).await {
            break error;
        }
    };
    assert!(failure.to_string().contains("stage json"), "{failure}");
    assert!(consumer.stage_stats().iter().any(|stats| stats.plugin == "json" && stats.errors > 0));
    ask_for(&admin, &store, &topic, &[("stage.serializer", None), ("stage.partitioner", Some(&three))]).await;
    until_partition(&producer, &topic, &[5], 3).await;
    // The statistics include replaced stages.
    let stats = producer.stage_stats();
    let names: Vec<String> = stats.iter().map(|stats| stats.version_name().to_string()).collect();
    assert_eq!(names, [format!("{three}@1"), format!("{five}@1"), format!("{three}@1")]);
    assert!(stats.iter().all(|stats| stats.records > 0), "{stats:?}");
    // Removing all stages is a change too: the client partitions by itself again.
    ask_for(&admin, &store, &topic, &[("stage.partitioner", None)]).await;
    let end = Instant::now() + PATIENCE;
    while partition_of_next(&producer, &topic).await == 3 {
        assert!(Instant::now() < end, "the producer keeps a stage that was removed");
    }
    producer.close(PATIENCE).await.unwrap();
    consumer.close().await.unwrap();
}

async fn hostile(bootstrap: String) {
    let name = unique("hostile");
    let store = store(&bootstrap);
    let good = push(&store, &filter(&name, 1), true).await.unwrap();
    let before = store.image().await.unwrap().plugin(&name).unwrap().clone();
    let changed = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut json = serde_json::to_value(&*before).unwrap();
        json["revision"] = (before.revision + 1).into();
        change(&mut json);
        json.to_string().into_bytes()
    };
    let plugin = Key::Plugin(name.clone()).to_string();
    let chunk = |index: u64| format!("chunk/{}/{index}", good.digest);
    let records: Vec<(Option<String>, Option<Vec<u8>>)> = vec![
        (None, Some(b"no key".to_vec())),
        (Some("nonsense".to_owned()), Some(b"x".to_vec())),
        (Some(plugin.clone()), Some(b"{\"name\":".to_vec())),
        (Some(plugin.clone()), Some(b"[".repeat(200_000))),
        (Some(plugin.clone()), Some(changed(&|json| json["name"] = "other".into()))),
        (Some(plugin.clone()), Some(changed(&|json| json["revision"] = 0.into()))),
        (Some(plugin.clone()), Some(changed(&|json| json["versions"][0]["chunks"] = u32::MAX.into()))),
        (Some(plugin.clone()), Some(changed(&|json| json["versions"][0]["size"] = u64::MAX.into()))),
        (Some(plugin.clone()), Some(changed(&|json| json["versions"][0]["digest"] = "00".into()))),
        (Some(plugin.clone()), Some(changed(&|json| json["active"] = 9.into()))),
        (Some(chunk(64)), Some(b"x".to_vec())),
        (Some(chunk(u64::MAX)), Some(b"x".to_vec())),
        (Some("chunk/../../etc/passwd/0".to_owned()), Some(b"x".to_vec())),
        (Some(chunk(0)), Some(Vec::new())),
        (Some(chunk(0)), Some(vec![0; 600 * 1024])),
        (Some(format!("plugin/{}", "x".repeat(500))), Some(b"{}".to_vec())),
        (Some("topic/orders".to_owned()), Some(br#"{"stage.serializer":"a b c"}"#.to_vec())),
    ];
    let producer = Producer::builder(ProducerConfig::new(&bootstrap)).build().unwrap();
    for (key, value) in &records {
        let record = ProducerRecord {
            partition: Some(0),
            key: key.as_deref().map(str::as_bytes),
            value: value.as_deref(),
            ..ProducerRecord::new(TOPIC)
        };
        let outcome = producer.send(record).await.unwrap().await;
        // Apache Kafka stores any record with a key; our broker reports what is wrong with it.
        if let Err(error) = outcome {
            assert!(matches!(error, Error::Invalid(_) | Error::Broker { .. }), "{key:?}: {error}");
        }
    }
    producer.close(PATIENCE).await.unwrap();
    let image = store.image().await.unwrap();
    assert_eq!(image.plugin(&name), Some(&before), "nothing of that is believed");
    assert_eq!(store.load(&name, None).await.unwrap(), filter(&name, 1).build());
    let plugins = ClusterPlugins::follow(&config(&bootstrap), Arc::new(Library::new(engine()))).await.unwrap();
    let stage = plugins.stage(&name, Kind::Filter).await.unwrap();
    assert!(call(&stage));
    // A consistent manifest of a version whose bytes are missing.
    let missing = changed(&|json| {
        let mut version = json["versions"][0].clone();
        version["number"] = 2.into();
        version["digest"] = Digest::of(b"nobody has this").to_string().into();
        json["versions"].as_array_mut().unwrap().push(version);
        json["active"] = 2.into();
        json["next"] = 3.into();
    });
    let producer = Producer::builder(ProducerConfig::new(&bootstrap)).build().unwrap();
    let record = ProducerRecord::new(TOPIC).partition(0).key(plugin.as_bytes()).value(&missing);
    let is_believed = producer.send(record).await.unwrap().await.is_ok();
    producer.close(PATIENCE).await.unwrap();
    if is_believed {
        let lost = store.load(&name, Some(2)).await.unwrap_err();
        assert!(lost.to_string().contains("is missing"), "{lost}");
    }
    let next = push(&store, &filter(&name, 2), true).await.unwrap();
    assert_eq!(next.number, if is_believed { 3 } else { 2 }, "and the store works on");
    until("the next version to serve", || stage.plugin().version() == "2.0.0").await;
    assert_eq!(stage.stats().swaps, 1, "nothing else has served here");
}

async fn commands(bootstrap: String) {
    let (topic, name) = (unique("commanded"), unique("spread"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("spread.wasm");
    std::fs::write(&file, spread(&name, 3).build()).unwrap();
    let run = |args: &[&str]| Tool::new(millstream()).args(args).args(["-b", &bootstrap]).limit(PATIENCE);
    let pushed = run(&["plugin", "push", file.to_str().unwrap()]).succeed();
    assert_eq!(pushed, format!("{name}@1 pushed and active\n"));
    let list = run(&["plugin", "list"]).succeed();
    assert!(list.lines().any(|line| line.starts_with(&format!("{name} ")) || line.starts_with(&name)), "{list}");
    let history = run(&["plugin", "history", &name]).succeed();
    assert_eq!(history.lines().count(), 2, "{history}");
    let config = format!("stage.partitioner={name}");
    run(&["topic", "create", &topic, "-p", "8", "--config", &config, "--config", "retention.ms=1000000"]).succeed();
    let produced = run(&["produce", &topic, "--stages", "cluster", "--stats"]).input("one\n").run();
    assert_eq!(produced.code, Some(0), "{}", produced.stderr);
    assert!(produced.stderr.contains(&format!("stage {name}@1: 1 calls, 1 records")), "{}", produced.stderr);
    run(&["topic", "alter", &topic, "--config", "stage.serializer=json"]).succeed();
    let end = run(&["produce", &topic, "--stages", "cluster"]).input("no JSON\n").run();
    assert_eq!(end.code, Some(1));
    assert!(end.stderr.contains("stage json"), "{}", end.stderr);
    // A stage on the command line takes precedence.
    run(&["produce", &topic, "--stages", "cluster", "--partitioner", "round-robin", "--serializer", "string"])
        .input("two\n")
        .succeed();
    run(&["topic", "alter", &topic, "--delete-config", "stage.serializer"]).succeed();
    run(&["produce", &topic, "--stages", "cluster"]).input("three\n").succeed();
    let read = run(&["consume", &topic, "--from-beginning", "--json", "--stages", "cluster"]).succeed();
    let mut partitions = BTreeMap::new();
    for line in read.lines() {
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        partitions.insert(json["value"].as_str().unwrap().to_owned(), json["partition"].as_u64().unwrap());
    }
    assert_eq!((partitions["one"], partitions["three"], partitions.len()), (3, 3, 3), "{partitions:?}");
    run(&["topic", "delete", &topic]).succeed();
    let gone = run(&["plugin", "delete", &name]).succeed();
    assert_eq!(gone, format!("deleted {name}\n"));
}
