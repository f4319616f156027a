//! Places the replicas of new partitions on the brokers.
//!
//! The brokers form a ring in which the racks alternate. A partition takes its replicas from the ring, beginning one
//! place after the partition before it, so that leaders spread over brokers and racks. Each time around, the followers
//! move on by one, so that the partitions of a broker that fails get leaders on all others.

use std::collections::BTreeMap;
use std::ops::Range;

use uuid::Uuid;

use super::ControllerError;
use crate::{BrokerImage, FeatureLevel, MetadataImage};

/// Returns the replicas of each of these partitions of a topic, the preferred leader first.
///
/// The racks of a partition are as many as possible. A fenced broker never leads, and gets a replica only if the active
/// ones are too few. A cordoned broker gets none.
///
/// # Errors
/// All brokers are fenced or cordoned.
pub(crate) fn place(
    image: &MetadataImage,
    topic: Uuid,
    partitions: Range<i32>,
    factor: usize,
) -> Result<Vec<Vec<i32>>, ControllerError> {
    let open = || image.brokers().filter(|broker| !image.is_cordoned(broker.registration.id));
    let active = ring(open().filter(|broker| broker.is_active()));
    let others = ring(open().filter(|broker| !broker.is_active()));
    if active.is_empty() {
        return Err(ControllerError::AllBrokersFenced);
    }
    // Topics of one partition begin at different brokers. In a log of one broker there is nothing to spread.
    let spread = image.feature_level >= FeatureLevel::CLUSTER;
    let start = if spread { (topic.as_u128() % active.len() as u128) as usize } else { 0 };
    let partitions = partitions.map(|partition| start + partition.unsigned_abs() as usize);
    Ok(partitions.map(|turn| replicas(&active, &others, turn, factor)).collect())
}

/// A place in the ring.
type Place<'a> = (i32, Option<&'a str>);

/// Returns the brokers in an order in which the racks alternate.
fn ring<'a>(brokers: impl Iterator<Item = &'a BrokerImage>) -> Vec<Place<'a>> {
    let mut racks: BTreeMap<Option<&str>, Vec<i32>> = BTreeMap::new();
    for broker in brokers {
        racks.entry(broker.registration.rack.as_deref()).or_default().push(broker.registration.id);
    }
    let longest = racks.values().map(Vec::len).max().unwrap_or(0);
    let row = |row| racks.iter().filter_map(move |(rack, ids)| Some((*ids.get(row)?, *rack)));
    (0..longest).flat_map(row).collect()
}

/// Returns the replicas of the partition whose leader is at `turn` in the ring of active brokers.
fn replicas(active: &[Place<'_>], others: &[Place<'_>], turn: usize, factor: usize) -> Vec<i32> {
    let leader = active[turn % active.len()];
    let mut chosen = vec![leader];
    // The followers of each round begin one place further.
    let followers = active.len() - 1;
    let shift = turn / active.len();
    let places = (0..followers).map(|index| active[(turn + 1 + (index + shift) % followers) % active.len()]);
    let candidates: Vec<Place<'_>> = places.chain(others.iter().copied()).collect();
    let active_followers = &candidates[..followers];
    // First the racks that have none yet, then any broker, and fenced ones last.
    let of_new_rack =
        |chosen: &[Place<'_>], place: &Place<'_>| place.1.is_some() && chosen.iter().all(|c| c.1 != place.1);
    for place in active_followers {
        if chosen.len() < factor && of_new_rack(&chosen, place) {
            chosen.push(*place);
        }
    }
    for place in &candidates {
        if chosen.len() < factor && !chosen.contains(place) {
            chosen.push(*place);
        }
    }
    chosen.truncate(factor);
    chosen.into_iter().map(|(id, _)| id).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::controller::cluster_tests::{cluster, fence};

    const TOPIC: Uuid = Uuid::from_u128(0);

    #[test]
    fn leaders_and_followers_are_spread() {
        let image = cluster(&[(1, None), (2, None), (3, None)]);
        let placed = place(&image, TOPIC, 0..6, 2).expect("three brokers");
        assert_eq!(placed, [[1, 2], [2, 3], [3, 1], [1, 3], [2, 1], [3, 2]]);
        // Each pair of leader and follower occurs once.
        let pairs: BTreeSet<&Vec<i32>> = placed.iter().collect();
        assert_eq!(pairs.len(), 6);
        // The next partitions continue.
        assert_eq!(place(&image, TOPIC, 4..6, 2).expect("three brokers"), placed[4..]);
        let other = place(&image, Uuid::from_u128(1), 0..1, 3).expect("three brokers");
        assert_eq!(other, [[2, 3, 1]], "another topic begins at another broker");
    }

    #[test]
    fn each_rack_gets_a_replica() {
        let image = cluster(&[(1, Some("a")), (2, Some("a")), (3, Some("b")), (4, Some("b")), (5, Some("c"))]);
        for (index, replicas) in place(&image, TOPIC, 0..40, 3).expect("five brokers").iter().enumerate() {
            let racks: BTreeSet<_> = replicas.iter().map(|id| (id - 1) / 2).collect();
            assert_eq!(racks.len(), 3, "partition {index} is on {replicas:?}");
        }
        let all = place(&image, TOPIC, 0..1, 5).expect("five brokers");
        assert_eq!(all[0].iter().collect::<BTreeSet<_>>().len(), 5, "more replicas than racks");
    }

    #[test]
    fn a_fenced_broker_is_the_last_choice_and_never_leads() {
        let mut image = cluster(&[(1, None), (2, None), (3, None)]);
        fence(&mut image, 2);
        let placed = place(&image, TOPIC, 0..4, 3).expect("two active brokers");
        assert!(placed.iter().all(|replicas| replicas[2] == 2), "{placed:?}");
        let placed = place(&image, TOPIC, 0..4, 2).expect("two active brokers");
        assert!(placed.iter().flatten().all(|&id| id != 2), "{placed:?}");
        for id in [1, 3] {
            fence(&mut image, id);
        }
        assert_eq!(place(&image, TOPIC, 0..1, 1), Err(ControllerError::AllBrokersFenced));
    }
}
