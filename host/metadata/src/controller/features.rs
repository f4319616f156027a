//! Changes the levels of features (KIP-584, KIP-778): that of the metadata log, and those beside it.

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::ClusterError;
use crate::{FeatureLevel, MetadataImage, MetadataRecord, TRANSACTION_VERSION, TRANSACTION_VERSION_NEWEST};

/// The feature whose level says which records the metadata log may have. Kafka's `metadata.version` is the same for its
/// own log: the levels are others, so the name is too.
pub const MILLSTREAM_VERSION: &str = "millstream.version";

/// Changes of features: all of them or none.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FeatureUpdates {
    /// The node that decides, as errors name it.
    pub controller: i32,
    /// The levels of [`MILLSTREAM_VERSION`] that it supports.
    pub supported: RangeInclusive<u16>,
    /// The other members of the quorum, each with the newest level of [`MILLSTREAM_VERSION`] that it knows; `None` for
    /// one that was never reached. The controller adds them when it decides.
    #[serde(default)]
    pub members: BTreeMap<i32, Option<u16>>,
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
    /// The program of a broker does not know the level.
    #[error("Broker {broker} only supports versions {min}-{max}")]
    UnknownToBroker {
        /// The broker.
        broker: i32,
        /// Its lowest level.
        min: u16,
        /// Its highest level.
        max: u16,
    },
    /// The program of a node that is only a controller does not know the level.
    #[error("Controller {controller} only supports versions 0-{max}")]
    UnknownToController {
        /// The node.
        controller: i32,
        /// Its highest level.
        max: u16,
    },
    /// It is not known which levels a node knows.
    #[error("Controller {0} was not reached yet, so its versions are not known: start it, or remove it.")]
    Unreached(i32),
    /// The log has no record for the level of the feature.
    #[error("The feature needs level {0} of millstream.version.")]
    LogTooOld(u16),
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

/// The levels of all features.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Levels {
    log: u16,
    transactions: u16,
}

/// Changes the levels of features. Returns no record if they stay the same.
///
/// # Errors
/// The first change that is not valid.
pub(crate) fn update(image: &MetadataImage, updates: &FeatureUpdates) -> Result<Vec<MetadataRecord>, ClusterError> {
    let before = Levels { log: image.feature_level.number(), transactions: image.transaction_version() };
    let mut levels = before;
    let rejected = |update: &FeatureUpdate, reason| ClusterError::FeatureUpdate {
        feature: update.feature.clone(),
        level: update.level,
        reason,
    };
    for update in &updates.updates {
        levels = change(levels, image, update, updates).map_err(|reason| rejected(update, reason))?;
    }
    let mut records = Vec::new();
    if levels.log != before.log {
        records.push(MetadataRecord::FeatureLevelSet { level: levels.log });
    }
    if levels.transactions != before.transactions {
        // The same request may raise the level of the log.
        let needed = FeatureLevel::FEATURES.number();
        let update = updates.updates.iter().find(|update| update.feature == TRANSACTION_VERSION);
        if let Some(update) = update.filter(|_| levels.log < needed) {
            return Err(rejected(update, FeatureError::LogTooOld(needed)));
        }
        let feature = TRANSACTION_VERSION.to_owned();
        records.push(MetadataRecord::FeatureChanged { feature, level: levels.transactions });
    }
    Ok(records)
}

/// Returns the levels after a change.
fn change(
    levels: Levels,
    image: &MetadataImage,
    update: &FeatureUpdate,
    updates: &FeatureUpdates,
) -> Result<Levels, FeatureError> {
    let FeatureUpdates { controller, supported, .. } = updates;
    let upgrade_type = update.upgrade_type.ok_or(FeatureError::UnknownUpgradeType)?;
    let new = u16::try_from(update.level).map_err(|_| FeatureError::Negative)?;
    let check = |supported: &RangeInclusive<u16>, is_known: bool| match supported.contains(&new) && is_known {
        true => Ok(()),
        false => {
            Err(FeatureError::OutOfRange { controller: *controller, min: *supported.start(), max: *supported.end() })
        }
    };
    match update.feature.as_str() {
        TRANSACTION_VERSION => {
            check(&transaction_versions(image), true)?;
            check_direction(levels.transactions, new, upgrade_type)?;
            Ok(Levels { transactions: new, ..levels })
        }
        MILLSTREAM_VERSION => {
            check(supported, FeatureLevel::new(new).is_ok())?;
            check_direction(levels.log, new, upgrade_type)?;
            match new.cmp(&levels.log) {
                Ordering::Less => return Err(FeatureError::Downgrade),
                Ordering::Equal => {}
                Ordering::Greater => {
                    check_brokers(image, new)?;
                    check_members(image, &updates.members, new)?;
                }
            }
            Ok(Levels { log: new, ..levels })
        }
        other => Err(match new {
            0 => FeatureError::NotFound(other.to_owned()),
            _ => FeatureError::Unsupported(*controller),
        }),
    }
}

