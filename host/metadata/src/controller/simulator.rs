//! Drives the controller's decisions by random events, and checks after each that no acknowledged record can be lost.
//!
//! The brokers are models: each has a log, and its own image that lags behind the controller's. Every random choice
//! comes from one seed. `MILLSTREAM_SIM_SEED` runs one seed, `MILLSTREAM_SIM_SEEDS` another number of them.

use std::collections::BTreeMap;
use std::env;

use super::cluster_tests::{ClusterRules, TOPIC, beat, move_to, registration};
use super::*;
use crate::{FeatureLevel, NO_LEADER, PartitionImage, snapshot};

const BROKERS: [i32; 4] = [1, 2, 3, 4];
const STEPS: usize = 1500;
const MIN_ISR: usize = 2;

/// A fault that is built into a run, to prove that the checks see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// A broker that has lost records says that it has kept them.
    HideLoss,
    /// A follower joins the in-sync set before it has reached the start of the leader's epoch.
    JoinEarly,
    /// A leader does not say which start of a follower it has seen.
    ForgetBrokerEpochs,
    /// A leader acknowledges with too few replicas in sync.
    IgnoreMinIsr,
}

/// A broker: its process and its log of values, each with the leader epoch of its append.
struct Broker {
    image: MetadataImage,
    /// The number of metadata records that its image has.
    applied: usize,
    running: bool,
    epoch: i64,
    log: Vec<(i32, u64)>,
    leading: Option<Leading>,
}

/// What a leader knows in its epoch.
struct Leading {
    leader_epoch: i32,
    start: usize,
    committed: usize,
    /// The log end of each follower, and the epoch of its registration.
    followers: BTreeMap<i32, (usize, i64)>,
    /// A follower that joins as soon as the partition epoch is past this one.
    joining: Option<(i32, i32)>,
}

/// How much has happened: a run with too little proves nothing.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    acknowledged: usize,
    elections: usize,
    truncations: usize,
    restarts: usize,
    leaderless: usize,
    reassignments: usize,
}

struct Simulator {
    random: fastrand::Rng,
    bug: Bug,
    rules: ClusterRules,
    image: MetadataImage,
    records: Vec<MetadataRecord>,
    brokers: BTreeMap<i32, Broker>,
    acknowledged: Vec<u64>,
    /// An election outside of the eligible replicas has happened: records may be lost from then on.
    unclean: bool,
    next_value: u64,
    counts: Counts,
}

impl Simulator {
    fn new(seed: u64, bug: Bug) -> Self {
        let mut simulator = Self {
            random: fastrand::Rng::with_seed(seed),
            bug,
            rules: ClusterRules::new("2", "false"),
            image: MetadataImage::new(1),
            records: Vec::new(),
            brokers: BTreeMap::new(),
            acknowledged: Vec::new(),
            unclean: false,
            next_value: 0,
            counts: Counts::default(),
        };
        simulator.commit(vec![
            MetadataRecord::ClusterCreated { cluster_id: "c".into() },
            MetadataRecord::FeatureLevelSet { level: FeatureLevel::CLUSTER.number() },
        ]);
        for id in BROKERS {
            let image = MetadataImage::new(1);
            let broker = Broker { image, applied: 0, running: false, epoch: -1, log: Vec::new(), leading: None };
            simulator.brokers.insert(id, broker);
            simulator.start(id, true);
            simulator.beat(id, false);
        }
        let assignments = vec![Assignment { partition: 0, replicas: vec![1, 2, 3] }];
        let topic = NewTopic { id: TOPIC, assignments, ..NewTopic::new("t") };
        let records = decide(&simulator.image, &Request::CreateTopic(topic), &simulator.rules);
        simulator.commit(records.expect("a good topic"));
        simulator
    }

    /// Applies a decision, by way of the form on disk.
    fn commit(&mut self, records: Vec<MetadataRecord>) {
        for record in records {
            let record = MetadataRecord::decode(&record.encode(FeatureLevel::CLUSTER)).expect("it was just encoded");
            let before = self.partition().cloned();
            self.image.apply(&record).expect("the controller's records fit");
            self.records.push(record);
            if let (Some(before), Some(after)) = (before, self.partition().cloned()) {
                let moved = before.leader != after.leader;
                assert!(!moved || before.leader_epoch < after.leader_epoch, "a leader without an epoch of its own");
                assert!(before == after || before.partition_epoch < after.partition_epoch);
                self.unclean |= after.recovering;
                self.counts.elections += usize::from(moved && after.leader != NO_LEADER);
                self.counts.leaderless += usize::from(moved && after.leader == NO_LEADER);
            }
        }
    }

