//! AddRaftVoter: makes a node a voter of the quorum (KIP-853).

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::ErrorCode;
use millstream_wire::messages::{AddRaftVoterRequest, AddRaftVoterResponse};
use uuid::Uuid;

use super::handler::{Handler, RequestContext};
use super::remove_raft_voter::{change_members, check_cluster};
use crate::broker::Broker;
use crate::cluster::Call;
use crate::config::HostPort;
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType};

pub(super) struct AddRaftVoter;

impl Handler for AddRaftVoter {
    type Request = AddRaftVoterRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Alter, ResourceType::Cluster));
    const NEEDS_TOPICS: bool = false;

    async fn handle(broker: &Arc<Broker>, _: &RequestContext, request: AddRaftVoterRequest) -> AddRaftVoterResponse {
        match add(broker, request).await {
            Ok(()) => AddRaftVoterResponse::default(),
            Err(error) => {
                AddRaftVoterResponse { error_code: error.code, error_message: error.text(), ..Default::default() }
            }
        }
    }
}

async fn add(broker: &Broker, request: AddRaftVoterRequest) -> Result<(), ApiError> {
    check_cluster(broker, request.cluster_id.as_deref())?;
    let Some(listener) = request.listeners.first() else {
        return Err(ApiError::new(ErrorCode::INVALID_REQUEST, "the new voter has no listener for nodes"));
    };
    let address = HostPort { host: listener.host.to_string(), port: listener.port }.to_string();
    let (node_id, directory_id) = (request.voter_id, request.voter_directory_id);
    let incarnation = Uuid::nil();
    change_members(broker, Call::Join { node_id, directory_id, address, votes: true, incarnation }).await
}
