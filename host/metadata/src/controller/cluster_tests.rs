//! Tests the decisions about brokers and partitions alone.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::*;
use crate::{BrokerRegistration, Endpoint, FeatureLevel, NO_LEADER, PartitionImage};

pub(crate) const TOPIC: Uuid = Uuid::from_u128(3);

/// Rules with these defaults for every topic.
pub(crate) struct ClusterRules(pub(crate) BTreeMap<&'static str, &'static str>);

impl ClusterRules {
    pub(crate) fn new(min_isr: &'static str, unclean: &'static str) -> Self {
        Self(BTreeMap::from([("min.insync.replicas", min_isr), ("unclean.leader.election.enable", unclean)]))
    }
}

impl TopicRules for ClusterRules {
    type Error = ClusterError;

    fn default_partitions(&self) -> i32 {
        1
    }

    fn default_replication_factor(&self) -> i32 {
        3
    }

    fn inherited(&self, _: &MetadataImage, config: &str) -> Option<String> {
        self.0.get(config).map(|value| (*value).to_owned())
    }

    fn is_list(&self, _: &str) -> bool {
        false
    }

    fn check(&self, _: &MetadataImage, _: &TopicDraft<'_>) -> Result<(), ClusterError> {
        Ok(())
    }

    fn check_broker(&self, _: Option<i32>, _: &BrokerConfigs) -> Result<(), ClusterError> {
        Ok(())
    }

    fn check_partitions(&self, _: &str, _: i32) -> Result<(), ClusterError> {
        Ok(())
    }

    fn check_deletion(&self, _: &MetadataImage, _: &TopicImage) -> Result<(), ClusterError> {
        Ok(())
    }
}

pub(crate) fn registration(id: i32, incarnation: u128, rack: Option<&str>) -> Registration {
    let broker = BrokerRegistration {
        id,
        incarnation: Uuid::from_u128(incarnation),
        endpoints: vec![Endpoint { listener: "PLAINTEXT".into(), host: format!("b{id}"), port: 9092 }],
        rack: rack.map(str::to_owned),
        level_min: 0,
        level_max: FeatureLevel::NEWEST.number(),
    };
    Registration { cluster_id: "c".into(), broker, kept: Kept::All }
}

pub(crate) fn apply(image: &mut MetadataImage, records: &[MetadataRecord]) {
    for record in records {
        image.apply(record).unwrap_or_else(|error| panic!("{record:?} does not fit: {error}"));
    }
}

/// Registers a broker and lets it catch up.
pub(crate) fn start(image: &mut MetadataImage, rules: &ClusterRules, registration: &Registration) -> i64 {
    let (epoch, records) = register(image, rules, registration).expect("a good registration");
    apply(image, &records);
    let (state, records) = heartbeat(image, rules, beat(registration.broker.id, epoch)).expect("it is registered");
    apply(image, &records);
    assert!(!state.fenced && !state.may_stop);
    epoch
}

pub(crate) fn beat(id: i32, epoch: i64) -> Heartbeat {
    Heartbeat { id, epoch, caught_up: true, want_fence: false, want_shutdown: false }
}

/// Returns an image of active brokers, each in its rack.
pub(crate) fn cluster(brokers: &[(i32, Option<&str>)]) -> MetadataImage {
    let mut image = MetadataImage::new(brokers[0].0);
    apply(
        &mut image,
        &[
            MetadataRecord::ClusterCreated { cluster_id: "c".into() },
            MetadataRecord::FeatureLevelSet { level: FeatureLevel::CLUSTER.number() },
        ],
    );
    for &(id, rack) in brokers {
        start(&mut image, &ClusterRules::new("1", "false"), &registration(id, id.unsigned_abs().into(), rack));
    }
    image
}

pub(crate) fn fence(image: &mut MetadataImage, id: i32) {
    fence_by(image, &ClusterRules::new("2", "false"), id);
}

pub(crate) fn fence_by(image: &mut MetadataImage, rules: &ClusterRules, id: i32) {
    let epoch = image.broker(id).expect("it is registered").epoch;
    let records = super::fence(image, rules, id, epoch).expect("it is registered");
    apply(image, &records);
}

