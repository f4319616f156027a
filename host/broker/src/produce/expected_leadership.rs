//! Waits for a leadership that a client knows before this broker does.
//!
//! The old leader names the new one in its rejection (KIP-951), and both learn of the change on their own. A client on
//! the same network can be faster than the metadata. A rejection would cost it `retry.backoff.ms`, 100 ms by default.

use std::time::Duration;

use millstream_wire::messages::TopicProduceData;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::topics::Topic;

/// The longest wait. A client with old metadata waits for it once.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// Returns whether this broker may be about to lead a partition of these batches.
pub(crate) fn expects_to_lead(topic: &Topic, data: &TopicProduceData) -> bool {
    let mut partitions = data.partition_data.iter().filter_map(|batch| topic.partition(batch.index));
    partitions.any(|partition| partition.may_lead_soon())
}

/// Waits until this broker leads the partitions of these batches, or will not. `roles` changes after partitions have
/// taken new roles.
pub(crate) async fn wait_to_lead(topic: &Topic, data: &TopicProduceData, mut roles: watch::Receiver<u64>) {
    let expected = async { while expects_to_lead(topic, data) && roles.changed().await.is_ok() {} };
    // The append finds out who leads.
    let _ = timeout(WAIT_MAX, expected).await;
}