/// Returns the levels of [`TRANSACTION_VERSION`] that can be chosen. The log of a broker that is alone has no record
/// for them.
pub fn transaction_versions(image: &MetadataImage) -> RangeInclusive<u16> {
    match image.feature_level < FeatureLevel::CLUSTER {
        true => TRANSACTION_VERSION_NEWEST..=TRANSACTION_VERSION_NEWEST,
        false => 0..=TRANSACTION_VERSION_NEWEST,
    }
}

/// Checks that a level moves as the client allows.
fn check_direction(level: u16, new: u16, upgrade_type: UpgradeType) -> Result<(), FeatureError> {
    match (new.cmp(&level), upgrade_type) {
        (Ordering::Less, UpgradeType::Upgrade) => Err(FeatureError::NotAnUpgrade),
        (Ordering::Greater, UpgradeType::SafeDowngrade | UpgradeType::UnsafeDowngrade) => {
            Err(FeatureError::NotADowngrade)
        }
        _ => Ok(()),
    }
}

/// Checks that the program of each broker knows a level of the log, also of those that are fenced.
fn check_brokers(image: &MetadataImage, new: u16) -> Result<(), FeatureError> {
    let mut registered = image.brokers().map(|broker| &broker.registration);
    match registered.find(|broker| !(broker.level_min..=broker.level_max).contains(&new)) {
        None => Ok(()),
        Some(broker) => {
            let (min, max) = (broker.level_min, broker.level_max);
            Err(FeatureError::UnknownToBroker { broker: broker.id, min, max })
        }
    }
}