    fn partition(&self) -> Option<&PartitionImage> {
        self.image.partition(TOPIC, 0)
    }

    fn broker(&mut self, id: i32) -> &mut Broker {
        self.brokers.get_mut(&id).expect("a known broker")
    }

    fn step(&mut self) {
        let id = *self.random.choice(&BROKERS).expect("there are brokers");
        let running = self.brokers[&id].running;
        match self.random.u32(0..100) {
            0..25 => self.apply(id),
            25..38 if running => self.append(id),
            38..66 if running => self.fetch(id),
            66..82 if running => self.alter(id),
            82..90 if running => {
                let stop = self.random.u32(0..30) == 0;
                self.beat(id, stop);
            }
            90 if running => self.stop(id),
            91 => self.fence(id),
            92..97 if !running => {
                let kept = self.random.u32(0..8) > 0;
                self.start(id, kept);
            }
            97 if self.random.bool() => self.reassign(),
            98 => {
                if let Ok(record) = elect(&self.image, &self.rules, Election::Preferred, TOPIC, 0) {
                    self.commit(vec![record]);
                }
            }
            _ => {}
        }
    }

    /// Lets a broker follow the metadata by some records.
    fn apply(&mut self, id: i32) {
        let count = self.random.usize(1..6);
        let records: Vec<MetadataRecord> =
            self.records.iter().skip(self.brokers[&id].applied).take(count).cloned().collect();
        let broker = self.broker(id);
        for record in records {
            broker.image.apply(&record).expect("the controller's records fit");
            broker.applied += 1;
        }
        let Some(partition) = broker.image.partition(TOPIC, 0) else { return };
        let current = broker.leading.as_ref().map(|leading| leading.leader_epoch);
        if partition.leader != id || !broker.running {
            broker.leading = None;
        } else if current != Some(partition.leader_epoch) {
            let start = broker.log.len();
            let leader_epoch = partition.leader_epoch;
            let followers = BTreeMap::new();
            broker.leading = Some(Leading { leader_epoch, start, committed: 0, followers, joining: None });
        }
    }

    fn append(&mut self, id: i32) {
        let value = self.next_value;
        let broker = self.broker(id);
        if let Some(leading) = &broker.leading {
            broker.log.push((leading.leader_epoch, value));
            self.next_value += 1;
            self.advance(id);
        }
    }

    /// Lets a follower copy from the leader that it knows, if the two agree on the epoch.
    fn fetch(&mut self, id: i32) {
        let follower = &self.brokers[&id];
        let Some(known) = follower.image.partition(TOPIC, 0) else { return };
        let (leader_id, leader_epoch, broker_epoch) = (known.leader, known.leader_epoch, follower.epoch);
        if leader_id == id || !known.replicas.contains(&id) {
            return;
        }
        let Some(leader) = self.brokers.get(&leader_id).filter(|leader| leader.running) else { return };
        if leader.leading.as_ref().is_none_or(|leading| leading.leader_epoch != leader_epoch) {
            return;
        }
        let same = follower.log.iter().zip(&leader.log).take_while(|(ours, theirs)| ours == theirs).count();
        let more = self.random.usize(0..6);
        let end = leader.log.len().min(same + more);
        let copied = leader.log[same..end].to_vec();
        let follower = self.broker(id);
        let truncated = follower.log.len() > same;
        follower.log.truncate(same);
        follower.log.extend(copied);
        let position = (follower.log.len(), broker_epoch);
        self.counts.truncations += usize::from(truncated);
        let leading = self.broker(leader_id).leading.as_mut().expect("it leads");
        leading.followers.insert(id, position);
        self.advance(leader_id);
    }

    /// Commits and acknowledges what every replica in sync has. A follower that may join counts already (KIP-497).
    fn advance(&mut self, id: i32) {
        let bug = self.bug;
        let broker = self.brokers.get_mut(&id).expect("a known broker");
        let Some(partition) = broker.image.partition(TOPIC, 0) else { return };
        let Some(leading) = &mut broker.leading else { return };
        if leading.joining.is_some_and(|(_, epoch)| partition.partition_epoch > epoch) {
            leading.joining = None;
        }
        let joining = leading.joining.map(|(id, _)| id);
        let members = partition.isr.iter().copied().chain(joining).filter(|&member| member != id);
        let ends = members.map(|member| leading.followers.get(&member).map_or(0, |(end, _)| *end));
        let end = ends.min().unwrap_or(usize::MAX).min(broker.log.len());
        if (partition.isr.len() < MIN_ISR && bug != Bug::IgnoreMinIsr) || end <= leading.start.max(leading.committed) {
            return;
        }
        leading.committed = end;
        // What a leader before has committed is acknowledged already.
        for (_, value) in broker.log[..end].iter().skip(self.acknowledged.len()) {
            self.acknowledged.push(*value);
            self.counts.acknowledged += 1;
        }
    }

