//! A broker that is alone, on a disk that gets full.

use std::time::{Duration, Instant};

use millstream_client::{Producer, ProducerConfig, ProducerRecord};
use millstream_tests::{Broker, wait_until};
use rustix::process::Signal;
use tokio::time::timeout;

use crate::checker::read_all;
use crate::disk::{Disk, NOT_RUN};
use crate::faults::{PATIENCE, TOPIC, create};

/// The time after which producers go on once there is space.
const GOES_ON: Duration = Duration::from_secs(10);

fn producer(bootstrap: &str) -> Producer {
    let mut config = ProducerConfig::new(bootstrap);
    config.linger = Duration::ZERO;
    Producer::builder(config).build().expect("a producer")
}

/// Fills the disk, and waits until the broker has seen it.
fn fill(disk: &Disk, broker: &Broker) {
    let from = broker.log().len();
    disk.fill();
    wait_until("the broker to see a full disk", PATIENCE, || {
        broker.log()[from..].contains("it takes no records of producers until there is space").then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_serves_reads_starts_and_ends_on_a_full_disk() {
    const RECORDS: usize = 100;
    const RESERVE: &str = "20000000";
    let Some((disk, _temporary)) = Disk::temporary() else { return println!("{NOT_RUN}") };
    let mut broker = Broker::builder().folder(disk.data()).set("disk.reserve.bytes", RESERVE).start();
    ["is full", "No space left on device", "cannot write the"].iter().for_each(|part| broker.allow(part));
    let bootstrap = broker.bootstrap();
    create(&bootstrap, 1).await;
    let sender = producer(&bootstrap);
    for number in 0..RECORDS {
        let sent = sender.send(ProducerRecord::new(TOPIC).value(format!("{number}").as_bytes())).await;
        sent.expect("buffered").await.expect("stored");
    }

    fill(&disk, &broker);
    let waiting = sender.send(ProducerRecord::new(TOPIC).value(b"late")).await.expect("buffered");
    let mut waiting = tokio::spawn(waiting);
    assert_eq!(read_all(&bootstrap, TOPIC).await[&0].len(), RECORDS);
    // There is not a free byte at the start.
    broker.kill();
    broker.restart();
    assert_eq!(read_all(&bootstrap, TOPIC).await[&0].len(), RECORDS);
    assert!(timeout(Duration::from_millis(500), &mut waiting).await.is_err(), "the producer waits for space");

    disk.free();
    let freed = Instant::now();
    let stored = timeout(GOES_ON, waiting).await.expect("in time").expect("no panic").expect("stored");
    println!("producers go on {:?} after there is space", freed.elapsed());
    assert_eq!(usize::try_from(stored.offset), Ok(RECORDS));

    // The file is there again for the end, and for the next start.
    let reserve = disk.data().join(".disk-reserve");
    wait_until("the reserve", PATIENCE, || reserve.exists().then_some(()));
    fill(&disk, &broker);
    assert!(broker.stop(Signal::TERM).success(), "{}", broker.log());
    assert!(disk.data().join(".kafka_cleanshutdown").exists(), "it stopped cleanly");
    broker.restart();
    let read = read_all(&bootstrap, TOPIC).await;
    assert_eq!(read[&0].len(), RECORDS + 1);
    assert_eq!(read[&0][RECORDS], (stored.offset, "late".to_owned()));
}
