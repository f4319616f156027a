//! What the end-to-end tests share: the real `millstream` binary, started on a free port with a data
//! folder of its own, and stopped again whatever happens to the test.

mod broker;
mod command;
mod kafka;
mod log;

pub use broker::{Broker, BrokerBuilder, millstream};
pub use command::{Finished, Tool, wait_until};
pub use kafka::{KAFKA_CLASSPATH, KafkaNode};
