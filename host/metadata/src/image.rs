//! The cluster's state that its records add up to: a pure value, replaced as a whole with every change.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use super::broker::{BrokerImage, BrokerRegistration};
use super::feature::{FeatureLevel, TRANSACTION_VERSION, TRANSACTION_VERSION_NEWEST, UnknownLevel};
use super::partition::{NO_LEADER, PartitionImage};
use super::record::MetadataRecord;

/// The configs that are set on a topic itself, by name.
pub type TopicConfigs = BTreeMap<String, String>;

/// The configs that are set for a broker while it runs, by name.
pub type BrokerConfigs = BTreeMap<String, String>;

/// The configs that are set for brokers while they run. Those of `None` are the defaults of all brokers.
pub type AllBrokerConfigs = BTreeMap<Option<i32>, BrokerConfigs>;

/// Returns the value of a config that is set for a broker or for all brokers.
pub fn broker_config<'a>(all: &'a AllBrokerConfigs, broker: i32, name: &str) -> Option<&'a str> {
    let set = |broker| all.get(&broker)?.get(name);
    set(Some(broker)).or_else(|| set(None)).map(String::as_str)
}

/// The config of a broker that names the data folders which take no new replicas, or `*` for all.
pub const CORDONED_LOG_DIRS: &str = "cordoned.log.dirs";

/// The config that makes a topic a view of another one.
const VIEW_OF: &str = "view.of";

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicImage {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: Uuid,
    /// By index. A view has the partitions of its source, and nothing of them is stored for the view.
    pub partitions: Vec<PartitionImage>,
    /// The configs that it sets itself.
    pub configs: TopicConfigs,
    /// The digests of the plug-ins that read batches in private formats.
    pub decoders: BTreeSet<String>,
}

impl TopicImage {
    /// Returns the number of partitions.
    pub fn partition_count(&self) -> i32 {
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }

    /// Returns the topic that this one is a view of.
    pub fn view_of(&self) -> Option<&str> {
        source_of(&self.configs)
    }
}

/// Returns the topic that configs make a view of.
pub fn source_of(configs: &TopicConfigs) -> Option<&str> {
    configs.get(VIEW_OF).map(String::as_str).filter(|source| !source.is_empty())
}

/// The whole state. A clone copies a few pointers and shares the rest. The first change of a clone copies the pointers
/// to the topics, and a change of a topic copies that topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataImage {
    /// The id of the cluster; empty before the first record.
    pub cluster_id: String,
    /// Which records may be written.
    pub feature_level: FeatureLevel,
    /// The level of [`TRANSACTION_VERSION`] in a cluster; 0 where it is not finalized.
    transaction_version: u16,
    /// The leader epoch of new partitions.
    pub leader_epoch: i32,
    /// The first producer id of the next block.
    pub next_producer_id: i64,
    /// The epoch of the next registration of a broker.
    pub next_broker_epoch: i64,
    brokers: Arc<BTreeMap<i32, BrokerImage>>,
    broker_configs: Arc<AllBrokerConfigs>,
    topics: Arc<BTreeMap<Arc<str>, Arc<TopicImage>>>,
    names: Arc<HashMap<Uuid, Arc<str>>>,
}

/// A record that does not fit the state before it: this program did not write the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The name or the id is taken.
    #[error("topic {name} ({id}) is created twice")]
    CreatedTwice {
        /// The name of the topic.
        name: String,
        /// The id of the topic.
        id: Uuid,
    },
    /// No topic has this id.
    #[error("there is no topic with the id {0}")]
    NoTopic(Uuid),
    /// The topic has no such partition.
    #[error("the topic with the id {0} has no partition {1}")]
    NoPartition(Uuid, i32),
    /// No broker is registered with this id and epoch.
    #[error("there is no broker {id} with the epoch {epoch}")]
    NoBroker {
        /// The id of the broker.
        id: i32,
        /// The epoch of its registration.
        epoch: i64,
    },
    /// The assignments do not match the partitions.
    #[error("there are {partitions} partitions without brokers, and {replicas} assignments for them")]
    Assignments {
        /// The number of new partitions.
        partitions: usize,
        /// The number of assignments.
        replicas: usize,
    },
    /// A newer program has raised the feature level.
    #[error(transparent)]
    FeatureLevel(#[from] UnknownLevel),
    /// A newer program has set another feature.
    #[error("this program does not know level {level} of the feature {feature}: a newer version of it wrote the log")]
    Feature {
        /// The name of the feature.
        feature: String,
        /// The level.
        level: u16,
    },
}

