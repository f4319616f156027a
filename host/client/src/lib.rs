//! Producer, consumer and admin client for Kafka's protocol that run pipeline stages.

mod admin;
mod config;
mod consumer;
mod edge;
mod error;
mod net;
pub mod plugins;
mod producer;

pub use admin::{
    Admin, BrokerDescription, ClusterDescription, ConfigEntry, GroupDescription, GroupListing, GroupMember, NewTopic,
    PartitionDescription, TopicDescription, TopicListing, View,
};
pub use config::{ClientConfig, ConfigError};
pub use consumer::config::{Assignor, ConsumerConfig, IsolationLevel, OffsetReset};
pub use consumer::offsets::OffsetAndTimestamp;
pub use consumer::record::{CommittedOffset, ConsumerRecord, RecordHeader, TimestampType, TopicPartition};
pub use consumer::{Consumer, ConsumerBuilder, ListenerFuture, RebalanceListener};
pub use error::Error;
pub use producer::config::{Acks, ProducerConfig};
pub use producer::receipt::{Delivery, RecordMetadata};
pub use producer::{Producer, ProducerBuilder, ProducerRecord};
