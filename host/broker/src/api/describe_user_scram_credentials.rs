//! DescribeUserScramCredentials: no user has any.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::messages::{
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse, DescribeUserScramCredentialsResult,
};
use millstream_wire::{ErrorCode, Str};

use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};

pub(super) struct DescribeUserScramCredentials;

impl Handler for DescribeUserScramCredentials {
    type Request = DescribeUserScramCredentialsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Describe, ResourceType::Cluster));

    async fn handle(
        _: &Arc<Broker>,
        _: &RequestContext,
        request: DescribeUserScramCredentialsRequest,
    ) -> DescribeUserScramCredentialsResponse {
        let mut times = BTreeMap::<Str, usize>::new();
        for user in request.users.unwrap_or_default() {
            *times.entry(user.name).or_default() += 1;
        }
        let results = times.into_iter().map(|(user, times)| {
            let (error_code, message) = if times > 1 {
                let message = "Cannot describe SCRAM credentials for the same user twice in a single request";
                (ErrorCode::DUPLICATE_RESOURCE, message)
            } else {
                (ErrorCode::RESOURCE_NOT_FOUND, "Attempt to describe a user credential that does not exist")
            };
            let error_message = Some(Str::from(format!("{message}: {}", user.as_str())));
            DescribeUserScramCredentialsResult { user, error_code, error_message, credential_infos: Vec::new() }
        });
        DescribeUserScramCredentialsResponse {
            // Kafka's message of a success is empty, not null.
            error_message: Some(Str::EMPTY),
            results: results.collect(),
            ..Default::default()
        }
    }
}