/// Checks that the program of each member of the quorum that is not a broker knows a level of the log.
fn check_members(image: &MetadataImage, members: &BTreeMap<i32, Option<u16>>, new: u16) -> Result<(), FeatureError> {
    for (&controller, level) in members.iter().filter(|(id, _)| image.broker(**id).is_none()) {
        let max = level.ok_or(FeatureError::Unreached(controller))?;
        if max < new {
            return Err(FeatureError::UnknownToController { controller, max });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::cluster_tests::cluster;

    fn update_to(image: &MetadataImage, changes: &[(&str, i16, Option<UpgradeType>)]) -> Result<Option<u16>, String> {
        let change = |&(feature, level, upgrade_type): &(&str, i16, _)| FeatureUpdate {
            feature: feature.to_owned(),
            level,
            upgrade_type,
        };
        let updates = changes.iter().map(change).collect();
        let updates = FeatureUpdates { controller: 7, supported: 1..=3, members: BTreeMap::new(), updates };
        match update(image, &updates).map_err(|error| error.to_string())?.as_slice() {
            [] => Ok(None),
            [MetadataRecord::FeatureLevelSet { level } | MetadataRecord::FeatureChanged { level, .. }] => {
                Ok(Some(*level))
            }
            other => panic!("{other:?}"),
        }
    }

    /// Returns a cluster of three brokers whose log has this level.
    fn cluster_of(level: FeatureLevel) -> MetadataImage {
        let mut image = cluster(&[(1, None), (2, None), (3, None)]);
        image.feature_level = level;
        image
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
        for level in [0, 4, i16::MAX] {
            assert_eq!(to(level, Upgrade), invalid(level, "Local controller 7 only supports versions 1-3"));
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
    fn a_level_waits_for_the_last_broker_that_knows_it() {
        let mut image = cluster_of(FeatureLevel::CLUSTER);
        let raise = |image: &MetadataImage| update_to(image, &[(MILLSTREAM_VERSION, 3, Some(UpgradeType::Upgrade))]);
        assert_eq!(raise(&image), Ok(Some(3)));
        let mut registration = image.broker(2).expect("it is registered").registration.clone();
        registration.level_max = 2;
        image.apply(&MetadataRecord::BrokerRegistered { broker: registration, epoch: 9 }).expect("it fits");
        let error = raise(&image).expect_err("an older program");
        assert!(error.ends_with("Broker 2 only supports versions 0-2"), "{error}");
        image.apply(&MetadataRecord::BrokerUnregistered { id: 2, epoch: 9 }).expect("it fits");
        assert_eq!(raise(&image), Ok(Some(3)));
    }

    #[test]
    fn a_level_waits_for_the_last_controller_that_knows_it() {
        let image = cluster_of(FeatureLevel::CLUSTER);
        let raise = |members: &[(i32, Option<u16>)]| {
            let upgrade_type = Some(UpgradeType::Upgrade);
            let updates = vec![FeatureUpdate { feature: MILLSTREAM_VERSION.into(), level: 3, upgrade_type }];
            let members = members.iter().copied().collect();
            let updates = FeatureUpdates { controller: 7, supported: 2..=3, members, updates };
            update(&image, &updates).map(|records| records.len()).map_err(|error| error.to_string())
        };
        assert_eq!(raise(&[(9, Some(3))]), Ok(1));
        // What a broker knows is in its registration.
        assert_eq!(raise(&[(2, None), (9, Some(4))]), Ok(1));
        let error = raise(&[(9, Some(2))]).expect_err("an older program");
        assert!(error.ends_with("Controller 9 only supports versions 0-2"), "{error}");
        let error = raise(&[(9, None)]).expect_err("an unknown program");
        assert!(error.contains("Controller 9 was not reached yet"), "{error}");
    }

    #[test]
    fn the_version_of_transactions_rises_and_goes_down() {
        use UpgradeType::{SafeDowngrade, UnsafeDowngrade, Upgrade};
        let to = |image: &MetadataImage, level, upgrade_type| {
            update_to(image, &[(TRANSACTION_VERSION, level, Some(upgrade_type))])
        };
        let older = cluster_of(FeatureLevel::CLUSTER);
        assert_eq!(older.transaction_version(), 0);
        let error = to(&older, 2, Upgrade).expect_err("no record for it");
        assert!(error.ends_with("The feature needs level 3 of millstream.version."), "{error}");
        assert_eq!(to(&older, 0, Upgrade), Ok(None));

        let mut image = cluster_of(FeatureLevel::FEATURES);
        for (level, direction) in [(2, Upgrade), (1, SafeDowngrade), (2, Upgrade), (0, UnsafeDowngrade)] {
            assert_eq!(to(&image, level, direction), Ok(Some(level.unsigned_abs())));
            let feature = TRANSACTION_VERSION.to_owned();
            let changed = MetadataRecord::FeatureChanged { feature, level: level.unsigned_abs() };
            image.apply(&changed).expect("it fits");
            assert_eq!(image.transaction_version(), level.unsigned_abs());
        }
        let error = to(&image, 1, SafeDowngrade).expect_err("the level would rise");
        assert!(error.ends_with("Can't downgrade to a newer version."), "{error}");
        let error = to(&image, 3, Upgrade).expect_err("there is none");
        assert!(error.ends_with("Local controller 7 only supports versions 0-2"), "{error}");
    }

    #[test]
    fn one_request_raises_the_log_and_the_version_of_transactions() {
        let upgrade = Some(UpgradeType::Upgrade);
        let change = |feature: &str, level| FeatureUpdate { feature: feature.into(), level, upgrade_type: upgrade };
        for updates in [
            vec![change(TRANSACTION_VERSION, 2), change(MILLSTREAM_VERSION, 3)],
            vec![change(MILLSTREAM_VERSION, 3), change(TRANSACTION_VERSION, 2)],
        ] {
            let updates = FeatureUpdates { controller: 7, supported: 2..=3, members: BTreeMap::new(), updates };
            let mut image = cluster_of(FeatureLevel::CLUSTER);
            let records = update(&image, &updates).expect("all brokers know it");
            records.iter().for_each(|record| image.apply(record).expect("it fits"));
            assert_eq!((image.feature_level, image.transaction_version()), (FeatureLevel::FEATURES, 2));
        }
    }

    #[test]
    fn the_version_of_transactions_of_a_broker_that_is_alone_is_fixed() {
        let image = MetadataImage::new(7);
        assert_eq!(image.transaction_version(), 2);
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
