//! Commits and aborts a transaction, one with offsets, and fences a producer by its successor.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const TOPIC: &str = "rdkafka-transactions";
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let bootstrap = std::env::args().nth(1).expect("an address");
    create(&bootstrap);
    let reader = reader(&bootstrap);
    let group = reader.group_metadata().expect("a group");

    let first = begun(&bootstrap);
    send(&first, "committed");
    first.commit_transaction(PATIENCE).expect("committed");
    first.begin_transaction().expect("begun");
    send(&first, "aborted");
    first.abort_transaction(PATIENCE).expect("aborted");
    first.begin_transaction().expect("begun");
    send(&first, "with offsets");
    first.send_offsets_to_transaction(&at(Offset::Offset(1)), &group, PATIENCE).expect("sent");
    first.commit_transaction(PATIENCE).expect("committed");
    let committed = reader.committed_offsets(at(Offset::Invalid), PATIENCE).expect("offsets");
    assert_eq!(committed.elements()[0].offset(), Offset::Offset(1));

    first.begin_transaction().expect("begun");
    send(&first, "of the zombie");
    let second = begun(&bootstrap);
    let zombie = first.commit_transaction(PATIENCE).expect_err("the zombie has committed");
    println!("the zombie: {zombie}");
    send(&second, "of its successor");
    second.commit_transaction(PATIENCE).expect("committed");

    reader.assign(&at(Offset::Beginning)).expect("assigned");
    let (mut values, end) = (Vec::new(), Instant::now() + PATIENCE);
    while values.last().map(String::as_str) != Some("of its successor") {
        assert!(Instant::now() < end, "{values:?}");
        if let Some(record) = reader.poll(Duration::from_millis(100)) {
            let value = record.expect("a record").payload().expect("a value").to_vec();
            values.push(String::from_utf8(value).expect("a text"));
        }
    }
    assert_eq!(values, ["committed", "with offsets", "of its successor"]);
    println!("transactions: ok");
}

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config
}

fn create(bootstrap: &str) {
    let admin: AdminClient<_> = client(bootstrap).create().expect("a client");
    let topic = NewTopic::new(TOPIC, 1, TopicReplication::Fixed(1));
    // The client's own threads complete the future, so polling it needs no runtime.
    let mut created = Box::pin(admin.create_topics([&topic], &AdminOptions::new()));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let end = Instant::now() + PATIENCE;
    while let std::task::Poll::Pending = created.as_mut().poll(&mut context) {
        assert!(Instant::now() < end, "the topic is not created");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn begun(bootstrap: &str) -> BaseProducer {
    let producer: BaseProducer = client(bootstrap).set("transactional.id", "rdkafka").create().expect("a producer");
    producer.init_transactions(PATIENCE).expect("initialized");
    producer.begin_transaction().expect("begun");
    producer
}

fn reader(bootstrap: &str) -> BaseConsumer {
    let mut config = client(bootstrap);
    config
        .set("group.id", "rdkafka-copiers")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false");
    config.create().expect("a consumer")
}

fn send(producer: &BaseProducer, value: &str) {
    let record = BaseRecord::<(), str>::to(TOPIC).partition(0).payload(value);
    producer.send(record).map_err(|(error, _)| error).expect("sent");
    producer.flush(PATIENCE).expect("acknowledged");
}

fn at(offset: Offset) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(TOPIC, 0, offset).expect("an offset");
    list
}