impl MetadataImage {
    /// Returns the empty state of a cluster of one broker.
    pub fn new(node_id: i32) -> Self {
        Self {
            cluster_id: String::new(),
            feature_level: FeatureLevel::INITIAL,
            transaction_version: 0,
            leader_epoch: 0,
            next_producer_id: 0,
            next_broker_epoch: 1,
            brokers: Arc::new(BTreeMap::from([(node_id, BrokerImage::alone(node_id))])),
            broker_configs: Arc::default(),
            topics: Arc::default(),
            names: Arc::default(),
        }
    }

    /// Returns the first state of a cluster whose brokers all register. Each feature has its newest level.
    pub fn of_new_cluster(cluster_id: &str) -> Self {
        Self { cluster_id: cluster_id.to_owned(), ..Self::without_brokers() }.with_newest_features()
    }

    /// Returns the state as the first one of a cluster, with the newest level of each feature. Brokers of older
    /// programs cannot register.
    #[must_use]
    pub fn with_newest_features(self) -> Self {
        Self { feature_level: FeatureLevel::NEWEST, transaction_version: TRANSACTION_VERSION_NEWEST, ..self }
    }

    /// Returns the level of the feature [`TRANSACTION_VERSION`]. A broker that is alone has the newest one, since all
    /// of its transactions are its own.
    pub fn transaction_version(&self) -> u16 {
        match self.feature_level < FeatureLevel::CLUSTER {
            true => TRANSACTION_VERSION_NEWEST,
            false => self.transaction_version,
        }
    }

    fn change_feature(&mut self, feature: &str, level: u16) -> Result<(), ImageError> {
        if feature != TRANSACTION_VERSION || level > TRANSACTION_VERSION_NEWEST {
            return Err(ImageError::Feature { feature: feature.to_owned(), level });
        }
        self.transaction_version = level;
        Ok(())
    }

    /// Returns the empty state of a cluster whose brokers all register.
    pub(crate) fn without_brokers() -> Self {
        Self { brokers: Arc::default(), ..Self::new(0) }
    }

    /// Returns the registered brokers, in the order of their ids.
    pub fn brokers(&self) -> impl ExactSizeIterator<Item = &BrokerImage> {
        self.brokers.values()
    }

    /// Returns a broker by its id.
    pub fn broker(&self, id: i32) -> Option<&BrokerImage> {
        self.brokers.get(&id)
    }

    /// Returns whether a broker may lead partitions and join in-sync sets.
    pub fn is_active(&self, id: i32) -> bool {
        self.broker(id).is_some_and(BrokerImage::is_active)
    }

    /// Returns the configs that are set for a broker, or for `None` the defaults of all brokers.
    pub fn broker_configs(&self, broker: Option<i32>) -> Option<&BrokerConfigs> {
        self.broker_configs.get(&broker)
    }

    /// Returns all configs of brokers that are set.
    pub fn all_broker_configs(&self) -> &Arc<AllBrokerConfigs> {
        &self.broker_configs
    }

    /// Returns the value of a config that is set for a broker or for all brokers.
    pub fn broker_config(&self, broker: i32, name: &str) -> Option<&str> {
        broker_config(&self.broker_configs, broker, name)
    }

    /// Returns whether a broker takes no new replicas (KIP-1066).
    pub fn is_cordoned(&self, broker: i32) -> bool {
        let folders = self.broker_config(broker, CORDONED_LOG_DIRS).unwrap_or_default();
        folders.split(',').any(|folder| folder.trim() == "*")
    }

    /// Returns a partition of a topic that is no view.
    pub fn partition(&self, topic: Uuid, index: i32) -> Option<&PartitionImage> {
        self.topic_by_id(topic)?.partitions.get(usize::try_from(index).ok()?)
    }

