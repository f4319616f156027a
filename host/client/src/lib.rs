//! Producer, consumer and admin client for Kafka's protocol that run pipeline stages.
//!
//! # Example
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use millstream_client::{Consumer, ConsumerConfig, Error, OffsetReset, Producer, ProducerConfig, ProducerRecord};
//!
//! # async fn run() -> Result<(), Error> {
//! // Produce a record, and wait until it is stored.
//! let producer = Producer::builder(ProducerConfig::new("127.0.0.1:9092")).build()?;
//! let delivery = producer.send(ProducerRecord::new("quakes").key(b"us7000").value(br#"{"mag":4.5}"#)).await?;
//! println!("stored at offset {}", delivery.await?.offset);
//! producer.close(Duration::from_secs(5)).await?;
//!
//! // Read the topic from its beginning, as a member of a group.
//! let mut config = ConsumerConfig::new("127.0.0.1:9092");
//! config.group_id = Some("dashboards".into());
//! config.auto_offset_reset = OffsetReset::Earliest;
//! let consumer = Consumer::builder(config).build()?;
//! consumer.subscribe(["quakes"])?;
//! for _ in 0..10 {
//!     for record in consumer.poll(Duration::from_secs(1)).await? {
//!         println!("{}-{} at offset {}: {:?}", record.topic, record.partition, record.offset, record.value);
//!     }
//! }
//! consumer.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Behaviour
//!
//! [`Producer`], [`Consumer`] and [`Admin`] run on the current tokio runtime. They connect when they are first used,
//! and reconnect with a backoff. Clones share connections and buffers.
//!
//! The producer batches records per partition and keeps several requests in flight. It is idempotent by default: every
//! record is stored once and in the order of sending, in spite of retries. [`Producer::send`] waits while the buffer
//! is full; the [`Delivery`] that it returns resolves to the offset of the record.
//!
//! The consumer fetches ahead in the background. Rebalances of the group run inside [`Consumer::poll`], so an
//! application that polls in a loop has processed all earlier records when its partitions change. With
//! `enable.auto.commit` these records are committed.
//!
//! A producer with a `transactional.id` writes records and offsets of a group in transactions: all of them or none.
//! Consumers with `isolation.level=read_committed` see what was committed. [`Error::remedy`] tells what to do after an
//! error.
//!
//! Every call that needs the cluster has a time limit, by Kafka's config names. Retriable errors are retried until
//! then. [`Error::retriable`] tells whether a later call may succeed.
//!
//! # Stages
//!
//! A stage is a plug-in that runs in a sandbox: serializers, partitioners and compressors in the producer,
//! deserializers and filters in the consumer. Builders take stages one by one, or all stages that a topic asks for,
//! with [`ProducerBuilder::stages_from_cluster`] and [`ConsumerBuilder::stages_from_cluster`]; the module [`plugins`]
//! keeps them up to date with the cluster. Stages are called with many records at once, on blocking threads.
//!
//! # Configs
//!
//! The fields of [`ProducerConfig`], [`ConsumerConfig`] and [`ClientConfig`] have Kafka's defaults. Their `set`
//! methods accept Kafka's config names, such as `linger.ms`.

mod admin;
mod clock;
mod config;
mod consumer;
mod edge;
mod error;
mod net;
pub mod plugins;
mod producer;

pub use admin::{
    Admin, BrokerDescription, ClusterDescription, ConfigEntry, ElectionType, GroupDescription, GroupListing,
    GroupMember, LogDirDescription, NewTopic, PartitionDescription, PerBroker, ProducerDescription, QuorumDescription,
    QuorumReplica, Reassignment, ReplicaLog, TopicDescription, TopicListing, TransactionDescription, TransactionFilter,
    TransactionListing, View,
};
pub use config::{ClientConfig, ConfigError};
pub use consumer::config::{Assignor, ConsumerConfig, IsolationLevel, OffsetReset};
pub use consumer::group::ConsumerGroupMetadata;
pub use consumer::offsets::OffsetAndTimestamp;
pub use consumer::record::{CommittedOffset, ConsumerRecord, RecordHeader, TimestampType, TopicPartition};
pub use consumer::{Consumer, ConsumerBuilder, ListenerFuture, RebalanceListener};
pub use error::{Error, Remedy};
pub use millstream_record::KafkaUuid;
pub use producer::config::{Acks, ProducerConfig};
pub use producer::delivery::{Delivery, RecordMetadata};
pub use producer::{Producer, ProducerBuilder, ProducerRecord};