/// Returns a cluster of three brokers with one partition on 1, 2 and 3, and its rules.
fn replicated() -> (MetadataImage, ClusterRules) {
    let (mut image, rules) = (cluster(&[(1, None), (2, None), (3, None), (4, None)]), ClusterRules::new("2", "false"));
    let assignments = vec![Assignment { partition: 0, replicas: vec![1, 2, 3] }];
    let topic = NewTopic { id: TOPIC, assignments, ..NewTopic::new("t") };
    let records = decide(&image, &Request::CreateTopic(topic), &rules).expect("a good topic");
    apply(&mut image, &records);
    (image, rules)
}

fn partition(image: &MetadataImage) -> &PartitionImage {
    image.partition(TOPIC, 0).expect("the partition exists")
}

/// Returns leader, in-sync set, eligible replicas and last known leader.
fn state(image: &MetadataImage) -> (i32, Vec<i32>, Vec<i32>, Vec<i32>) {
    let one = partition(image);
    (one.leader, one.isr.to_vec(), one.elr.to_vec(), one.last_known_elr.to_vec())
}

/// Returns the request of the leader for this set.
fn wants(image: &MetadataImage, isr: &[i32]) -> AlterPartition {
    let one = partition(image);
    AlterPartition {
        broker: one.leader,
        broker_epoch: image.broker(one.leader).map_or(-1, |broker| broker.epoch),
        topic: TOPIC,
        partition: 0,
        leader_epoch: one.leader_epoch,
        partition_epoch: one.partition_epoch,
        isr: isr.iter().map(|&id| (id, image.broker(id).map_or(-1, |broker| broker.epoch))).collect(),
        recovered: true,
    }
}

fn alter(image: &mut MetadataImage, rules: &ClusterRules, isr: &[i32]) {
    let records = alter_partition(image, rules, &wants(image, isr)).expect("a good set");
    apply(image, &records);
}

fn restart(image: &mut MetadataImage, rules: &ClusterRules, id: i32, kept: Kept) {
    let incarnation = image.next_broker_epoch.unsigned_abs() as u128 + 100;
    start(image, rules, &Registration { kept, ..registration(id, incarnation, None) });
}

#[test]
fn a_broker_is_registered_fenced_and_unfenced() {
    let (mut image, rules) = (cluster(&[(1, None)]), ClusterRules::new("1", "false"));
    let (epoch, records) = register(&image, &rules, &registration(2, 2, None)).expect("a new broker");
    apply(&mut image, &records);
    assert!(image.broker(2).expect("it is registered").fenced && !image.is_active(2));
    let behind = Heartbeat { caught_up: false, ..beat(2, epoch) };
    assert_eq!(
        heartbeat(&image, &rules, behind).expect("it is registered"),
        (BrokerState { fenced: true, may_stop: false }, vec![])
    );
    let (state, records) = heartbeat(&image, &rules, beat(2, epoch)).expect("it is registered");
    apply(&mut image, &records);
    assert!(!state.fenced && image.is_active(2));
    assert_eq!(heartbeat(&image, &rules, beat(2, epoch)).expect("it is registered").1, []);
    let (state, records) =
        heartbeat(&image, &rules, Heartbeat { want_fence: true, ..beat(2, epoch) }).expect("it is registered");
    apply(&mut image, &records);
    assert!(state.fenced && !image.is_active(2));
}

#[test]
fn registrations_that_do_not_fit_are_rejected() {
    let (image, rules) = (cluster(&[(1, None), (2, None)]), ClusterRules::new("1", "false"));
    let error = |registration: &Registration| register(&image, &rules, registration).expect_err("it does not fit");
    let other = Registration { cluster_id: "d".into(), ..registration(3, 3, None) };
    assert_eq!(error(&other), ClusterError::OtherCluster { theirs: "d".into(), ours: "c".into() });
    assert_eq!(error(&registration(2, 9, None)), ClusterError::IdInUse { id: 2, incarnation: Uuid::from_u128(2) });
    let mut old = registration(3, 3, None);
    old.broker.level_max = 1;
    assert_eq!(error(&old), ClusterError::UnknownLevel { id: 3, level: 2, min: 0, max: 1 });
    let alone = MetadataImage::new(1);
    let level = register(&alone, &rules, &registration(2, 2, None));
    assert_eq!(level.expect_err("a log of one broker"), ClusterError::LevelTooLow { level: 0 });
    // The same process keeps its epoch and stays unfenced.
    let (epoch, records) = register(&image, &rules, &registration(2, 2, Some("r"))).expect("the same process");
    let mut after = image.clone();
    apply(&mut after, &records);
    assert_eq!((epoch, after.is_active(2)), (image.broker(2).expect("registered").epoch, true));
    let stale = heartbeat(&image, &rules, beat(2, 1)).expect_err("an older epoch");
    assert_eq!(stale, ClusterError::StaleBrokerEpoch { id: 2, epoch: 1, newest: epoch });
    assert_eq!(heartbeat(&image, &rules, beat(8, 1)).expect_err("no such broker"), ClusterError::NotRegistered(8));
}

