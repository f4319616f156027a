//! The topic of the group coordinator, which is created when a client first needs it.

use std::sync::Arc;

use millstream_coordinator::group::{CONSUMER_OFFSETS, GroupError};

use crate::broker::Broker;

/// Makes sure that `__consumer_offsets` exists and the coordinator serves it.
///
/// # Errors
/// The topic could not be created. Clients retry that.
pub(super) async fn ensure(broker: &Arc<Broker>) -> Result<(), GroupError> {
    if broker.groups.has_topic() {
        return Ok(());
    }
    broker.controller.ensure_topic(CONSUMER_OFFSETS).await.map_err(|error| {
        tracing::error!("cannot create {CONSUMER_OFFSETS}: {error}");
        GroupError::CoordinatorNotAvailable
    })
}
