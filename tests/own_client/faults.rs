//! A broker that is killed under load.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libtest_mimic::Trial;
use millstream_client::{Consumer, Error, Producer, ProducerConfig, ProducerRecord};
use millstream_tests::wait_until;
use millstream_wire::ErrorCode;

use crate::records::{create, create_with, from_beginning, read_all};
use crate::{PATIENCE, Server, both, both_mortal, unique};

/// How often the broker is killed.
const BOUNCES: usize = 3;
/// About 500 ms of load.
const RECORDS_BETWEEN_BOUNCES: u64 = 20_000;
const PARTITIONS: i32 = 3;

pub(crate) fn trials() -> Vec<Trial> {
    [
        both_mortal("an idempotent producer loses, doubles and reorders nothing when the broker is killed", bounces),
        both("a broker that cannot be reached is reported in time", absent),
        both("an idempotent producer survives 40,000 rejected batches", rejections),
    ]
    .into_iter()
    .flatten()
    .collect()
}

async fn bounces(server: Arc<Mutex<Server>>) {
    let bootstrap = server.lock().unwrap().bootstrap();
    let topic = create(&bootstrap, "bounces", PARTITIONS).await;
    let mut config = ProducerConfig::new(&bootstrap);
    // Small batches, so that many are in flight when the broker dies.
    config.batch_size = 2000;
    config.linger = Duration::from_millis(1);
    let producer = Producer::builder(config).build().unwrap();

    // A group reads at the same time.
    let mut group = from_beginning(&bootstrap);
    group.group_id = Some(unique("bounces"));
    let consumer = Consumer::builder(group).build().unwrap();
    consumer.subscribe([&topic]).unwrap();
    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    let reader = tokio::spawn({
        let consumer = consumer.clone();
        async move {
            let mut read = Vec::new();
            while stopped.try_recv().is_err() {
                for record in consumer.poll(Duration::from_millis(100)).await.unwrap() {
                    read.push((record.partition, number(record.value.as_deref())));
                }
            }
            read
        }
    });

    let sent = Arc::new(AtomicU64::new(0));
    let killer = tokio::task::spawn_blocking({
        let (server, sent) = (server.clone(), sent.clone());
        move || {
            for _ in 0..BOUNCES {
                // The kill comes in the middle of the load.
                let next = sent.load(Relaxed) + RECORDS_BETWEEN_BOUNCES;
                wait_until("more records", PATIENCE, || (sent.load(Relaxed) >= next).then_some(()));
                server.lock().unwrap().bounce();
            }
        }
    });
    let mut deliveries = Vec::new();
    let mut number = 0_u64;
    // Slow enough that the send buffer does not time out before the broker is back.
    while !killer.is_finished() {
        let value = number.to_be_bytes();
        let record = ProducerRecord::new(&topic).partition((number % PARTITIONS as u64) as i32).value(&value);
        deliveries.push(producer.send(record).await.unwrap());
        number += 1;
        sent.store(number, Relaxed);
        if number.is_multiple_of(50) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    killer.await.unwrap();
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    producer.close(PATIENCE).await.unwrap();

    let stored = read_all(&bootstrap, &topic).await;
    let stored: Vec<_> = stored.iter().map(|one| (one.partition, self::number(one.value.as_deref()))).collect();
    check_complete(&stored, number);
    let caught_up = consumer.partitions(&topic).await.unwrap();
    let ends = consumer.end_offsets(&caught_up).await.unwrap();
    let reached = || ends.iter().all(|(one, end)| consumer.position(one).is_some_and(|position| position >= *end));
    let deadline = std::time::Instant::now() + PATIENCE;
    while !reached() {
        assert!(std::time::Instant::now() < deadline, "the group does not catch up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.send(()).unwrap();
    let read = reader.await.unwrap();
    // At least once: after the member was lost, records since the last commit are read again.
    for partition in 0..PARTITIONS {
        let mut numbers: Vec<u64> = read.iter().filter(|one| one.0 == partition).map(|one| one.1).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len() as u64, of_partition(partition, number).count() as u64);
    }
    consumer.close().await.unwrap();
}

fn number(value: Option<&[u8]>) -> u64 {
    u64::from_be_bytes(value.unwrap().try_into().unwrap())
}

fn of_partition(partition: i32, count: u64) -> impl Iterator<Item = u64> {
    (0..count).filter(move |number| (number % PARTITIONS as u64) as i32 == partition)
}

fn check_complete(stored: &[(i32, u64)], count: u64) {
    for partition in 0..PARTITIONS {
        let numbers: Vec<u64> = stored.iter().filter(|one| one.0 == partition).map(|one| one.1).collect();
        let expected: Vec<u64> = of_partition(partition, count).collect();
        let first_wrong = numbers.iter().zip(&expected).position(|(have, want)| have != want);
        assert_eq!((numbers.len(), first_wrong), (expected.len(), None), "partition {partition}");
    }
}

async fn absent(bootstrap: String) {
    let topic = create(&bootstrap, "absent", 1).await;
    // Nothing listens on port 1.
    let mut config = ProducerConfig::new("127.0.0.1:1");
    config.max_block = Duration::from_millis(300);
    let producer = Producer::builder(config).build().unwrap();
    let error = producer.send(ProducerRecord::new(&topic)).await.unwrap_err();
    assert!(error.retriable() && matches!(error, Error::NoBroker { .. } | Error::Timeout { .. }), "{error}");
    producer.close(PATIENCE).await.unwrap();
    // One reachable bootstrap server of several is enough.
    let producer = Producer::builder(ProducerConfig::new(&format!("127.0.0.1:1,{bootstrap}"))).build().unwrap();
    producer.send(ProducerRecord::new(&topic).value(b"v")).await.unwrap().await.unwrap();
    producer.close(PATIENCE).await.unwrap();
}

/// More than the 32,767 epochs of a producer id.
const REJECTED: usize = 40_000;

/// Rejects large batches by the topic's limit, with good batches in flight between them. Each good one must be stored
/// once and in order.
async fn rejections(bootstrap: String) {
    let topic = create_with(&bootstrap, "rejections", PARTITIONS, &[("max.message.bytes", "200")]).await;
    let mut config = ProducerConfig::new(&bootstrap);
    // One batch for each record.
    config.batch_size = 1;
    config.linger = Duration::ZERO;
    let producer = Producer::builder(config).build().unwrap();
    let rejected = Arc::new(AtomicU64::new(0));
    let mut good = Vec::new();
    for number in 0..REJECTED {
        let partition = (number % PARTITIONS as usize) as i32;
        let count = rejected.clone();
        let on_result = move |result: Result<_, Error>| match result {
            Err(error) if error.code() == Some(ErrorCode::MESSAGE_TOO_LARGE) => drop(count.fetch_add(1, Relaxed)),
            other => panic!("a large record: {other:?}"),
        };
        let large = ProducerRecord::new(&topic).partition(partition).value(&[0; 300]);
        producer.send_with_callback(large, on_result).await.unwrap();
        if number % 20 == 0 {
            let value = (number as u64).to_be_bytes();
            let record = ProducerRecord::new(&topic).partition(partition).value(&value);
            good.push(producer.send(record).await.unwrap());
        }
    }
    let count = good.len();
    for delivery in good {
        delivery.await.unwrap();
    }
    producer.close(PATIENCE).await.unwrap();
    assert_eq!(rejected.load(Relaxed), REJECTED as u64);
    let mut stored: Vec<Vec<u64>> = vec![Vec::new(); PARTITIONS as usize];
    for record in read_all(&bootstrap, &topic).await {
        stored[record.partition as usize].push(number(record.value.as_deref()));
    }
    assert!(stored.iter().all(|numbers| numbers.is_sorted_by(|a, b| a < b)), "out of order or twice");
    assert_eq!(stored.iter().map(Vec::len).sum::<usize>(), count);
}
