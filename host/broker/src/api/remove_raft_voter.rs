//! RemoveRaftVoter: removes a voter from the quorum (KIP-853).

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::ErrorCode;
use millstream_wire::messages::{RemoveRaftVoterRequest, RemoveRaftVoterResponse};

use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::cluster::{Call, PeerError};
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType};

pub(super) struct RemoveRaftVoter;

impl Handler for RemoveRaftVoter {
    type Request = RemoveRaftVoterRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Alter, ResourceType::Cluster));
    const NEEDS_TOPICS: bool = false;

    async fn handle(
        broker: &Arc<Broker>,
        _: &RequestContext,
        request: RemoveRaftVoterRequest,
    ) -> RemoveRaftVoterResponse {
        let (node_id, directory_id) = (request.voter_id, request.voter_directory_id);
        let removed = match check_cluster(broker, request.cluster_id.as_deref()) {
            Ok(()) => change_members(broker, Call::Leave { node_id, directory_id }).await,
            Err(error) => Err(error),
        };
        match removed {
            Ok(()) => RemoveRaftVoterResponse::default(),
            Err(error) => {
                RemoveRaftVoterResponse { error_code: error.code, error_message: error.text(), ..Default::default() }
            }
        }
    }
}

/// Checks the cluster that a request means; `None` for any.
pub(super) fn check_cluster(broker: &Broker, cluster_id: Option<&str>) -> Result<(), ApiError> {
    match cluster_id {
        Some(meant) if meant != broker.cluster_id => Err(ApiError::new(
            ErrorCode::INCONSISTENT_CLUSTER_ID,
            format!("this is cluster {}, not {meant}", broker.cluster_id),
        )),
        _ => Ok(()),
    }
}

/// Changes the members of the quorum through its leader.
pub(super) async fn change_members(broker: &Broker, call: Call) -> Result<(), ApiError> {
    let Some(cluster) = &broker.cluster else {
        let message = "the quorum of a broker that is alone cannot change: start it with --cluster-listen";
        return Err(ApiError::new(ErrorCode::INVALID_REQUEST, message));
    };
    let failed = |error: PeerError| match error {
        PeerError::Rejected { error, .. } => error,
        error => ApiError::new(ErrorCode::REQUEST_TIMED_OUT, error.to_string()),
    };
    cluster.ask_leader(call).await.map(drop).map_err(failed)
}
