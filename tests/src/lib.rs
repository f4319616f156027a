//! Shared parts of the end-to-end tests: the real `millstream` binary, started on a free port with a separate data
//! folder, and always stopped at the end of the test.

mod broker;
mod cluster;
mod command;
mod folder;
mod kafka;
mod log;
mod ports;

pub use broker::{Broker, BrokerBuilder, millstream};
pub use cluster::Cluster;
pub use command::{Finished, Tool, wait_until};
pub use folder::{copy_folder, files, move_partition, move_partitions};
pub use kafka::{KAFKA_CLASSPATH, KafkaNode};
pub use ports::free_ports;