/// Kafka 4.2 behaves the same, except that there a killed broker leaves the eligible replicas when it starts again.
#[test]
fn brokers_that_die_in_turn_leave_eligible_replicas() {
    let (mut image, rules) = replicated();
    fence_by(&mut image, &rules, 3);
    assert_eq!(state(&image), (1, vec![1, 2], vec![], vec![]));
    fence_by(&mut image, &rules, 1);
    assert_eq!(state(&image), (2, vec![2], vec![1], vec![]));
    fence_by(&mut image, &rules, 2);
    assert_eq!(state(&image), (NO_LEADER, vec![], vec![1, 2], vec![2]));
    let epoch = partition(&image).leader_epoch;
    restart(&mut image, &rules, 3, Kept::All);
    assert_eq!(state(&image), (NO_LEADER, vec![], vec![1, 2], vec![2]), "3 lacks records");
    restart(&mut image, &rules, 1, Kept::All);
    assert_eq!(state(&image), (1, vec![1], vec![2], vec![]), "1 has every committed record");
    assert!(partition(&image).leader_epoch > epoch && !partition(&image).recovering);
    restart(&mut image, &rules, 2, Kept::All);
    alter(&mut image, &rules, &[1, 2]);
    assert_eq!(state(&image), (1, vec![1, 2], vec![], vec![]));
}

#[test]
fn a_broker_that_lost_records_is_not_eligible() {
    let (mut image, rules) = replicated();
    for id in [3, 1, 2] {
        fence_by(&mut image, &rules, id);
    }
    restart(&mut image, &rules, 1, Kept::Most);
    assert_eq!(state(&image), (NO_LEADER, vec![], vec![2], vec![2]));
    restart(&mut image, &rules, 2, Kept::Most);
    // The last leader is the best that is left.
    assert_eq!(state(&image), (2, vec![2], vec![], vec![]));
    assert!(partition(&image).recovering);
    restart(&mut image, &rules, 3, Kept::All);
    let early = AlterPartition { recovered: false, ..wants(&image, &[2, 3]) };
    assert_eq!(alter_partition(&image, &rules, &early), Err(ClusterError::RecoveringWithFollowers));
    alter(&mut image, &rules, &[2]);
    assert!(!partition(&image).recovering);
    let again = AlterPartition { recovered: false, ..wants(&image, &[2]) };
    assert_eq!(alter_partition(&image, &rules, &again), Err(ClusterError::RecoveredTwice));
}

fn leaves(image: &MetadataImage, id: i32, lossy: bool) -> LeaveInSync {
    let broker_epoch = image.broker(id).expect("it is registered").epoch;
    LeaveInSync { broker: id, broker_epoch, topic: TOPIC, partition: 0, lossy }
}

#[test]
fn a_replica_with_a_failing_disk_leaves_and_another_one_leads() {
    let (mut image, rules) = replicated();
    let leave = |image: &mut MetadataImage, id, lossy| {
        let records = leave_in_sync(image, &rules, &leaves(image, id, lossy))?;
        apply(image, &records);
        Ok::<_, ClusterError>(records.len())
    };
    assert_eq!(leave(&mut image, 1, false), Ok(1));
    assert_eq!(state(&image), (2, vec![2, 3], vec![], vec![]));
    assert_eq!(leave(&mut image, 1, false), Ok(0), "it has left");
    // A smaller set than min.insync.replicas: the replica that left still holds every committed record.
    assert_eq!(leave(&mut image, 3, false), Ok(1));
    assert_eq!(state(&image), (2, vec![2], vec![3], vec![]));
    assert_eq!(leave(&mut image, 2, false), Ok(0), "it stays the leader while no other one is in sync");
    assert_eq!(leave(&mut image, 2, true), Ok(1), "damaged, it cannot lead any more");
    assert_eq!(state(&image), (3, vec![3], vec![], vec![]));
    assert_eq!(leave(&mut image, 3, true), Err(ClusterError::LastInSync(3)));
    assert_eq!(leave(&mut image, 3, false), Err(ClusterError::LastInSync(3)));
    assert_eq!(state(&image), (3, vec![3], vec![], vec![]));
}

