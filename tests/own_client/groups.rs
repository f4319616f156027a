//! Consumer groups: sharing, rebalancing, committing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use millstream_client::{
    Admin, ClientConfig, CommittedOffset, Consumer, ConsumerConfig, ListenerFuture, Producer, ProducerConfig,
    ProducerRecord, RebalanceListener, TopicPartition,
};

use crate::records::{create, from_beginning};
use crate::{PATIENCE, both, unique};

pub(crate) fn trials() -> Vec<Trial> {
    [
        both("a second member gets half, until it leaves", sharing),
        both("a group continues where it committed", committing),
        both("printed records are committed before a member gives up a partition", handing_over),
        both("a commit of a removed member is rejected", zombies),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn config(bootstrap: &str, group: &str) -> ConsumerConfig {
    let mut config = from_beginning(bootstrap);
    config.group_id = Some(group.into());
    config.session_timeout = Duration::from_secs(10);
    config.heartbeat_interval = Duration::from_millis(200);
    config
}

/// A listener that records its calls.
#[derive(Default)]
struct Listener {
    heard: Mutex<Vec<String>>,
}

impl RebalanceListener for Listener {
    fn revoked<'a>(&'a self, partitions: &'a [TopicPartition]) -> ListenerFuture<'a> {
        self.heard.lock().unwrap().push(format!("revoked {}", partitions.len()));
        Box::pin(async {})
    }

    fn assigned<'a>(&'a self, partitions: &'a [TopicPartition]) -> ListenerFuture<'a> {
        self.heard.lock().unwrap().push(format!("assigned {}", partitions.len()));
        Box::pin(async {})
    }
}

/// Polls all consumers until `done`, so that a rebalance can happen.
async fn poll_until(consumers: &[&Consumer], mut done: impl FnMut() -> bool) -> Vec<(usize, i32, i64)> {
    let end = Instant::now() + PATIENCE;
    let mut read = Vec::new();
    while !done() {
        assert!(Instant::now() < end, "timed out");
        for (index, consumer) in consumers.iter().enumerate() {
            let records = consumer.poll(Duration::from_millis(50)).await.unwrap();
            read.extend(records.iter().map(|record| (index, record.partition, record.offset)));
        }
    }
    read
}

async fn produce(bootstrap: &str, topic: &str, partitions: i32, each: usize) {
    let producer = Producer::builder(ProducerConfig::new(bootstrap)).build().unwrap();
    for partition in 0..partitions {
        for _ in 0..each {
            producer.send_and_forget(ProducerRecord::new(topic).partition(partition).value(b"v")).await.unwrap();
        }
    }
    producer.close(PATIENCE).await.unwrap();
}

async fn sharing(bootstrap: String) {
    let (topic, group) = (create(&bootstrap, "sharing", 4).await, unique("sharing"));
    let listener = Arc::new(Listener::default());
    let first = Consumer::builder(config(&bootstrap, &group)).rebalance_listener(listener.clone()).build().unwrap();
    first.subscribe([&topic]).unwrap();
    poll_until(&[&first], || first.assignment().len() == 4).await;
    let second = Consumer::builder(config(&bootstrap, &group)).build().unwrap();
    second.subscribe([&topic]).unwrap();
    poll_until(&[&first, &second], || {
        first.joined() && second.joined() && first.assignment().len() == 2 && second.assignment().len() == 2
    })
    .await;
    let numbers = |consumer: &Consumer| consumer.assignment().iter().map(|one| one.partition).collect::<Vec<_>>();
    let mut halves = [numbers(&first), numbers(&second)];
    halves.sort();
    // The range assignor gives adjacent partitions.
    assert_eq!(halves, [[0, 1], [2, 3]]);

    produce(&bootstrap, &topic, 4, 25).await;
    let mut count = 0;
    let mut by_consumer = [BTreeSet::new(), BTreeSet::new()];
    while count < 100 {
        for (index, partition, offset) in poll_until(&[&first, &second], once()).await {
            assert!(by_consumer[index].insert((partition, offset)));
            count += 1;
        }
    }
    assert_eq!([by_consumer[0].len(), by_consumer[1].len()], [50, 50]);

    let described = Admin::new(ClientConfig::new(&bootstrap)).unwrap().describe_group(&group).await.unwrap();
    assert_eq!((described.state.as_str(), described.assignor.as_str()), ("Stable", "range"));
    assert_eq!(described.members.iter().map(|member| member.partitions.len()).collect::<Vec<_>>(), [2, 2]);

    second.close().await.unwrap();
    poll_until(&[&first], || first.joined() && first.assignment().len() == 4).await;
    first.close().await.unwrap();
    assert_eq!(*listener.heard.lock().unwrap(), ["assigned 4", "revoked 4", "assigned 2", "revoked 2", "assigned 4"]);
}

/// Returns a closure that is false at the first call and true from then on.
fn once() -> impl FnMut() -> bool {
    let mut asked = false;
    move || std::mem::replace(&mut asked, true)
}

async fn committing(bootstrap: String) {
    let (topic, group) = (create(&bootstrap, "committing", 2).await, unique("committing"));
    produce(&bootstrap, &topic, 2, 10).await;
    let partitions = [TopicPartition::new(topic.as_str(), 0), TopicPartition::new(topic.as_str(), 1)];
    let mut manual = config(&bootstrap, &group);
    manual.enable_auto_commit = false;
    let consumer = Consumer::builder(manual).build().unwrap();
    consumer.assign(partitions.clone()).unwrap();
    let committed = CommittedOffset { offset: 4, leader_epoch: -1, metadata: "noted".into() };
    consumer.commit_offsets(&BTreeMap::from([(partitions[0].clone(), committed.clone())])).await.unwrap();
    let found = consumer.committed(&partitions).await.unwrap();
    assert_eq!(found, BTreeMap::from([(partitions[0].clone(), committed)]));
    consumer.close().await.unwrap();

    // Offset 4 of one partition and, without an offset, all of the other: 6 and 10 records.
    let consumer = Consumer::builder(config(&bootstrap, &group)).build().unwrap();
    consumer.subscribe([&topic]).unwrap();
    let mut read = Vec::new();
    while read.len() < 16 {
        read.extend(poll_until(&[&consumer], once()).await);
    }
    assert_eq!(read.iter().filter(|(_, partition, _)| *partition == 0).map(|one| one.2).min(), Some(4));
    // `close` commits what was returned.
    consumer.close().await.unwrap();
    let admin = Admin::new(ClientConfig::new(&bootstrap)).unwrap();
    let offsets = admin.list_group_offsets(&group, &partitions).await.unwrap();
    assert_eq!(offsets.values().map(|committed| committed.offset).collect::<Vec<_>>(), [10, 10]);
    assert!(admin.list_groups().await.unwrap().iter().any(|listed| listed.group_id == group));
}

async fn handing_over(bootstrap: String) {
    let (topic, group) = (create(&bootstrap, "handing-over", 4).await, unique("handing-over"));
    let mut lazy = config(&bootstrap, &group);
    // Only the rebalance itself commits.
    lazy.auto_commit_interval = Duration::from_secs(3600);
    let first = Consumer::builder(lazy.clone()).build().unwrap();
    first.subscribe([&topic]).unwrap();
    produce(&bootstrap, &topic, 4, 50).await;
    let mut read = BTreeSet::new();
    while read.len() < 200 {
        read.extend(poll_until(&[&first], once()).await.into_iter().map(|(_, partition, offset)| (partition, offset)));
    }
    let second = Consumer::builder(lazy).build().unwrap();
    second.subscribe([&topic]).unwrap();
    let again = poll_until(&[&first, &second], || second.joined() && second.assignment().len() == 2).await;
    assert_eq!(again, [], "nothing is read twice");
    produce(&bootstrap, &topic, 4, 1).await;
    let mut fresh = BTreeSet::new();
    while fresh.len() < 4 {
        for (_, partition, offset) in poll_until(&[&first, &second], once()).await {
            assert!(offset == 50 && fresh.insert((partition, offset)), "{partition} {offset}");
        }
    }
    first.close().await.unwrap();
    second.close().await.unwrap();
}

async fn zombies(bootstrap: String) {
    let (topic, group) = (create(&bootstrap, "zombies", 1).await, unique("zombies"));
    let mut config = config(&bootstrap, &group);
    config.enable_auto_commit = false;
    config.session_timeout = Duration::from_secs(6);
    config.max_poll_interval = Duration::from_secs(6);
    produce(&bootstrap, &topic, 1, 5).await;
    let zombie = Consumer::builder(config.clone()).build().unwrap();
    zombie.subscribe([&topic]).unwrap();
    let mut read = 0;
    while read < 5 {
        read += zombie.poll(PATIENCE).await.unwrap().len();
    }
    // A consumer that does not poll is removed from the group when another one joins.
    let other = Consumer::builder(config).build().unwrap();
    other.subscribe([&topic]).unwrap();
    poll_until(&[&other], || other.joined() && other.assignment().len() == 1).await;
    let error = zombie.commit().await.unwrap_err();
    assert!(!error.retriable(), "{error}");
    // It becomes a member again when it polls.
    poll_until(&[&zombie, &other], || {
        let partitions = zombie.assignment().len() + other.assignment().len();
        zombie.joined() && other.joined() && partitions == 1
    })
    .await;
    let described = Admin::new(ClientConfig::new(&bootstrap)).unwrap().describe_group(&group).await.unwrap();
    assert_eq!(described.members.len(), 2);
    zombie.close().await.unwrap();
    other.close().await.unwrap();
}
