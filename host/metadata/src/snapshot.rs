//! An image as a snapshot: the fewest records that add up to it.
//!
//! A node that joins, or that was away for long, starts from a snapshot and not from the first record of the log. A
//! snapshot is text, one record in each line, in the form that records have in the log. It needs
//! [`FeatureLevel::CLUSTER`].

use std::sync::Arc;

use crate::{FeatureLevel, ImageError, MetadataImage, MetadataRecord, RecordError, TRANSACTION_VERSION, TopicImage};

/// A snapshot that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A line is no record that this program knows.
    #[error("the metadata snapshot cannot be read in line {line}: {error}")]
    Record {
        /// The number of the line, from 1.
        line: usize,
        /// What is wrong.
        error: RecordError,
    },
    /// A record does not fit the records before it.
    #[error("the metadata snapshot contradicts itself in line {line}: {error}")]
    Image {
        /// The number of the line, from 1.
        line: usize,
        /// What is wrong.
        error: ImageError,
    },
}

/// Writes an image as a snapshot.
///
/// # Panics
/// The image has a lower feature level than [`FeatureLevel::CLUSTER`].
pub fn write(image: &MetadataImage) -> Vec<u8> {
    assert!(image.feature_level >= FeatureLevel::CLUSTER, "a log of one broker has no snapshots");
    let mut text = Vec::new();
    for record in records(image) {
        text.extend(record.encode(image.feature_level));
        text.push(b'\n');
    }
    text
}

/// Reads a snapshot.
///
/// # Errors
/// Names the line that cannot be read or does not fit.
pub fn read(text: &[u8]) -> Result<MetadataImage, SnapshotError> {
    let mut image = MetadataImage::without_brokers();
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    for (line, value) in (1..).zip(lines) {
        let record = MetadataRecord::decode(value).map_err(|error| SnapshotError::Record { line, error })?;
        image.apply(&record).map_err(|error| SnapshotError::Image { line, error })?;
    }
    Ok(image)
}

fn records(image: &MetadataImage) -> Vec<MetadataRecord> {
    let mut records = vec![
        MetadataRecord::ClusterCreated { cluster_id: image.cluster_id.clone() },
        MetadataRecord::FeatureLevelSet { level: image.feature_level.number() },
        MetadataRecord::LeaderEpochRaised { epoch: image.leader_epoch },
        MetadataRecord::ProducerIdsAllocated { next: image.next_producer_id },
    ];
    if image.feature_level >= FeatureLevel::FEATURES {
        let (feature, level) = (TRANSACTION_VERSION.to_owned(), image.transaction_version());
        records.push(MetadataRecord::FeatureChanged { feature, level });
    }
    for broker in image.brokers() {
        let (id, epoch) = (broker.registration.id, broker.epoch);
        records.push(MetadataRecord::BrokerRegistered { broker: broker.registration.clone(), epoch });
        let (fenced, shutting_down) = (Some(broker.fenced), Some(broker.shutting_down));
        records.push(MetadataRecord::BrokerChanged { id, epoch, fenced, shutting_down });
    }
    for (&broker, configs) in image.all_broker_configs().iter() {
        records.extend(configs.iter().map(|(name, value)| {
            let value = Some(value.clone());
            MetadataRecord::BrokerConfigChanged { broker, name: name.clone(), value }
        }));
    }
    // The newest epoch may be that of a broker that has left.
    records.push(MetadataRecord::BrokerEpochsAllocated { next: image.next_broker_epoch });
    image.topics().for_each(|topic| records.extend(of_topic(topic)));
    records
}

fn of_topic(topic: &Arc<TopicImage>) -> impl Iterator<Item = MetadataRecord> {
    let id = topic.id;
    let created = MetadataRecord::TopicCreated {
        name: topic.name.clone(),
        id,
        partitions: topic.partition_count(),
        configs: topic.configs.clone(),
        replicas: topic.partitions.iter().map(|partition| partition.replicas.to_vec()).collect(),
    };
    let decoders =
        topic.decoders.iter().map(move |digest| MetadataRecord::DecoderNeeded { id, digest: digest.clone() });
    let partitions = (0..).zip(&topic.partitions).map(move |(partition, state)| {
        let state = Box::new(state.clone());
        MetadataRecord::PartitionRestored { id, partition, state }
    });
    [created].into_iter().chain(decoders).chain(partitions)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::controller::cluster_tests::{cluster, fence};
    use crate::{PartitionChange, TopicConfigs};

    #[test]
    fn a_snapshot_is_read_back() {
        let mut image = cluster(&[(1, Some("a")), (2, None), (3, None)]);
        let id = Uuid::from_u128(9);
        let change =
            PartitionChange { leader: Some(2), elr: Some(vec![1]), recovering: Some(true), ..Default::default() };
        let configs = TopicConfigs::from([("retention.ms".to_owned(), "5".to_owned())]);
        for record in [
            MetadataRecord::LeaderEpochRaised { epoch: 4 },
            MetadataRecord::FeatureLevelSet { level: FeatureLevel::FEATURES.number() },
            MetadataRecord::FeatureChanged { feature: TRANSACTION_VERSION.into(), level: 2 },
            MetadataRecord::TopicCreated {
                name: "t".into(),
                id,
                partitions: 2,
                configs,
                replicas: vec![vec![1, 2]; 2],
            },
            MetadataRecord::PartitionChanged { id, partition: 1, change },
            MetadataRecord::DecoderNeeded { id, digest: "ab".into() },
            MetadataRecord::BrokerConfigChanged { broker: Some(2), name: "a".into(), value: Some("1".into()) },
            MetadataRecord::BrokerConfigChanged { broker: None, name: "a".into(), value: Some("2".into()) },
            MetadataRecord::ProducerIdsAllocated { next: 5000 },
            MetadataRecord::BrokerUnregistered { id: 3, epoch: image.broker(3).expect("it is registered").epoch },
        ] {
            image.apply(&record).expect("it fits");
        }
        fence(&mut image, 1);
        let text = write(&image);
        assert_eq!(read(&text).expect("it was just written"), image);
        let cut = text.len() - 20;
        let error = read(&text[..cut]).expect_err("a torn line").to_string();
        assert!(error.starts_with("the metadata snapshot cannot be read in line 1"), "{error}");
        let topic = text.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"{\"type\":\"topic_created\""));
        let twice = [&text[..], topic.expect("a topic")].concat();
        let error = read(&twice).expect_err("two topics with a name").to_string();
        assert!(error.contains("contradicts itself") && error.ends_with("is created twice"), "{error}");
    }
}
