//! The cluster: a reliable controller, brokers that follow its metadata with a delay, and producers.

use std::collections::BTreeMap;

use millstream_metadata::controller::{
    self, AlterPartition, Assignment, ClusterError, Heartbeat, Kept, NewTopic, Reassignment, Registration, Request,
    TopicDraft, TopicRules,
};
use millstream_metadata::{
    BrokerConfigs, BrokerRegistration, FeatureLevel, MetadataImage, MetadataRecord, PartitionImage, TopicImage,
};
use millstream_partition::replica::{EpochLookup, LogEnds};
use uuid::Uuid;

use crate::Bug;
use crate::broker::{Broker, MIN_ISR, Role};
use crate::network::{Message, Network};

pub(crate) const TICKS: u64 = 2500;
const BROKERS: [i32; 4] = [1, 2, 3, 4];
const PRODUCERS: u64 = 2;
const TOPIC: Uuid = Uuid::from_u128(3);
const LAG_MAX: u64 = 60;
const RETRY: u64 = 25;

/// How much has happened: a run with too little proves nothing.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    acknowledged: usize,
    retries: usize,
    elections: usize,
    truncations: usize,
    crashes: usize,
    lost_unsynced: usize,
    in_sync_changes: usize,
    fetches_ahead: usize,
}

impl Counts {
    pub(crate) fn add(&mut self, other: Counts) {
        self.acknowledged += other.acknowledged;
        self.retries += other.retries;
        self.elections += other.elections;
        self.truncations += other.truncations;
        self.crashes += other.crashes;
        self.lost_unsynced += other.lost_unsynced;
        self.in_sync_changes += other.in_sync_changes;
        self.fetches_ahead += other.fetches_ahead;
    }

    /// Fails if less has happened than a run needs on average.
    pub(crate) fn check(self, runs: usize) {
        for (what, count, least) in [
            ("acknowledged", self.acknowledged, 20),
            ("retries", self.retries, 2),
            ("elections", self.elections, 3),
            ("truncations", self.truncations, 1),
            ("crashes", self.crashes, 5),
            ("lost_unsynced", self.lost_unsynced, 1),
            ("in_sync_changes", self.in_sync_changes, 5),
            ("fetches_ahead", self.fetches_ahead, 5),
        ] {
            assert!(count >= least * runs, "too little has happened, {what}: {self:?}");
        }
    }
}

pub(crate) struct Cluster {
    random: fastrand::Rng,
    bug: Bug,
    now: u64,
    image: MetadataImage,
    records: Vec<MetadataRecord>,
    brokers: BTreeMap<i32, Broker>,
    network: Network,
    leaders: BTreeMap<i32, i32>,
    producers: Vec<Producer>,
    /// The values that were acknowledged, each with its offset.
    acknowledged: Vec<(i64, u64)>,
    pub(crate) counts: Counts,
}

/// A producer: one value at a time, sent again until it is acknowledged.
#[derive(Debug)]
struct Producer {
    value: u64,
    /// The broker and the offset that wait for the acknowledgement, with the leader epoch.
    appended: Option<(i32, i32, i64)>,
    retry_at: u64,
}

struct Rules;

impl TopicRules for Rules {
    type Error = ClusterError;

    fn default_partitions(&self) -> i32 {
        1
    }

    fn default_replication_factor(&self) -> i32 {
        3
    }

