//! Raises the feature level of the metadata log (KIP-584, KIP-778).

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::ops::RangeInclusive;

use super::ClusterError;
use crate::{FeatureLevel, MetadataImage, MetadataRecord};

/// The feature whose level says which records the metadata log may have. Kafka's `metadata.version` is the same for its
/// own log: the levels are others, so the name is too.
pub const MILLSTREAM_VERSION: &str = "millstream.version";

/// The feature whose level says how transactions work. Clients that see [`TRANSACTION_VERSION_LEVEL`] get a new epoch
/// with each transaction (KIP-890). The others work with it as before.
pub const TRANSACTION_VERSION: &str = "transaction.version";

/// The level of [`TRANSACTION_VERSION`], which every cluster has. It says nothing about the metadata log.
pub const TRANSACTION_VERSION_LEVEL: u16 = 2;

/// Changes of features: all of them or none.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FeatureUpdates {
    /// The node that decides, as errors name it.
    pub controller: i32,
    /// The levels of [`MILLSTREAM_VERSION`] that it supports.
    pub supported: RangeInclusive<u16>,
    /// The changes, in the order of the request.
    pub updates: Vec<FeatureUpdate>,
}

/// The change of one feature.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FeatureUpdate {
    /// The name of the feature.
    pub feature: String,
    /// The new level.
    pub level: i16,
    /// The direction that the client allows; `None` if it is not known.
    pub upgrade_type: Option<UpgradeType>,
}

/// The direction of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpgradeType {
    /// The level may rise.
    Upgrade,
    /// The level may go down if no metadata is lost.
    SafeDowngrade,
    /// The level may go down even if metadata is lost.
    UnsafeDowngrade,
}

/// Why a feature cannot have a level. The texts are Kafka's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeatureError {
    /// The direction is not known.
    #[error("The controller does not support the given upgrade type.")]
    UnknownUpgradeType,
    /// Levels are not negative.
    #[error("A feature version cannot be less than 0.")]
    Negative,
    /// A feature that does not exist is turned off.
    #[error("Feature {0} not found.")]
    NotFound(String),
    /// There is no such feature.
    #[error("Local controller {0} does not support this feature.")]
    Unsupported(i32),
    /// The controller does not know the level.
    #[error("Local controller {controller} only supports versions {min}-{max}")]
    OutOfRange {
        /// The node.
        controller: i32,
        /// Its lowest level.
        min: u16,
        /// Its highest level.
        max: u16,
    },
    /// The level would go down.
    #[error(
        "Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe \
         downgrade."
    )]
    NotAnUpgrade,
    /// The level would rise.
    #[error("Can't downgrade to a newer version.")]
    NotADowngrade,
    /// Records of the log would be lost.
    #[error("Unsafe metadata downgrade is not supported in this version.")]
    Downgrade,
}

/// Changes the levels of features. Returns no record if they stay the same.
///
/// # Errors
/// The first change that is not valid.
pub(crate) fn update(image: &MetadataImage, updates: &FeatureUpdates) -> Result<Vec<MetadataRecord>, ClusterError> {
    let mut level = image.feature_level.number();
    for update in &updates.updates {
        level = new_level(level, update, updates).map_err(|reason| ClusterError::FeatureUpdate {
            feature: update.feature.clone(),
            level: update.level,
            reason,
        })?;
    }
    let changed = level != image.feature_level.number();
    Ok(changed.then_some(MetadataRecord::FeatureLevelSet { level }).into_iter().collect())
}

