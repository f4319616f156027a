//! DescribeClientQuotas: there are no quotas, so a valid filter matches nothing.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::messages::{ClientQuotaComponent, DescribeClientQuotasRequest, DescribeClientQuotasResponse};
use millstream_wire::{ErrorCode, Str};

use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType};

/// The types of entities that can have quotas.
const USER: &str = "user";
const CLIENT_ID: &str = "client-id";
const IP: &str = "ip";

/// The ways in which a component matches the name of an entity.
const EXACT: i8 = 0;
const DEFAULT: i8 = 1;
const SPECIFIED: i8 = 2;

pub(super) struct DescribeClientQuotas;

impl Handler for DescribeClientQuotas {
    type Request = DescribeClientQuotasRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::DescribeConfigs, ResourceType::Cluster));

    async fn handle(
        _: &Arc<Broker>,
        _: &RequestContext,
        request: DescribeClientQuotasRequest,
    ) -> DescribeClientQuotasResponse {
        match check(&request.components) {
            // Kafka's message of a success is empty, not null.
            Ok(()) => DescribeClientQuotasResponse {
                error_message: Some(Str::EMPTY),
                entries: Some(Vec::new()),
                ..Default::default()
            },
            Err(error) => DescribeClientQuotasResponse {
                error_code: error.code,
                error_message: error.text(),
                entries: None,
                ..Default::default()
            },
        }
    }
}

/// Checks a filter by Kafka's rules, with its messages.
fn check(components: &[ClientQuotaComponent]) -> Result<(), ApiError> {
    let invalid = |message: String| Err(ApiError::new(ErrorCode::INVALID_REQUEST, message));
    let mut types = BTreeSet::new();
    for component in components {
        let kind = component.entity_type.as_str();
        if kind.is_empty() {
            return invalid("Invalid empty entity type.".to_owned());
        }
        if !types.insert(kind) {
            return invalid(format!("Entity type {kind} cannot appear more than once in the filter."));
        }
        if ![USER, CLIENT_ID, IP].contains(&kind) {
            return Err(ApiError::new(ErrorCode::UNSUPPORTED_VERSION, format!("Unsupported entity type {kind}")));
        }
        check_match(component)?;
    }
    if types.contains(IP) && types.len() > 1 {
        let message = "Invalid entity filter component combination. IP filter component should not be used with user \
                       or clientId filter component.";
        return invalid(message.to_owned());
    }
    Ok(())
}

fn check_match(component: &ClientQuotaComponent) -> Result<(), ApiError> {
    let message = match (component.match_type, &component.r#match) {
        (EXACT, Some(_)) | (DEFAULT | SPECIFIED, None) => return Ok(()),
        (EXACT, None) => "Request specified MATCH_TYPE_EXACT, but set match string to null.".to_owned(),
        (DEFAULT, Some(_)) => "Request specified MATCH_TYPE_DEFAULT, but also specified a match string.".to_owned(),
        (SPECIFIED, Some(_)) => "Request specified MATCH_TYPE_SPECIFIED, but also specified a match string.".to_owned(),
        (other, _) => format!("Unknown match type {other}"),
    };
    Err(ApiError::new(ErrorCode::INVALID_REQUEST, message))
}
