//! UpdateFeatures: raises and lowers the feature levels of the cluster (KIP-584).

use crate::{ErrorCode, Message, Str};

/// Changes feature levels: all of them or none.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = UpdateFeatures, response = UpdateFeaturesResponse, versions = 0..=2, flexible = 0)]
pub struct UpdateFeaturesRequest {
    #[wire(default = 60_000)]
    pub timeout_ms: i32,
    pub feature_updates: Vec<FeatureUpdateKey>,
    /// Whether the change is only checked.
    #[wire(versions = 1..)]
    pub validate_only: bool,
}

/// Names the new level of one feature.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct FeatureUpdateKey {
    pub feature: Str,
    /// A level below 1 removes the feature.
    pub max_version_level: i16,
    /// Whether the level may go down. From version 1 in `upgrade_type`.
    #[wire(versions = ..=0)]
    pub allow_downgrade: bool,
    /// 1 only upgrades, 2 also downgrades without loss, 3 also downgrades that lose metadata (KIP-778).
    #[wire(versions = 1.., default = 1)]
    pub upgrade_type: i8,
}

/// Reports the result of the request, up to version 1 also for each feature.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=2, flexible = 0)]
pub struct UpdateFeaturesResponse {
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
    #[wire(versions = ..=1)]
    pub results: Vec<UpdatableFeatureResult>,
}

/// Reports the result for one feature.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct UpdatableFeatureResult {
    pub feature: Str,
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
}