    /// Returns a topic by its name.
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(name)
    }

    /// Returns a topic by its id.
    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<TopicImage>> {
        self.topics.get(self.names.get(&id)?)
    }

    /// Returns all topics, in the order of their names.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.topics.values()
    }

    /// Returns the views of a topic, and the views of those.
    pub fn views_of<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Arc<TopicImage>> {
        self.topics().filter(move |topic| self.sources(topic).any(|source| source == name))
    }

    /// Returns the source of a view, the source of that, and so on. Ends after as many steps as there are topics: the
    /// rules allow no circle, but a damaged log may have one.
    fn sources<'a>(&'a self, topic: &'a TopicImage) -> impl Iterator<Item = &'a str> {
        let next = |source: &&'a str| self.topic(source).and_then(|topic| topic.view_of());
        std::iter::successors(topic.view_of(), next).take(self.topics.len())
    }

    /// Returns the partitions of a topic. A view has those of its source.
    pub fn partitions_of<'a>(&'a self, topic: &'a TopicImage) -> &'a [PartitionImage] {
        let root = self.sources(topic).last().and_then(|source| self.topic(source));
        root.map_or(&topic.partitions, |source| &source.partitions)
    }

    /// Applies one record.
    ///
    /// # Errors
    /// The record does not fit, and the image stays as it is.
    pub fn apply(&mut self, record: &MetadataRecord) -> Result<(), ImageError> {
        match record {
            MetadataRecord::ClusterCreated { cluster_id } => self.cluster_id.clone_from(cluster_id),
            MetadataRecord::LeaderEpochRaised { epoch } => self.raise_leader_epoch(*epoch),
            MetadataRecord::ProducerIdsAllocated { next } => self.next_producer_id = *next,
            MetadataRecord::FeatureLevelSet { level } => self.feature_level = FeatureLevel::new(*level)?,
            MetadataRecord::FeatureChanged { feature, level } => self.change_feature(feature, *level)?,
            MetadataRecord::TopicCreated { name, id, partitions, configs, replicas } => {
                let partitions = self.new_partitions(size(*partitions), replicas)?;
                self.create(name, *id, partitions, configs)?;
            }
            MetadataRecord::TopicDeleted { id } => {
                self.remove(*id).ok_or(ImageError::NoTopic(*id))?;
            }
            MetadataRecord::PartitionsAdded { id, partitions, replicas } => {
                let before = self.topic_by_id(*id).ok_or(ImageError::NoTopic(*id))?.partitions.len();
                let added = self.new_partitions(size(*partitions).saturating_sub(before), replicas)?;
                self.change(*id, |topic| topic.partitions.extend(added))?;
            }
            MetadataRecord::DecoderNeeded { id, digest } => {
                self.change(*id, |topic| topic.decoders.extend([digest.clone()]))?;
            }
            MetadataRecord::BrokerRegistered { broker, epoch } => self.register(broker, *epoch),
            MetadataRecord::BrokerChanged { id, epoch, fenced, shutting_down } => {
                let broker = self.broker_mut(*id, *epoch)?;
                broker.fenced = fenced.unwrap_or(broker.fenced);
                broker.shutting_down = shutting_down.unwrap_or(broker.shutting_down);
            }
            MetadataRecord::BrokerUnregistered { id, epoch } => {
                self.broker_mut(*id, *epoch)?;
                Arc::make_mut(&mut self.brokers).remove(id);
            }
            MetadataRecord::PartitionChanged { id, partition, change } => {
                self.partition(*id, *partition).ok_or(ImageError::NoPartition(*id, *partition))?;
                self.change(*id, |topic| topic.partitions[size(*partition)].apply(change))?;
            }
            MetadataRecord::PartitionRestored { id, partition, state } => {
                self.partition(*id, *partition).ok_or(ImageError::NoPartition(*id, *partition))?;
                self.change(*id, |topic| topic.partitions[size(*partition)] = PartitionImage::clone(state))?;
            }
            MetadataRecord::BrokerConfigChanged { broker, name, value } => {
                self.change_broker_config(*broker, name, value.as_deref());
            }
            MetadataRecord::BrokerEpochsAllocated { next } => self.next_broker_epoch = *next,
            MetadataRecord::TopicConfigChanged { id, name, value } => {
                self.change(*id, |topic| match value {
                    Some(value) => drop(topic.configs.insert(name.clone(), value.clone())),
                    None => drop(topic.configs.remove(name)),
                })?;
            }
        }
        Ok(())
    }

    /// Returns partitions on these brokers. Without assignments they are on the one broker of the cluster.
    fn new_partitions(&self, count: usize, replicas: &[Vec<i32>]) -> Result<Vec<PartitionImage>, ImageError> {
        if replicas.is_empty() {
            let brokers: Arc<[i32]> = self.brokers.keys().copied().collect();
            return Ok(vec![PartitionImage::new(brokers, self.leader_epoch); count]);
        }
        if replicas.len() != count {
            return Err(ImageError::Assignments { partitions: count, replicas: replicas.len() });
        }
        // Most partitions have the brokers of the one before them.
        let mut last: Arc<[i32]> = Arc::from([]);
        let partitions = replicas.iter().map(|replicas| {
            if *last != **replicas {
                last = Arc::from(replicas.as_slice());
            }
            self.new_partition(&last)
        });
        Ok(partitions.collect())
    }

    /// Returns a new partition. Only active brokers lead it and are in sync. Without one the first replica is in sync,
    /// and leads as soon as it is active.
    fn new_partition(&self, replicas: &Arc<[i32]>) -> PartitionImage {
        if self.feature_level < FeatureLevel::CLUSTER || replicas.iter().all(|&id| self.is_active(id)) {
            return PartitionImage::new(Arc::clone(replicas), self.leader_epoch);
        }
        let active: Arc<[i32]> = replicas.iter().copied().filter(|&id| self.is_active(id)).collect();
        match active.first() {
            Some(&leader) => PartitionImage::led_by(leader, Arc::clone(replicas), active, self.leader_epoch),
            None => {
                let isr = replicas.iter().copied().take(1).collect();
                PartitionImage::led_by(NO_LEADER, Arc::clone(replicas), isr, self.leader_epoch)
            }
        }
    }

    /// Registers a broker. A new registration of the same process keeps its state.
    fn register(&mut self, registration: &BrokerRegistration, epoch: i64) {
        let (mut fenced, mut shutting_down) = (true, false);
        if let Some(same) = self.broker(registration.id).filter(|broker| broker.epoch == epoch) {
            (fenced, shutting_down) = (same.fenced, same.shutting_down);
        }
        let broker = BrokerImage { registration: registration.clone(), epoch, fenced, shutting_down };
        Arc::make_mut(&mut self.brokers).insert(registration.id, broker);
        self.next_broker_epoch = self.next_broker_epoch.max(epoch + 1);
    }

    fn change_broker_config(&mut self, broker: Option<i32>, name: &str, value: Option<&str>) {
        let all = Arc::make_mut(&mut self.broker_configs);
        let configs = all.entry(broker).or_default();
        match value {
            Some(value) => drop(configs.insert(name.to_owned(), value.to_owned())),
            None => drop(configs.remove(name)),
        }
        if configs.is_empty() {
            all.remove(&broker);
        }
    }

    fn broker_mut(&mut self, id: i32, epoch: i64) -> Result<&mut BrokerImage, ImageError> {
        let broker = Arc::make_mut(&mut self.brokers).get_mut(&id).filter(|broker| broker.epoch == epoch);
        broker.ok_or(ImageError::NoBroker { id, epoch })
    }

    fn create(
        &mut self,
        name: &str,
        id: Uuid,
        partitions: Vec<PartitionImage>,
        configs: &TopicConfigs,
    ) -> Result<(), ImageError> {
        if self.topics.contains_key(name) || self.names.contains_key(&id) {
            return Err(ImageError::CreatedTwice { name: name.to_owned(), id });
        }
        let topic =
            TopicImage { name: name.to_owned(), id, partitions, configs: configs.clone(), decoders: BTreeSet::new() };
        self.insert(Arc::new(topic));
        Ok(())
    }

    fn insert(&mut self, topic: Arc<TopicImage>) {
        let name: Arc<str> = Arc::from(topic.name.as_str());
        Arc::make_mut(&mut self.names).insert(topic.id, Arc::clone(&name));
        Arc::make_mut(&mut self.topics).insert(name, topic);
    }

    fn remove(&mut self, id: Uuid) -> Option<Arc<TopicImage>> {
        let name = Arc::make_mut(&mut self.names).remove(&id)?;
        Arc::make_mut(&mut self.topics).remove(&name)
    }

    /// Raises the leader epoch of every partition, at least to `epoch`.
    fn raise_leader_epoch(&mut self, epoch: i32) {
        self.leader_epoch = epoch;
        for topic in Arc::make_mut(&mut self.topics).values_mut() {
            for partition in &mut Arc::make_mut(topic).partitions {
                partition.leader_epoch = epoch.max(partition.leader_epoch + 1);
                partition.partition_epoch += 1;
            }
        }
    }

    fn change(&mut self, id: Uuid, change: impl FnOnce(&mut TopicImage)) -> Result<(), ImageError> {
        let name = self.names.get(&id).ok_or(ImageError::NoTopic(id))?;
        let topic = Arc::make_mut(&mut self.topics).get_mut(name).ok_or(ImageError::NoTopic(id))?;
        change(Arc::make_mut(topic));
        Ok(())
    }

    /// Returns what is needed to undo changes of these topics.
    pub(crate) fn save(&self, topics: &BTreeSet<Uuid>) -> Saved {
        Saved {
            // Without topics the copy is small.
            rest: Self { topics: Arc::default(), names: Arc::default(), ..self.clone() },
            topics: self.topics_by_id(topics),
        }
    }

    /// Returns these topics, each with its id.
    pub(crate) fn topics_by_id(&self, ids: &BTreeSet<Uuid>) -> Vec<(Uuid, Option<Arc<TopicImage>>)> {
        ids.iter().map(|&id| (id, self.topic_by_id(id).cloned())).collect()
    }

    /// Undoes changes.
    pub(crate) fn restore(&mut self, Saved { rest, topics }: Saved) {
        for (id, _) in &topics {
            self.remove(*id);
        }
        for topic in topics.into_iter().filter_map(|(_, topic)| topic) {
            self.insert(topic);
        }
        let (topics, names) = (std::mem::take(&mut self.topics), std::mem::take(&mut self.names));
        *self = Self { topics, names, ..rest };
    }
}

