//! DescribeClientQuotas: lists the quotas of users and clients (KIP-546).

use crate::{ErrorCode, Message, Str};

/// Asks for the quotas of the entities that match.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = DescribeClientQuotas, response = DescribeClientQuotasResponse, versions = 0..=1, flexible = 1)]
pub struct DescribeClientQuotasRequest {
    pub components: Vec<ClientQuotaComponent>,
    /// Whether an entity with other entity types than those named is left out.
    pub strict: bool,
}

/// Filters by one entity type: `ComponentData` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ClientQuotaComponent {
    pub entity_type: Str,
    /// 0 an exact name, 1 the default entity, 2 any name.
    pub match_type: i8,
    pub r#match: Option<Str>,
}

/// Lists the quotas.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=1, flexible = 1)]
pub struct DescribeClientQuotasResponse {
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
    /// Null after an error.
    pub entries: Option<Vec<ClientQuotaEntry>>,
}

/// Lists the quotas of one entity: `EntryData` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ClientQuotaEntry {
    pub entity: Vec<ClientQuotaEntity>,
    pub values: Vec<ClientQuotaValue>,
}

/// Names one part of an entity: `EntityData` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ClientQuotaEntity {
    pub entity_type: Str,
    /// Null for the default entity.
    pub entity_name: Option<Str>,
}

/// Holds one quota: `ValueData` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ClientQuotaValue {
    pub key: Str,
    pub value: f64,
}