/// Returns the level after a change.
fn new_level(level: u16, update: &FeatureUpdate, updates: &FeatureUpdates) -> Result<u16, FeatureError> {
    let FeatureUpdates { controller, supported, .. } = updates;
    let controller = *controller;
    let upgrade_type = update.upgrade_type.ok_or(FeatureError::UnknownUpgradeType)?;
    let new = u16::try_from(update.level).map_err(|_| FeatureError::Negative)?;
    if update.feature == TRANSACTION_VERSION {
        let (min, max) = (TRANSACTION_VERSION_LEVEL, TRANSACTION_VERSION_LEVEL);
        let is_supported = new == TRANSACTION_VERSION_LEVEL;
        return if is_supported { Ok(level) } else { Err(FeatureError::OutOfRange { controller, min, max }) };
    }
    if update.feature != MILLSTREAM_VERSION {
        return Err(match new {
            0 => FeatureError::NotFound(update.feature.clone()),
            _ => FeatureError::Unsupported(controller),
        });
    }
    if !supported.contains(&new) || FeatureLevel::new(new).is_err() {
        return Err(FeatureError::OutOfRange { controller, min: *supported.start(), max: *supported.end() });
    }
    match (new.cmp(&level), upgrade_type) {
        (Ordering::Less, UpgradeType::Upgrade) => Err(FeatureError::NotAnUpgrade),
        (Ordering::Less, _) => Err(FeatureError::Downgrade),
        (Ordering::Greater, UpgradeType::SafeDowngrade | UpgradeType::UnsafeDowngrade) => {
            Err(FeatureError::NotADowngrade)
        }
        _ => Ok(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update_to(image: &MetadataImage, changes: &[(&str, i16, Option<UpgradeType>)]) -> Result<Option<u16>, String> {
        let change = |&(feature, level, upgrade_type): &(&str, i16, _)| FeatureUpdate {
            feature: feature.to_owned(),
            level,
            upgrade_type,
        };
        let updates = FeatureUpdates { controller: 7, supported: 1..=2, updates: changes.iter().map(change).collect() };
        match update(image, &updates).map_err(|error| error.to_string())?.as_slice() {
            [] => Ok(None),
            [MetadataRecord::FeatureLevelSet { level }] => Ok(Some(*level)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_level_rises_within_what_is_supported() {
        use UpgradeType::{SafeDowngrade, UnsafeDowngrade, Upgrade};
        let mut image = MetadataImage::new(7);
        image.feature_level = FeatureLevel::ASSIGNMENTS;
        let to = |level, upgrade_type| update_to(&image, &[(MILLSTREAM_VERSION, level, Some(upgrade_type))]);
        assert_eq!(to(1, Upgrade), Ok(None));
        assert_eq!(to(1, SafeDowngrade), Ok(None));
        assert_eq!(to(2, Upgrade), Ok(Some(2)));
        let invalid =
            |level, reason| Err(format!("Invalid update version {level} for feature millstream.version. {reason}"));
        assert_eq!(to(2, UnsafeDowngrade), invalid(2, "Can't downgrade to a newer version."));
        for level in [0, 3, i16::MAX] {
            assert_eq!(to(level, Upgrade), invalid(level, "Local controller 7 only supports versions 1-2"));
        }
        assert_eq!(to(-1, Upgrade), invalid(-1, "A feature version cannot be less than 0."));
    }

    #[test]
    fn a_level_does_not_go_down() {
        let mut image = MetadataImage::new(7);
        image.feature_level = FeatureLevel::CLUSTER;
        let to =
            |level, upgrade_type| update_to(&image, &[(MILLSTREAM_VERSION, level, Some(upgrade_type))]).unwrap_err();
        assert!(to(1, UpgradeType::Upgrade).contains("without setting the upgrade type"));
        assert!(
            to(1, UpgradeType::SafeDowngrade).ends_with("Unsafe metadata downgrade is not supported in this version.")
        );
    }

    #[test]
    fn the_version_of_transactions_is_fixed() {
        let image = MetadataImage::new(7);
        let to = |level| update_to(&image, &[(TRANSACTION_VERSION, level, Some(UpgradeType::UnsafeDowngrade))]);
        assert_eq!(to(2), Ok(None));
        for level in [0, 1, 3] {
            let error = to(level).expect_err("another level");
            assert!(error.ends_with("Local controller 7 only supports versions 2-2"), "{error}");
        }
    }

    #[test]
    fn one_bad_change_rejects_all() {
        let upgrade = Some(UpgradeType::Upgrade);
        let image = MetadataImage::new(7);
        let raise = (MILLSTREAM_VERSION, 1, upgrade);
        assert_eq!(update_to(&image, &[raise, raise]), Ok(Some(1)));
        for (other, reason) in [
            (("x", 1, upgrade), "Local controller 7 does not support this feature."),
            (("x", 0, upgrade), "Feature x not found."),
            (("x", 1, None), "The controller does not support the given upgrade type."),
        ] {
            let error = update_to(&image, &[raise, other]).expect_err("the second is not valid");
            assert_eq!(error, format!("Invalid update version {} for feature x. {reason}", other.1));
        }
    }
}
