//! UnregisterBroker: removes a broker that will not come back. The only broker of a cluster stays.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_metadata::controller::Request;
use millstream_wire::Str;
use millstream_wire::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};

use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};

pub(super) struct UnregisterBroker;

impl Handler for UnregisterBroker {
    type Request = UnregisterBrokerRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Alter, ResourceType::Cluster));

    async fn handle(
        broker: &Arc<Broker>,
        _: &RequestContext,
        request: UnregisterBrokerRequest,
    ) -> UnregisterBrokerResponse {
        match broker.controller.submit_one(Request::UnregisterBroker { id: request.broker_id }, false).await {
            Ok(_) => UnregisterBrokerResponse { error_message: Some(Str::EMPTY), ..Default::default() },
            Err(error) => {
                UnregisterBrokerResponse { error_code: error.code, error_message: error.text(), ..Default::default() }
            }
        }
    }
}