#[test]
fn a_damaged_leader_waits_for_a_replica_that_is_down_and_holds_every_record() {
    let (mut image, rules) = replicated();
    fence(&mut image, 2);
    fence(&mut image, 3);
    assert_eq!(state(&image), (1, vec![1], vec![3], vec![]));
    // With a full disk it goes on to lead.
    assert_eq!(leave_in_sync(&image, &rules, &leaves(&image, 1, false)), Ok(Vec::new()));
    let records = leave_in_sync(&image, &rules, &leaves(&image, 1, true)).expect("others hold the records");
    apply(&mut image, &records);
    assert_eq!((state(&image).0, &state(&image).2[..]), (NO_LEADER, &[3][..]));
    restart(&mut image, &rules, 3, Kept::All);
    assert_eq!(state(&image), (3, vec![3], vec![], vec![]));
}

#[test]
fn a_broker_with_an_empty_folder_leads_only_what_no_other_replica_can_have() {
    let (mut image, rules) = replicated();
    for id in [3, 1, 2] {
        fence_by(&mut image, &rules, id);
    }
    restart(&mut image, &rules, 1, Kept::Most);
    restart(&mut image, &rules, 2, Kept::None);
    assert_eq!(state(&image), (NO_LEADER, vec![], vec![], vec![]), "1 and 3 have more records");
    let record = elect(&image, &rules, Election::Unclean, TOPIC, 0).expect("an operator may give them up");
    apply(&mut image, &[record]);
    assert_eq!(state(&image).0, 1);
    // No other broker has a replica of this one.
    let (mut image, rules) = (cluster(&[(1, None), (2, None)]), ClusterRules::new("1", "false"));
    let assignments = vec![Assignment { partition: 0, replicas: vec![2] }];
    let topic = NewTopic { id: TOPIC, assignments, ..NewTopic::new("t") };
    let records = decide(&image, &Request::CreateTopic(topic), &rules).expect("a good topic");
    apply(&mut image, &records);
    fence_by(&mut image, &rules, 2);
    restart(&mut image, &rules, 2, Kept::None);
    assert_eq!(state(&image).0, 2);
}

#[test]
fn an_unclean_election_takes_any_active_replica_where_it_is_allowed() {
    let (mut image, rules) = replicated();
    for id in [3, 1, 2] {
        fence_by(&mut image, &rules, id);
    }
    restart(&mut image, &rules, 3, Kept::All);
    let unclean = |image: &MetadataImage| elect(image, &rules, Election::Unclean, TOPIC, 0);
    let record = unclean(&image).expect("3 is active");
    apply(&mut image, &[record]);
    assert_eq!(state(&image), (3, vec![3], vec![], vec![]));
    assert!(partition(&image).recovering);
    assert_eq!(unclean(&image), Err(ClusterError::ElectionNotNeeded));
    // With the topic's config the controller elects by itself.
    let (mut image, _) = replicated();
    let rules = ClusterRules::new("2", "true");
    for id in [2, 3] {
        fence_by(&mut image, &rules, id);
    }
    restart(&mut image, &rules, 3, Kept::All);
    fence_by(&mut image, &rules, 1);
    assert_eq!(state(&image).0, 3);
}

#[test]
fn a_broker_that_shuts_down_gives_its_leaderships_away_first() {
    let (mut image, rules) = replicated();
    let epoch = image.broker(1).expect("registered").epoch;
    let stop = Heartbeat { want_shutdown: true, ..beat(1, epoch) };
    let (first, records) = heartbeat(&image, &rules, stop).expect("registered");
    assert!(!first.may_stop && !first.fenced);
    apply(&mut image, &records);
    assert_eq!(state(&image), (2, vec![2, 3], vec![], vec![]));
    let (second, records) = heartbeat(&image, &rules, stop).expect("registered");
    assert!(second.may_stop && records.is_empty());
    let back = AlterPartition { ..wants(&image, &[1, 2, 3]) };
    assert_eq!(alter_partition(&image, &rules, &back), Err(ClusterError::IneligibleReplica(1)));
    // It starts again, and leads again only when it is asked to.
    restart(&mut image, &rules, 1, Kept::All);
    alter(&mut image, &rules, &[1, 2, 3]);
    assert_eq!(state(&image).0, 2);
    assert_eq!(balance(&image, &rules, 10, 100).len(), 1);
    let record = elect(&image, &rules, Election::Preferred, TOPIC, 0).expect("1 is in sync");
    apply(&mut image, &[record]);
    assert_eq!(state(&image).0, 1);
    assert_eq!(elect(&image, &rules, Election::Preferred, TOPIC, 0), Err(ClusterError::ElectionNotNeeded));
    fence_by(&mut image, &rules, 1);
    assert_eq!(elect(&image, &rules, Election::Preferred, TOPIC, 0), Err(ClusterError::PreferredLeaderNotAvailable));
}

