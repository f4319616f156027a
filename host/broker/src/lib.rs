//! The broker: connections, one handler per API, partitions, consumer groups.
