//! The calls of other brokers to the edge of this one.

use std::sync::Arc;

use bytes::Bytes;
use millstream_stage::Failures;

use super::context::{BoxFuture, Edge, MetadataChanges};
use super::{leaders, plugins};
use crate::cluster::{EdgeCall, EdgeCalls, EdgeReply};
use crate::error::ApiError;

/// Processes the calls of other brokers.
#[derive(Debug)]
pub(crate) struct EdgeService {
    pub(crate) edge: Arc<Edge>,
    pub(crate) changes: Arc<dyn MetadataChanges>,
}

impl EdgeCalls for EdgeService {
    fn process(&self, call: EdgeCall, bytes: Bytes) -> BoxFuture<'_, Result<EdgeReply, ApiError>> {
        process(&self.edge, &self.changes, call, bytes)
    }
}

/// Processes a call on this broker.
pub(super) fn process<'a>(
    edge: &'a Arc<Edge>,
    changes: &'a Arc<dyn MetadataChanges>,
    call: EdgeCall,
    bytes: Bytes,
) -> BoxFuture<'a, Result<EdgeReply, ApiError>> {
    Box::pin(async move {
        match call {
            EdgeCall::Prepare { begin } => {
                plugins::prepare::here(edge, changes, begin, bytes).await.map(EdgeReply::Prepared)
            }
            EdgeCall::Follow { end } => {
                let end = plugins::follow::up_to(edge, end).await?;
                Ok(EdgeReply::Follows { end })
            }
            EdgeCall::RollBack { plugin, number, reason } => {
                let active = plugins::rollback::here(edge, changes, &plugin, number, &reason).await?;
                Ok(EdgeReply::RolledBack { active })
            }
            EdgeCall::CheckFailures { plugin, number } => {
                plugins::failures::check_here(edge, changes, &plugin, number).await?;
                Ok(EdgeReply::Done)
            }
            EdgeCall::Failures { plugin, number } => {
                let Failures { traps, bad, records } = edge.plugins.failures_of(&plugin, number);
                Ok(EdgeReply::Failures { traps, bad, records })
            }
            EdgeCall::Push { file, is_first_look } => {
                let is_new = plugins::folder::push_here(edge, changes, &bytes, is_first_look, &file).await?;
                Ok(EdgeReply::Pushed { is_new })
            }
            EdgeCall::Append { topic, partition, waits, transaction } => {
                let transaction = transaction.as_ref();
                leaders::append_here(edge, &topic, partition, bytes, transaction, waits).await?;
                Ok(EdgeReply::Done)
            }
        }
    })
}