#[test]
fn only_the_leader_changes_the_set_and_only_from_the_newest_state() {
    let (mut image, rules) = replicated();
    let old = wants(&image, &[1, 2]);
    alter(&mut image, &rules, &[1, 3]);
    let error = |request: &AlterPartition| alter_partition(&image, &rules, request).expect_err("it does not fit");
    assert_eq!(error(&old), ClusterError::OldPartitionEpoch);
    let good = wants(&image, &[1, 2, 3]);
    assert_eq!(error(&AlterPartition { broker: 3, broker_epoch: 3, ..good.clone() }), ClusterError::NotLeader(3));
    assert!(matches!(
        error(&AlterPartition { broker_epoch: 0, ..good.clone() }),
        ClusterError::StaleBrokerEpoch { id: 1, epoch: 0, .. }
    ));
    let ahead = AlterPartition { leader_epoch: good.leader_epoch + 1, ..good.clone() };
    assert_eq!(error(&ahead), ClusterError::NewerThanController);
    let behind = AlterPartition { leader_epoch: good.leader_epoch - 1, ..good.clone() };
    assert!(matches!(error(&behind), ClusterError::FencedLeaderEpoch { .. }));
    for isr in [&[2, 3][..], &[1, 4], &[1, 2, 2], &[]] {
        assert_eq!(error(&wants(&image, isr)), ClusterError::InvalidIsr(isr.to_vec()));
    }
    let restarted = AlterPartition { isr: vec![(1, -1), (2, 1)], ..good.clone() };
    assert_eq!(error(&restarted), ClusterError::IneligibleReplica(2));
    assert_eq!(
        error(&AlterPartition { partition: 7, ..good.clone() }),
        ClusterError::UnknownPartition { topic: "t".into(), partition: 7 }
    );
    let id = Uuid::from_u128(99);
    assert_eq!(error(&AlterPartition { topic: id, ..good }), ClusterError::UnknownTopicId(id));
    assert_eq!(alter_partition(&image, &rules, &wants(&image, &[1, 3])), Ok(vec![]), "the set is the wanted one");
}

fn reassignment(topic: Uuid, target: Option<&[i32]>) -> Reassignment {
    let target = target.map(<[i32]>::to_vec);
    Reassignment { topic, partition: 0, target, allow_replication_factor_change: true }
}

/// Reassigns partition 0 of a topic.
pub(crate) fn move_to(
    image: &MetadataImage,
    rules: &ClusterRules,
    topic: Uuid,
    target: Option<&[i32]>,
) -> Result<Vec<MetadataRecord>, ClusterError> {
    reassign(image, rules, &reassignment(topic, target))
}

#[test]
fn a_reassignment_ends_when_the_new_replicas_are_in_sync() {
    let (mut image, rules) = replicated();
    let records = move_to(&image, &rules, TOPIC, Some(&[4, 2])).expect("a good target");
    apply(&mut image, &records);
    let one = partition(&image);
    assert_eq!((&*one.replicas, &*one.adding, &*one.removing), (&[4, 2, 1, 3][..], &[4][..], &[1, 3][..]));
    assert_eq!(state(&image), (1, vec![1, 2, 3], vec![], vec![]));
    let epoch = one.leader_epoch;
    alter(&mut image, &rules, &[1, 2, 3, 4]);
    let one = partition(&image);
    assert!(!one.is_reassigning() && one.leader_epoch == epoch + 1);
    assert_eq!((one.leader, &*one.replicas, &*one.isr), (4, &[4, 2][..], &[2, 4][..]));
    assert_eq!(move_to(&image, &rules, TOPIC, None), Err(ClusterError::NoReassignment));
}