    /// Lets a leader ask for a smaller or larger set.
    fn alter(&mut self, id: i32) {
        let (bug, shrink) = (self.bug, self.random.u32(0..5) == 0);
        let other = *self.random.choice(&BROKERS).expect("there are brokers");
        let broker = self.brokers.get_mut(&id).expect("a known broker");
        let Some(partition) = broker.image.partition(TOPIC, 0) else { return };
        let Some(leading) = broker.leading.as_mut().filter(|leading| leading.joining.is_none()) else { return };
        let mut isr: Vec<i32> = partition.isr.to_vec();
        let position = leading.followers.get(&other).copied();
        if shrink {
            isr.retain(|member| *member == id || *member != other);
        } else if let Some((end, _)) = position.filter(|_| !isr.contains(&other)) {
            if end < leading.start.max(leading.committed) && bug != Bug::JoinEarly {
                return;
            }
            isr.push(other);
            leading.joining = Some((other, partition.partition_epoch));
        }
        let members = isr.iter().map(|member| match leading.followers.get(member) {
            Some((_, epoch)) if bug != Bug::ForgetBrokerEpochs => (*member, *epoch),
            _ => (*member, -1),
        });
        let request = AlterPartition {
            broker: id,
            broker_epoch: broker.epoch,
            topic: TOPIC,
            partition: 0,
            leader_epoch: leading.leader_epoch,
            partition_epoch: partition.partition_epoch,
            isr: members.collect(),
            recovered: true,
        };
        match alter_partition(&self.image, &self.rules, &request) {
            Ok(records) => self.commit(records),
            // The leader waits for the newer state, and counts the follower until then.
            Err(ClusterError::IneligibleReplica(_)) => {
                self.broker(id).leading.as_mut().expect("it leads").joining = None
            }
            Err(_) => {}
        }
    }

    fn beat(&mut self, id: i32, want_shutdown: bool) {
        let epoch = self.brokers[&id].epoch;
        let request = Heartbeat { want_shutdown, ..beat(id, epoch) };
        match heartbeat(&self.image, &self.rules, request) {
            Ok((state, records)) => {
                self.commit(records);
                if want_shutdown && state.may_stop {
                    self.stop(id);
                }
            }
            Err(error) => panic!("the newest registration of broker {id} is rejected: {error}"),
        }
    }

    fn stop(&mut self, id: i32) {
        let broker = self.broker(id);
        (broker.running, broker.leading) = (false, None);
    }

    /// Fences a broker, as if its session had ended: it may be alive.
    fn fence(&mut self, id: i32) {
        let epoch = self.image.broker(id).expect("it is registered").epoch;
        let records = fence(&self.image, &self.rules, id, epoch).expect("the newest epoch");
        self.commit(records);
    }

    /// Starts a broker. Without its logs a part of them is gone.
    fn start(&mut self, id: i32, kept_logs: bool) {
        if self.image.broker(id).is_some_and(|broker| broker.is_active() && broker.epoch != 0) {
            self.fence(id);
        }
        let incarnation = self.records.len() as u128 + 1;
        let kept_logs = kept_logs || self.bug == Bug::HideLoss;
        if !kept_logs || (self.bug == Bug::HideLoss && self.random.bool()) {
            let end = self.random.usize(0..=self.brokers[&id].log.len());
            self.broker(id).log.truncate(end);
        }
        let kept = if kept_logs { Kept::All } else { Kept::Most };
        let request = Registration { kept, ..registration(id, incarnation, None) };
        let (epoch, records) = register(&self.image, &self.rules, &request).expect("a good registration");
        self.commit(records);
        // A broker acts only on metadata that has its own registration.
        let (image, applied) = (self.image.clone(), self.records.len());
        let broker = self.broker(id);
        (broker.running, broker.epoch, broker.image, broker.applied) = (true, epoch, image, applied);
        self.counts.restarts += 1;
    }

