//! Producer, consumer and admin client for Kafka's protocol that run pipeline stages.

mod config;
mod edge;
mod error;
mod net;
mod producer;

pub use config::{ClientConfig, ConfigError};
pub use error::Error;
pub use producer::config::{Acks, ProducerConfig};
pub use producer::receipt::{Delivery, RecordMetadata};
pub use producer::{Producer, ProducerBuilder, ProducerRecord};