#[test]
fn a_reassignment_is_cancelled_or_replaced() {
    let (mut image, rules) = replicated();
    let before = (partition(&image).replicas.clone(), state(&image));
    let records = move_to(&image, &rules, TOPIC, Some(&[4])).expect("a good target");
    apply(&mut image, &records);
    let records = move_to(&image, &rules, TOPIC, None).expect("one is under way");
    apply(&mut image, &records);
    assert!(!partition(&image).is_reassigning());
    let mut replicas = partition(&image).replicas.to_vec();
    replicas.sort_unstable();
    assert_eq!((&replicas[..], state(&image)), (&*before.0, before.1));
    for target in [&[4, 2][..], &[3, 2]] {
        let records = move_to(&image, &rules, TOPIC, Some(target)).expect("a good target");
        apply(&mut image, &records);
    }
    let one = partition(&image);
    assert_eq!((&*one.replicas, &*one.isr, one.is_reassigning()), (&[3, 2][..], &[2, 3][..], false));
    for (target, error) in [
        (&[][..], ControllerError::AssignmentEmpty),
        (&[9], ControllerError::AssignmentUnknownBroker(9)),
        (&[2, 2], ControllerError::AssignmentRepeatsBroker(2)),
    ] {
        assert_eq!(move_to(&image, &rules, TOPIC, Some(target)), Err(ClusterError::Assignment(error)));
    }
}

#[test]
fn a_request_may_fix_the_number_of_replicas() {
    let (mut image, rules) = replicated();
    let fixed =
        |target: &[i32]| Reassignment { allow_replication_factor_change: false, ..reassignment(TOPIC, Some(target)) };
    let changed = |before, after| Err(ClusterError::ReplicationFactorChanged { before, after });
    assert_eq!(reassign(&image, &rules, &fixed(&[4])), changed(3, 1));
    assert!(reassign(&image, &rules, &fixed(&[4, 2, 1])).is_ok());
    // From now on the target of the reassignment counts.
    let records = move_to(&image, &rules, TOPIC, Some(&[4, 2])).expect("a good target");
    apply(&mut image, &records);
    assert_eq!(reassign(&image, &rules, &fixed(&[4, 2, 1])), changed(2, 3));
    assert!(reassign(&image, &rules, &fixed(&[4, 3])).is_ok());
}

#[test]
fn the_only_broker_stays_registered() {
    let (mut image, rules) = replicated();
    let remove = |image: &MetadataImage, id| decide(image, &Request::UnregisterBroker { id }, &rules);
    assert_eq!(remove(&image, 9), Err(ClusterError::NotRegistered(9)));
    for id in [1, 2, 3] {
        let records = remove(&image, id).expect("others are left");
        apply(&mut image, &records);
    }
    assert_eq!(remove(&image, 4), Err(ClusterError::LastBroker(4)));
}

#[test]
fn a_view_has_no_partitions_to_move() {
    let (mut image, rules) = replicated();
    let id = Uuid::from_u128(4);
    let configs = TopicConfigs::from([("view.of".to_owned(), "t".to_owned())]);
    let view = NewTopic { id, configs, ..NewTopic::new("v") };
    let records = decide(&image, &Request::CreateTopic(view), &rules).expect("a good view");
    apply(&mut image, &records);
    let error = ClusterError::View { name: "v".into(), source_topic: "t".into() };
    assert_eq!(move_to(&image, &rules, id, Some(&[4])), Err(error.clone()));
    assert_eq!(elect(&image, &rules, Election::Preferred, id, 0), Err(error));
    // A change of a broker changes the source alone.
    let epoch = image.broker(1).expect("registered").epoch;
    let records = super::fence(&image, &rules, 1, epoch).expect("registered");
    let changed =
        |record: &&MetadataRecord| matches!(record, MetadataRecord::PartitionChanged { id, .. } if *id == TOPIC);
    assert_eq!((records.len(), records.iter().filter(changed).count()), (2, 1));
}

#[test]
fn an_unregistered_broker_is_gone() {
    let (mut image, rules) = replicated();
    fence_by(&mut image, &rules, 1);
    let records = unregister(&image, &rules, 1).expect("it is registered");
    apply(&mut image, &records);
    assert!(image.broker(1).is_none() && state(&image).0 == 2);
    assert_eq!(unregister(&image, &rules, 1), Err(ClusterError::NotRegistered(1)));
}