    fn inherited(&self, _: &MetadataImage, config: &str) -> Option<String> {
        (config == "min.insync.replicas").then(|| MIN_ISR.to_string())
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

impl Cluster {
    pub(crate) fn new(seed: u64, bug: Bug) -> Self {
        let mut cluster = Self {
            random: fastrand::Rng::with_seed(seed),
            bug,
            now: 0,
            image: MetadataImage::new(1),
            records: Vec::new(),
            brokers: BROKERS.iter().map(|&id| (id, Broker::new(id))).collect(),
            network: Network::default(),
            leaders: BTreeMap::new(),
            producers: (0..PRODUCERS).map(|value| Producer { value, appended: None, retry_at: 0 }).collect(),
            acknowledged: Vec::new(),
            counts: Counts::default(),
        };
        cluster.commit(vec![
            MetadataRecord::ClusterCreated { cluster_id: "c".into() },
            MetadataRecord::FeatureLevelSet { level: FeatureLevel::CLUSTER.number() },
        ]);
        for id in BROKERS {
            cluster.start(id);
            cluster.beat(id);
        }
        let assignments = vec![Assignment { partition: 0, replicas: vec![1, 2, 3] }];
        let topic = NewTopic { id: TOPIC, assignments, ..NewTopic::new("t") };
        let records = controller::decide(&cluster.image, &Request::CreateTopic(topic), &Rules);
        cluster.commit(records.expect("a good topic"));
        cluster
    }

    fn partition(&self) -> Option<&PartitionImage> {
        self.image.partition(TOPIC, 0)
    }

    fn broker(&mut self, id: i32) -> &mut Broker {
        self.brokers.get_mut(&id).expect("a known broker")
    }

    fn commit(&mut self, records: Vec<MetadataRecord>) {
        for record in records {
            let before = self.partition().map(|one| (one.leader, one.isr.clone()));
            self.image.apply(&record).expect("the controller's records fit");
            self.records.push(record);
            if let (Some((leader, isr)), Some(after)) = (before, self.partition()) {
                let (elected, changed) = (leader != after.leader && after.leader >= 0, isr != after.isr);
                self.counts.elections += usize::from(elected);
                self.counts.in_sync_changes += usize::from(changed);
            }
        }
    }

    /// Lets time pass: messages arrive, brokers and producers work, and sometimes something fails.
    pub(crate) fn tick(&mut self) -> Result<(), String> {
        self.fail();
        self.work()?;
        self.check()
    }

    fn work(&mut self) -> Result<(), String> {
        self.now += 1;
        while let Some((from, to, message)) = self.network.receive(self.now) {
            self.deliver(from, to, message);
        }
        for id in BROKERS {
            if self.brokers[&id].running {
                self.follow_metadata(id)?;
                self.run_broker(id);
            }
        }
        for index in 0..self.producers.len() {
            self.produce(index);
        }
        Ok(())
    }

    fn fail(&mut self) {
        let id = *self.random.choice(&BROKERS).expect("there are brokers");
        let running = self.brokers[&id].running;
        match self.random.u32(0..1000) {
            0..5 if running => self.crash(id),
            5..6 => BROKERS.iter().for_each(|id| self.crash(*id)),
            6..36 if !running => self.start(id),
            36..40 => self.fence(id),
            40..46 => self.network.change_links(&mut self.random, &BROKERS),
            46..49 => self.reassign(),
            _ => {}
        }
        // A dead broker is noticed after a while, a living one says that it lives.
        let silent = *self.random.choice(&BROKERS).expect("there are brokers");
        match self.brokers[&silent].running {
            true if self.random.u32(0..5) == 0 => self.beat(silent),
            false if self.random.u32(0..10) == 0 => self.fence(silent),
            _ => {}
        }
    }

    /// Loses a part of what is not synced.
    fn crash(&mut self, id: i32) {
        let random = self.random.f64();
        let broker = self.broker(id);
        let unsynced = broker.log.records.len() - broker.log.synced;
        let end = broker.log.synced + (unsynced as f64 * random) as usize;
        let lost = end < broker.log.records.len();
        broker.log.truncate(end);
        broker.log.synced = end;
        broker.high_watermark = broker.high_watermark.min(end as i64);
        (broker.running, broker.role) = (false, Role::None);
        broker.ranges.clear();
        self.network.forget(id);
        self.counts.crashes += 1;
        self.counts.lost_unsynced += usize::from(lost);
    }

    fn start(&mut self, id: i32) {
        self.fence(id);
        let broker = BrokerRegistration {
            id,
            incarnation: Uuid::from_u128(self.records.len() as u128 + 1),
            endpoints: Vec::new(),
            rack: None,
            level_min: 0,
            level_max: FeatureLevel::CLUSTER.number(),
        };
        // A broker confirms only what it has synced, so that no crash loses what it has confirmed.
        let registration = Registration { cluster_id: "c".into(), broker, kept: Kept::All };
        let (epoch, records) = controller::register(&self.image, &Rules, &registration).expect("a good registration");
        self.commit(records);
        let (image, applied) = (self.image.clone(), self.records.len());
        let broker = self.broker(id);
        (broker.running, broker.epoch, broker.image, broker.applied) = (true, epoch, image, applied);
    }

    fn fence(&mut self, id: i32) {
        let Some(broker) = self.image.broker(id).filter(|broker| broker.epoch > 0) else { return };
        let records = controller::fence(&self.image, &Rules, id, broker.epoch).expect("the newest epoch");
        self.commit(records);
    }

    fn beat(&mut self, id: i32) {
        let epoch = self.brokers[&id].epoch;
        let beat = Heartbeat { id, epoch, caught_up: true, want_fence: false, want_shutdown: false };
        let (_, records) = controller::heartbeat(&self.image, &Rules, beat).expect("the newest epoch");
        self.commit(records);
    }

    fn reassign(&mut self) {
        let mut target = BROKERS.to_vec();
        self.random.shuffle(&mut target);
        let target = Some(&target[..3]).filter(|_| self.random.bool());
        let reassignment = Reassignment {
            topic: TOPIC,
            partition: 0,
            target: target.map(<[i32]>::to_vec),
            allow_replication_factor_change: true,
        };
        if let Ok(records) = controller::reassign(&self.image, &Rules, &reassignment) {
            self.commit(records);
        }
    }

    /// Applies metadata that has reached a broker.
    fn follow_metadata(&mut self, id: i32) -> Result<(), String> {
        let behind = self.records.len() - self.brokers[&id].applied;
        if behind > 0 && (self.network.healed || self.random.u32(0..10) == 0) {
            let count = if self.network.healed { behind } else { self.random.usize(1..=behind) };
            let applied = self.brokers[&id].applied;
            let records = self.records[applied..applied + count].to_vec();
            let broker = self.broker(id);
            records.iter().for_each(|record| broker.image.apply(record).expect("the controller's records fit"));
            broker.applied += count;
        }
        let (bug, now) = (self.bug, self.now);
        let broker = self.broker(id);
        let Some(partition) = broker.image.partition(TOPIC, 0).cloned() else { return Ok(()) };
        let Some(epoch) = broker.take_role(&partition, bug, now) else { return Ok(()) };
        match self.leaders.insert(epoch, id) {
            Some(other) if other != id => Err(format!("brokers {other} and {id} lead in epoch {epoch}")),
            _ => Ok(()),
        }
    }

    fn run_broker(&mut self, id: i32) {
        let now = self.now;
        let fsync = self.network.healed || self.random.u32(0..8) == 0;
        let append = self.network.healed || self.random.u32(0..4) == 0;
        let (bug, mut random) = (self.bug, self.random.fork());
        let broker = self.brokers.get_mut(&id).expect("a known broker");
        if fsync {
            broker.log.synced = broker.log.records.len();
            broker.log_changed();
        }
        if append {
            self.counts.truncations += usize::from(broker.append_range(now));
        }
        let (broker_epoch, mut ends, next) = (broker.epoch, broker.log.ends(), broker.next_fetch());
        match &mut broker.role {
            Role::Follower { leader, fetch_at, .. } if *fetch_at <= now => {
                *fetch_at = now + RETRY;
                if bug == Bug::CountUnsynced {
                    ends = LogEnds { synced: ends.end, ..ends };
                }
                let (position, is_ahead) = next.expect("a follower");
                self.counts.fetches_ahead += usize::from(is_ahead);
                let message = Message::Fetch { position, ends, broker_epoch };
                self.network.send(&mut random, now, id, *leader, message);
            }
            Role::Leader(leader) => {
                if let Some(proposal) = leader.state.expire(now, LAG_MAX) {
                    leader.proposal = Some((proposal, now));
                }
                self.ask_controller(id);
            }
            _ => {}
        }
    }

    /// Asks for the in-sync set of a leader. The request or its response may get lost; then it is sent again.
    fn ask_controller(&mut self, id: i32) {
        let now = self.now;
        let (lost, response_lost) = match self.network.healed {
            true => (false, false),
            false => (self.random.u32(0..5) == 0, self.random.u32(0..5) == 0),
        };
        let broker = self.brokers.get_mut(&id).expect("a known broker");
        let Role::Leader(leader) = &mut broker.role else { return };
        let Some((proposal, at)) = leader.proposal.as_mut().filter(|(_, at)| *at <= now) else { return };
        *at = now + RETRY;
        if lost {
            return;
        }
        let request = AlterPartition {
            broker: id,
            broker_epoch: broker.epoch,
            topic: TOPIC,
            partition: 0,
            leader_epoch: proposal.leader_epoch,
            partition_epoch: proposal.partition_epoch,
            isr: proposal.isr.clone(),
            recovered: true,
        };
        match controller::alter_partition(&self.image, &Rules, &request) {
            Ok(records) => self.commit(records),
            Err(ClusterError::IneligibleReplica(_)) if !response_lost => {
                leader.state.rejected(proposal.partition_epoch);
                leader.proposal = None;
            }
            Err(_) => {}
        }
    }

    fn deliver(&mut self, from: i32, to: i32, message: Message) {
        let (bug, now) = (self.bug, self.now);
        let broker = self.brokers.get_mut(&to).expect("a known broker");
        if !broker.running {
            return;
        }
        match message {
            Message::Fetch { position, ends, broker_epoch } => {
                let (response, records) = broker.serve(from, position, ends, broker_epoch, (bug, now));
                self.network.send(&mut self.random, now, to, from, Message::Response { response, records });
            }
            Message::Response { response, records } => broker.responded(response, records, now),
        }
    }

    /// Lets a producer send its value, or take the acknowledgement.
    fn produce(&mut self, index: usize) {
        let (bug, now) = (self.bug, self.now);
        if let Some((id, epoch, offset)) = self.producers[index].appended {
            let broker = &self.brokers[&id];
            let Role::Leader(leader) = &broker.role else {
                self.producers[index].appended = None;
                return;
            };
            let durable = if bug == Bug::AcknowledgeAlone { broker.log.synced as i64 } else { leader.state.durable() };
            if leader.epoch == epoch && durable > offset {
                self.acknowledged.push((offset, self.producers[index].value));
                self.counts.acknowledged += 1;
                let retry_at = now + self.random.u64(1..30);
                let value = self.producers[index].value + PRODUCERS;
                self.producers[index] = Producer { value, appended: None, retry_at };
                return;
            }
        }
        if self.producers[index].retry_at > now {
            return;
        }
        // The client's metadata may be old.
        let id = match self.partition().map_or(-1, |one| one.leader) {
            leader if self.network.healed || self.random.u32(0..4) > 0 => leader,
            _ => *self.random.choice(&BROKERS).expect("there are brokers"),
        };
        let value = self.producers[index].value;
        self.producers[index].retry_at = now + 2 * RETRY;
        let Some(broker) = self.brokers.get_mut(&id).filter(|broker| broker.running) else { return };
        let Role::Leader(leader) = &broker.role else { return };
        let known = if bug == Bug::DropProducerState { leader.start } else { 0 };
        let epoch = leader.epoch;
        let offset = match broker.log.records.iter().skip(known).position(|(_, stored)| *stored == value) {
            Some(position) => (known + position) as i64,
            None if leader.state.is_under_min_isr() => return,
            None => {
                broker.log.records.push((epoch, value));
                broker.log_changed();
                broker.log.end() - 1
            }
        };
        self.counts.retries += usize::from(self.producers[index].appended.is_some());
        self.producers[index].appended = Some((id, epoch, offset));
    }

    /// Returns what is wrong with the present state.
    fn check(&self) -> Result<(), String> {
        let Some(one) = self.partition() else { return Ok(()) };
        for id in one.isr.iter().chain(&*one.elr) {
            let records = &self.brokers[id].log.records;
            for (offset, value) in &self.acknowledged {
                if records.get(*offset as usize).is_none_or(|(_, stored)| stored != value) {
                    return Err(format!("broker {id} may lead and lacks value {value} at offset {offset}: {one:?}"));
                }
            }
        }
        Ok(())
    }

    /// Heals everything, and checks that the cluster works again and all logs are equal.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        self.network.healed = true;
        for id in BROKERS {
            if !self.brokers[&id].running {
                self.start(id);
            }
            self.beat(id);
        }
        let acknowledged = self.acknowledged.len();
        for _ in 0..600 {
            BROKERS.iter().for_each(|id| self.beat(*id));
            self.work()?;
            self.check()?;
        }
        if self.acknowledged.len() < acknowledged + 5 {
            return Err(format!("no records are acknowledged any more: {:?}", self.partition()));
        }
        // The producers stop, and the followers copy the rest.
        self.producers.clear();
        for _ in 0..200 {
            self.work()?;
        }
        let one = self.partition().expect("the partition exists").clone();
        let leader = &self.brokers[&one.leader].log.records;
        for id in &*one.replicas {
            if self.brokers[id].log.records != *leader {
                return Err(format!("brokers {} and {id} have different logs: {one:?}", one.leader));
            }
        }
        let mut values: Vec<u64> = leader.iter().map(|(_, value)| *value).collect();
        values.sort_unstable();
        match values.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("value {} is stored twice", pair[0])),
            None => Ok(()),
        }
    }
}