/// The state of some topics, and everything except topics; see [`MetadataImage::save`].
#[derive(Debug)]
pub(crate) struct Saved {
    rest: MetadataImage,
    topics: Vec<(Uuid, Option<Arc<TopicImage>>)>,
}

/// Converts a count. The log is trusted as far as its CRCs go; a negative count is 0.
fn size(partitions: i32) -> usize {
    usize::try_from(partitions).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created(name: &str, id: u128) -> MetadataRecord {
        MetadataRecord::TopicCreated {
            name: name.to_owned(),
            id: Uuid::from_u128(id),
            partitions: 1,
            configs: BTreeMap::new(),
            replicas: Vec::new(),
        }
    }

    #[test]
    fn a_topic_is_created_changed_and_deleted() {
        let mut image = MetadataImage::new(0);
        let id = Uuid::from_u128(1);
        image.apply(&created("a", 1)).expect("the first topic");
        let before = image.clone();
        image
            .apply(&MetadataRecord::PartitionsAdded { id, partitions: 4, replicas: Vec::new() })
            .expect("the topic exists");
        let set = |value: Option<&str>| MetadataRecord::TopicConfigChanged {
            id,
            name: "retention.ms".to_owned(),
            value: value.map(str::to_owned),
        };
        image.apply(&set(Some("5"))).expect("the topic exists");
        let topic = image.topic_by_id(id).expect("the topic exists");
        assert_eq!((topic.partition_count(), topic.configs["retention.ms"].as_str()), (4, "5"));
        let older = before.topic("a").expect("it was there before");
        assert_eq!(older.partition_count(), 1, "an older image does not change");
        image.apply(&set(None)).expect("the topic exists");
        assert!(image.topic("a").expect("the topic exists").configs.is_empty());
        image.apply(&MetadataRecord::TopicDeleted { id }).expect("the topic exists");
        assert!(image.topic("a").is_none() && image.topic_by_id(id).is_none());
        image.apply(&created("a", 2)).expect("the name is free again");
    }

    #[test]
    fn a_record_that_does_not_fit_is_rejected() {
        let mut image = MetadataImage::new(0);
        image.apply(&created("a", 1)).expect("the first topic");
        let before = image.clone();
        let twice = image.apply(&created("a", 2)).expect_err("the name is taken");
        assert!(matches!(twice, ImageError::CreatedTwice { .. }));
        assert!(matches!(image.apply(&created("b", 1)), Err(ImageError::CreatedTwice { .. })));
        let missing = Uuid::from_u128(9);
        assert_eq!(image.apply(&MetadataRecord::TopicDeleted { id: missing }), Err(ImageError::NoTopic(missing)));
        assert_eq!(image, before);
    }

    #[test]
    fn partitions_have_the_brokers_of_their_record() {
        let mut image = MetadataImage::new(1);
        let mut created = created("a", 1);
        if let MetadataRecord::TopicCreated { partitions, replicas, .. } = &mut created {
            (*partitions, *replicas) = (3, vec![vec![2, 1], vec![2, 1], vec![1]]);
        }
        image.apply(&created).expect("the first topic");
        let partitions = &image.topic("a").expect("it exists").partitions;
        let leaders: Vec<i32> = partitions.iter().map(|partition| partition.leader).collect();
        assert_eq!((leaders, &*partitions[0].replicas, &*partitions[2].isr), (vec![2, 2, 1], &[2, 1][..], &[1][..]));
        assert!(Arc::ptr_eq(&partitions[0].replicas, &partitions[1].replicas));
        let level = image.apply(&MetadataRecord::FeatureLevelSet { level: 9 });
        assert!(matches!(level, Err(ImageError::FeatureLevel(_))), "{level:?}");
        for (feature, level) in [("share.version", 1), (TRANSACTION_VERSION, 3)] {
            let changed = image.apply(&MetadataRecord::FeatureChanged { feature: feature.into(), level });
            assert_eq!(changed, Err(ImageError::Feature { feature: feature.into(), level }));
        }
    }

    #[test]
    fn the_leader_epoch_rises_for_every_partition() {
        let mut image = MetadataImage::new(7);
        image.apply(&created("a", 1)).expect("the first topic");
        image.apply(&MetadataRecord::LeaderEpochRaised { epoch: 3 }).expect("it fits any state");
        let id = Uuid::from_u128(1);
        let added = MetadataRecord::PartitionsAdded { id, partitions: 2, replicas: vec![vec![7]] };
        image.apply(&added).expect("the topic exists");
        let uneven = MetadataRecord::PartitionsAdded { id, partitions: 4, replicas: vec![vec![7]] };
        assert_eq!(image.apply(&uneven), Err(ImageError::Assignments { partitions: 2, replicas: 1 }));
        image.apply(&MetadataRecord::LeaderEpochRaised { epoch: 4 }).expect("it fits any state");
        let partitions = &image.topic("a").expect("it exists").partitions;
        let epochs: Vec<_> = partitions.iter().map(|one| (one.leader_epoch, one.partition_epoch)).collect();
        assert_eq!(epochs, [(4, 2), (4, 1)]);
        assert!(partitions.iter().all(|one| one.leader == 7 && *one.replicas == [7] && *one.isr == [7]));
    }

    #[test]
    fn a_source_has_its_views_and_theirs() {
        let mut image = MetadataImage::new(0);
        for (id, (name, source)) in
            [("a", ""), ("b", "a"), ("c", "b"), ("d", ""), ("x", "y"), ("y", "x")].iter().enumerate()
        {
            image.apply(&created(name, id as u128)).expect("a new name");
            let (id, name, value) = (Uuid::from_u128(id as u128), VIEW_OF.to_owned(), Some((*source).to_owned()));
            image.apply(&MetadataRecord::TopicConfigChanged { id, name, value }).expect("the topic exists");
        }
        let views = |name| image.views_of(name).map(|view| view.name.as_str()).collect::<Vec<_>>();
        assert_eq!((views("a"), views("b"), views("d")), (vec!["b", "c"], vec!["c"], vec![]));
        // No rule allows a circle; one in the log does not loop for ever.
        assert_eq!(views("x"), ["x", "y"]);
    }
}
