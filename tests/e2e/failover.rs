//! Clients and commands on a cluster whose leaders change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millstream_client::{
    Admin, ClientConfig, Consumer, ConsumerConfig, NewTopic, OffsetReset, Producer, ProducerConfig, ProducerRecord,
    TopicPartition,
};
use millstream_tests::{Cluster, Tool, millstream};

/// The limit of every wait. It is generous, since tests share the machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Creates a topic with three replicas when this many nodes are alive.
async fn create(admin: &Admin, name: &str, partitions: i32, nodes: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let brokers = admin.describe_cluster().await.expect("a cluster").brokers;
        if brokers.iter().filter(|broker| !broker.fenced).count() == nodes {
            break;
        }
        assert!(Instant::now() < deadline, "{brokers:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let topic = NewTopic {
        name: name.to_owned(),
        partitions: Some(partitions),
        replication_factor: Some(3),
        configs: [("min.insync.replicas".to_owned(), "2".to_owned())].into(),
    };
    admin.create_topics(&[topic]).await.expect("created");
}

async fn leader(admin: &Admin, topic: &str) -> Option<i32> {
    let topics = admin.describe_topics(&[topic.to_owned()]).await.expect("the topic exists");
    topics[0].partitions[0].leader
}

/// Produces numbers until it is stopped. Returns how many, and the longest time between two acknowledgements.
async fn produce(bootstrap: String, stop: Arc<AtomicBool>) -> (u64, Duration) {
    let mut config = ProducerConfig::new(&bootstrap);
    config.linger = Duration::from_millis(1);
    let producer = Producer::builder(config).build().expect("valid configs");
    let (sender, mut deliveries) = tokio::sync::mpsc::unbounded_channel();
    let acknowledged = tokio::spawn(async move {
        let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
        let mut offset = 0;
        while let Some(delivery) = deliveries.recv().await {
            let delivery: millstream_client::Delivery = delivery;
            let stored = delivery.await.expect("every record is stored");
            assert_eq!(stored.offset, offset, "in order, and each once");
            offset += 1;
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        longest
    });
    let mut sent = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let value = sent.to_string();
        let record = ProducerRecord::new("t").value(value.as_bytes());
        sender.send(producer.send(record).await.expect("buffered")).expect("the receiver lives");
        sent += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    drop(sender);
    producer.flush().await;
    (sent, acknowledged.await.expect("no panic"))
}

/// Reads until it is stopped and has `count` records.
async fn read(bootstrap: String, wanted: tokio::sync::watch::Receiver<Option<u64>>) -> Vec<u64> {
    let mut config = ConsumerConfig::new(&bootstrap);
    config.auto_offset_reset = OffsetReset::Earliest;
    let consumer = Consumer::builder(config).build().expect("valid configs");
    consumer.assign([TopicPartition::new("t", 0)]).expect("it has no group");
    let mut found = Vec::new();
    let deadline = Instant::now() + 2 * PATIENCE;
    while wanted.borrow().is_none_or(|wanted| (found.len() as u64) < wanted) {
        assert!(Instant::now() < deadline, "{} records came", found.len());
        for record in consumer.poll(Duration::from_millis(50)).await.expect("a leader change is no error") {
            let text = String::from_utf8(record.value.expect("a value").to_vec()).expect("UTF-8");
            found.push(text.parse().expect("a number"));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_and_a_consumer_survive_the_death_of_two_leaders() {
    let mut nodes = tokio::task::spawn_blocking(|| Cluster::start(3, &[])).await.expect("started");
    let admin = Admin::new(ClientConfig::new(&nodes.bootstrap())).expect("valid configs");
    create(&admin, "t", 1, 3).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (wanted, receiver) = tokio::sync::watch::channel(None);
    let producing = tokio::spawn(produce(nodes.bootstrap(), Arc::clone(&stop)));
    let reading = tokio::spawn(read(nodes.bootstrap(), receiver));
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let old = leader(&admin, "t").await.expect("it has a leader");
        nodes.kill(old);
        let deadline = Instant::now() + PATIENCE;
        while leader(&admin, "t").await.is_none_or(|new| new == old) {
            assert!(Instant::now() < deadline, "no other leader");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        nodes = tokio::task::spawn_blocking(move || {
            nodes.restart(old);
            nodes
        })
        .await
        .expect("started");
        // All replicas are in sync before the next one dies.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let topics = admin.describe_topics(&["t".to_owned()]).await.expect("the topic exists");
            if topics[0].partitions[0].in_sync.len() == 3 {
                break;
            }
            assert!(Instant::now() < deadline, "{topics:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let (sent, longest) = producing.await.expect("no panic");
    println!("{sent} records, the longest gap was {longest:?}");
    assert!(longest < Duration::from_secs(20), "{longest:?}");
    wanted.send_replace(Some(sent));
    let found = reading.await.expect("no panic");
    assert!(found.iter().copied().eq(0..sent), "every record once and in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_drained_and_removed() {
    let mut nodes = tokio::task::spawn_blocking(|| Cluster::start(4, &[])).await.expect("started");
    let admin = Admin::new(ClientConfig::new(&nodes.bootstrap())).expect("valid configs");
    create(&admin, "t", 8, 4).await;
    let run =
        |arguments: &[&str]| Tool::new(millstream()).arg("cluster").args(arguments).args(["-b", &nodes.bootstrap()]);
    let described =
        || serde_json::from_str::<serde_json::Value>(&run(&["describe", "--json"]).succeed()).expect("JSON");
    assert_eq!(described()["nodes"].as_array().map(Vec::len), Some(4));
    let rejected = run(&["remove", "4"]).run();
    assert!(rejected.stderr.contains("run `millstream cluster drain 4` first"), "{}", rejected.stderr);
    let drained = run(&["drain", "4", "--json"]).limit(PATIENCE).succeed();
    let last = serde_json::from_str::<serde_json::Value>(drained.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&last["left"], &last["node"]), (&0.into(), &4.into()), "{drained}");
    let after = described();
    assert!(after["replicas"].as_array().expect("a list").iter().all(|replica| replica["node"] != 4), "{after}");
    assert_eq!(after["under_replicated"], serde_json::json!([]));
    assert_eq!(after["nodes"][3]["state"], "cordoned", "{after}");
    // A topic that comes now goes to the others.
    create(&admin, "later", 8, 4).await;
    let wide = NewTopic { name: "wide".to_owned(), replication_factor: Some(4), ..NewTopic::default() };
    let too_many = admin.create_topics(&[wide]).await.expect_err("one node is cordoned");
    assert!(too_many.to_string().contains("cordoned"), "{too_many}");
    let after = described();
    assert!(after["replicas"].as_array().expect("a list").iter().all(|replica| replica["node"] != 4), "{after}");

    // The plan has one partition on the nodes in another order; then the first of them leads.
    let to = ["reassign", "t:0", "--to", "3,2,1"];
    assert_eq!(run(&to).succeed(), "t:0  moves to 3,2,1\n");
    run(&["elect", "t:0"]).succeed();
    let topics = admin.describe_topics(&["t".to_owned()]).await.expect("the topic exists");
    let partition = &topics[0].partitions[0];
    assert_eq!((partition.leader, &partition.replicas[..]), (Some(3), &[3, 2, 1][..]));

    let rejected = run(&["remove", "4"]).run();
    assert!(rejected.stderr.contains("node 4 is running"), "{}", rejected.stderr);
    nodes.kill(4);
    let run =
        |arguments: &[&str]| Tool::new(millstream()).arg("cluster").args(arguments).args(["-b", &nodes.bootstrap()]);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let removed = run(&["remove", "4"]).run();
        if removed.code == Some(0) {
            break;
        }
        assert!(removed.stderr.contains("node 4 is running") && Instant::now() < deadline, "{}", removed.stderr);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let quorum = run(&["quorum", "--json"]).succeed();
    let quorum: serde_json::Value = serde_json::from_str(&quorum).expect("JSON");
    assert_eq!(quorum["nodes"].as_array().map(Vec::len), Some(3), "{quorum}");
}
