//! DescribeUserScramCredentials: lists the SCRAM mechanisms of users, without their secrets (KIP-554).

use crate::{ErrorCode, Message, Str};

/// Asks for the credentials of users.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(
    api = DescribeUserScramCredentials,
    response = DescribeUserScramCredentialsResponse,
    versions = 0..=0,
    flexible = 0
)]
pub struct DescribeUserScramCredentialsRequest {
    /// Null or empty for all users.
    pub users: Option<Vec<ScramUserName>>,
}

/// Names one user: `UserName` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ScramUserName {
    pub name: Str,
}

/// Lists the credentials by user.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=0, flexible = 0)]
pub struct DescribeUserScramCredentialsResponse {
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
    pub results: Vec<DescribeUserScramCredentialsResult>,
}

/// Lists the credentials of one user.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribeUserScramCredentialsResult {
    pub user: Str,
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
    pub credential_infos: Vec<ScramCredentialInfo>,
}

/// Describes one credential: `CredentialInfo` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ScramCredentialInfo {
    /// 1 SCRAM-SHA-256, 2 SCRAM-SHA-512.
    pub mechanism: i8,
    pub iterations: i32,
}
