//! UpdateFeatures: changes the feature level of the metadata log, and the levels of the features beside it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_metadata::controller::{
    FeatureUpdate, FeatureUpdates, MILLSTREAM_VERSION, Request, UpgradeType, transaction_versions,
};
use millstream_metadata::{FeatureLevel, MetadataImage, TRANSACTION_VERSION};
use millstream_wire::messages::{
    FeatureUpdateKey, FinalizedFeatureKey, SupportedFeatureKey, UpdatableFeatureResult, UpdateFeaturesRequest,
    UpdateFeaturesResponse,
};
use millstream_wire::{ErrorCode, Str};

use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};

/// The levels that a broker supports which is alone. Level 0 is that of old folders.
const ALONE: RangeInclusive<u16> = 1..=1;

/// The levels that a broker of a cluster supports.
const IN_CLUSTER: RangeInclusive<u16> = FeatureLevel::CLUSTER.number()..=FeatureLevel::NEWEST.number();

fn levels(broker: &Broker) -> RangeInclusive<u16> {
    if broker.cluster.is_some() { IN_CLUSTER } else { ALONE }
}

pub(super) struct UpdateFeatures;

impl Handler for UpdateFeatures {
    type Request = UpdateFeaturesRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Alter, ResourceType::Cluster));
    const NEEDS_TOPICS: bool = false;

    async fn handle(
        broker: &Arc<Broker>,
        context: &RequestContext,
        request: UpdateFeaturesRequest,
    ) -> UpdateFeaturesResponse {
        let updates = request.feature_updates.iter().map(|update| FeatureUpdate {
            feature: update.feature.as_str().to_owned(),
            level: update.max_version_level,
            upgrade_type: upgrade_type(context.version, update),
        });
        let updates = FeatureUpdates {
            controller: broker.config.node_id,
            supported: levels(broker),
            members: BTreeMap::new(),
            updates: updates.collect(),
        };
        let outcome = broker.controller.submit_one(Request::UpdateFeatures(updates), request.validate_only).await;
        if let Err(error) = outcome {
            let message = match error.code {
                ErrorCode::INVALID_UPDATE_VERSION => {
                    format!("The update failed for all features since the following feature had an error: {error}")
                }
                _ => error.message,
            };
            let error_message = Some(Str::from(message));
            return UpdateFeaturesResponse { error_code: error.code, error_message, ..Default::default() };
        }
        let results = request.feature_updates.into_iter().map(|update| UpdatableFeatureResult {
            feature: update.feature,
            // Kafka's text for a result without an error.
            error_message: Some(Str::from_static("NONE")),
            ..Default::default()
        });
        UpdateFeaturesResponse { results: results.collect(), ..Default::default() }
    }
}

/// Returns the direction that a change allows. Version 0 has a flag for it.
fn upgrade_type(version: i16, update: &FeatureUpdateKey) -> Option<UpgradeType> {
    match (version, update.upgrade_type) {
        (0, _) if update.allow_downgrade => Some(UpgradeType::SafeDowngrade),
        (0, _) | (_, 1) => Some(UpgradeType::Upgrade),
        (_, 2) => Some(UpgradeType::SafeDowngrade),
        (_, 3) => Some(UpgradeType::UnsafeDowngrade),
        _ => None,
    }
}

/// Returns the features for ApiVersions.
pub(super) fn supported(broker: &Broker, image: &MetadataImage) -> Vec<SupportedFeatureKey> {
    let levels = levels(broker);
    let level = |level: &u16| i16::try_from(*level).unwrap_or(i16::MAX);
    let feature = |name, levels: &RangeInclusive<u16>| SupportedFeatureKey {
        name: Str::from_static(name),
        min_version: level(levels.start()),
        max_version: level(levels.end()),
    };
    let transactions = transaction_versions(image);
    vec![feature(MILLSTREAM_VERSION, &levels), feature(TRANSACTION_VERSION, &transactions)]
}

/// Returns the features with a level, for ApiVersions. Level 0 stands for none.
pub(super) fn finalized(image: &MetadataImage) -> Vec<FinalizedFeatureKey> {
    let feature = |(name, level): (&'static str, u16)| {
        let level = i16::try_from(level).unwrap_or(i16::MAX);
        FinalizedFeatureKey { name: Str::from_static(name), max_version_level: level, min_version_level: level }
    };
    let levels =
        [(MILLSTREAM_VERSION, image.feature_level.number()), (TRANSACTION_VERSION, image.transaction_version())];
    levels.into_iter().filter(|(_, level)| *level > 0).map(feature).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_levels_end_with_that_of_new_logs() {
        assert_eq!(*ALONE.end(), FeatureLevel::OF_NEW_LOGS.number());
    }
}