    fn reassign(&mut self) {
        let mut target = BROKERS.to_vec();
        self.random.shuffle(&mut target);
        target.truncate(3);
        let target = if self.random.u32(0..3) == 0 { None } else { Some(&target[..]) };
        if let Ok(records) = move_to(&self.image, &self.rules, TOPIC, target) {
            self.counts.reassignments += usize::from(!records.is_empty());
            self.commit(records);
        }
    }

    /// Returns what is wrong with the present state.
    fn check(&self) -> Result<(), String> {
        let Some(one) = self.partition() else { return Ok(()) };
        let wrong = |what: &str| Err(format!("{what}: {one:?}"));
        if one.leader != NO_LEADER && !(one.isr.contains(&one.leader) && self.image.is_active(one.leader)) {
            return wrong("the leader is not in sync or not active");
        }
        if one.isr.iter().chain(&*one.elr).chain(&*one.adding).any(|id| !one.replicas.contains(id)) {
            return wrong("a broker that is no replica is listed");
        }
        if one.isr.iter().any(|&id| !self.image.is_active(id) || one.elr.contains(&id)) {
            return wrong("a member of the in-sync set is not active, or eligible as well");
        }
        if one.isr.len() >= MIN_ISR && !one.elr.is_empty() {
            return wrong("replicas are eligible beside a full in-sync set");
        }
        if self.unclean {
            return Ok(());
        }
        for id in one.isr.iter().chain(&*one.elr) {
            let log = self.brokers[id].log.iter().map(|(_, value)| value);
            if !self.acknowledged.iter().eq(log.take(self.acknowledged.len())) {
                return wrong(&format!("broker {id} may lead and lacks an acknowledged record"));
            }
        }
        Ok(())
    }
}

/// Runs one seed. Returns what has happened, or what went wrong.
fn run(seed: u64, bug: Bug) -> Result<Counts, String> {
    let mut simulator = Simulator::new(seed, bug);
    for step in 0..STEPS {
        simulator.step();
        simulator.check().map_err(|wrong| format!("seed {seed}, step {step}: {wrong}"))?;
    }
    let mut replayed = MetadataImage::new(1);
    simulator.records.iter().for_each(|record| replayed.apply(record).expect("it fitted before"));
    assert_eq!(replayed, simulator.image, "seed {seed}: a replay gives another image");
    let restored = snapshot::read(&snapshot::write(&replayed)).expect("it was just written");
    assert_eq!(restored, simulator.image, "seed {seed}: a snapshot gives another image");
    Ok(simulator.counts)
}

/// Returns the number in a variable of the environment.
fn variable(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

#[test]
fn no_acknowledged_record_is_lost() {
    if let Some(seed) = variable("MILLSTREAM_SIM_SEED") {
        println!("{:?}", run(seed, Bug::None).unwrap_or_else(|wrong| panic!("{wrong}")));
        return;
    }
    let seeds = variable("MILLSTREAM_SIM_SEEDS").unwrap_or(500);
    let mut sum = Counts::default();
    for seed in 0..seeds {
        let counts = run(seed, Bug::None).unwrap_or_else(|wrong| panic!("{wrong}"));
        sum.acknowledged += counts.acknowledged;
        sum.elections += counts.elections;
        sum.truncations += counts.truncations;
        sum.restarts += counts.restarts;
        sum.leaderless += counts.leaderless;
        sum.reassignments += counts.reassignments;
    }
    println!("{seeds} seeds: {sum:?}");
    let least = usize::try_from(seeds).expect("a number of seeds");
    for (what, count) in [
        ("acknowledged", sum.acknowledged / 5),
        ("elections", sum.elections / 3),
        ("truncations", sum.truncations),
        ("restarts", sum.restarts / 6),
        ("leaderless", sum.leaderless),
        ("reassignments", sum.reassignments),
    ] {
        assert!(count >= least, "too little has happened, {what}: {sum:?}");
    }
}

#[test]
fn each_fault_is_seen() {
    for bug in [Bug::HideLoss, Bug::JoinEarly, Bug::ForgetBrokerEpochs, Bug::IgnoreMinIsr] {
        let seen = (0..500).find_map(|seed| run(seed, bug).err().map(|wrong| (seed, wrong)));
        let (seed, wrong) = seen.unwrap_or_else(|| panic!("{bug:?} is not seen in 500 seeds"));
        assert!(wrong.contains("lacks an acknowledged record"), "{bug:?}, seed {seed}: {wrong}");
        println!("{bug:?}: {wrong}");
    }
}
