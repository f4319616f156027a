//! The records of `__cluster_metadata-0`: every change of the cluster's state is one of them.
//!
//! A record's value is a JSON object with a `type`, for example
//! `{"type":"topic_created","name":"orders","id":"…","partitions":3,"configs":{}}`. A record in a later version than 0
//! has a `version` too. Changes that belong together are the records of one batch, so that a torn tail removes all of
//! them or none. Nothing in a record depends on the node that wrote it: a quorum can replicate them unchanged.
//!
//! The [`FeatureLevel`] of the log determines which records may be written, and in which version. A program that knows
//! the level can read all of them. A record that this program does not know is an error that names it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::broker::BrokerRegistration;
use super::feature::FeatureLevel;
use super::partition::{PartitionChange, PartitionImage};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum MetadataRecord {
    /// The first record of every log: the identity of the cluster.
    ClusterCreated {
        /// 22 characters of URL-safe base64, as Kafka writes a uuid.
        cluster_id: String,
    },
    /// The records after this one are written for this feature level. Without it the level is 0.
    FeatureLevelSet {
        /// The number of the level.
        level: u16,
    },
    /// A feature beside that of the log has another level. From level `FEATURES` on.
    FeatureChanged {
        /// The name of the feature.
        feature: String,
        /// The new level; 0 turns the feature off.
        level: u16,
    },
    /// The least leader epoch of every partition from now on. It rises when a broker starts after an unclean stop,
    /// since records that were read before may be lost.
    LeaderEpochRaised {
        /// The epoch.
        epoch: i32,
    },
    /// A new topic.
    TopicCreated {
        /// Its name.
        name: String,
        /// Its id.
        id: Uuid,
        /// The number of its partitions.
        partitions: i32,
        /// The configs that it sets itself.
        configs: BTreeMap<String, String>,
        /// Version 1: the brokers of each partition. In version 0 the one broker of the cluster has all of them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        replicas: Vec<Vec<i32>>,
    },
    /// A deleted topic.
    TopicDeleted {
        /// Its id.
        id: Uuid,
    },
    /// A topic has more partitions.
    PartitionsAdded {
        /// The id of the topic.
        id: Uuid,
        /// The number of all its partitions.
        partitions: i32,
        /// Version 1: the brokers of each partition that is added.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        replicas: Vec<Vec<i32>>,
    },
    /// One config of a topic has changed.
    TopicConfigChanged {
        /// The id of the topic.
        id: Uuid,
        /// The name of the config.
        name: String,
        /// The new value; without one the topic no longer sets the config.
        value: Option<String>,
    },
    /// Batches of a topic may be in a format that only one plug-in reads.
    DecoderNeeded {
        /// The id of the topic.
        id: Uuid,
        /// The SHA-256 of the plug-in in hexadecimal.
        digest: String,
    },
    /// A broker has started: it is registered, and fenced until it has caught up. From level `CLUSTER` on, as all that
    /// follow.
    BrokerRegistered {
        /// What it says of itself.
        broker: BrokerRegistration,
        /// The epoch of the registration.
        epoch: i64,
    },
    /// The state of a broker has changed.
    BrokerChanged {
        /// Its id.
        id: i32,
        /// The epoch of its registration.
        epoch: i64,
        /// Whether it is fenced, if that has changed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fenced: Option<bool>,
        /// Whether it shuts down, if that has changed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shutting_down: Option<bool>,
    },
    /// A broker has left the cluster for good.
    BrokerUnregistered {
        /// Its id.
        id: i32,
        /// The epoch of its registration.
        epoch: i64,
    },
    /// One partition has changed.
    PartitionChanged {
        /// The id of the topic.
        id: Uuid,
        /// The index of the partition.
        partition: i32,
        /// The change.
        change: PartitionChange,
    },
    /// The whole state of one partition, in a snapshot.
    PartitionRestored {
        /// The id of the topic.
        id: Uuid,
        /// The index of the partition.
        partition: i32,
        /// The state.
        state: Box<PartitionImage>,
    },
    /// One config of a broker has changed. In the log of a broker that is alone it may follow any level: a program that
    /// does not know it says so.
    BrokerConfigChanged {
        /// The id of the broker; without one, the default of all brokers has changed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        broker: Option<i32>,
        /// The name of the config.
        name: String,
        /// The new value; without one the config is no longer set.
        value: Option<String>,
    },
    /// The epochs of registrations that are used up, in a snapshot.
    BrokerEpochsAllocated {
        /// The first epoch that is not used.
        next: i64,
    },
    /// Producer ids are allocated, in blocks.
    ProducerIdsAllocated {
        /// The first id that is not allocated.
        next: i64,
    },
}

/// The newest version of each record that this program reads.
const VERSIONS: [(&str, u64); 17] = [
    ("cluster_created", 0),
    ("feature_level_set", 0),
    ("feature_changed", 0),
    ("leader_epoch_raised", 0),
    ("topic_created", 1),
    ("topic_deleted", 0),
    ("partitions_added", 1),
    ("topic_config_changed", 0),
    ("decoder_needed", 0),
    ("producer_ids_allocated", 0),
    ("broker_registered", 0),
    ("broker_changed", 0),
    ("broker_unregistered", 0),
    ("broker_config_changed", 0),
    ("partition_changed", 0),
    ("partition_restored", 0),
    ("broker_epochs_allocated", 0),
];

/// A record that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The value is not a record at all.
    #[error("a metadata record is not a JSON object with a `type`")]
    NoType,
    /// The program does not know this type.
    #[error(
        "this program does not know the metadata record {0}: a newer version of the program wrote it, start that one"
    )]
    UnknownType(String),
    /// The program does not know this version of the type.
    #[error(
        "metadata record {name} has version {version}, this program knows up to {known}: \
         a newer version of the program \
         wrote it, start that one"
    )]
    UnknownVersion {
        /// The type.
        name: String,
        /// The version of the record.
        version: String,
        /// The newest version that the program knows.
        known: u64,
    },
    /// The fields are not those of the type.
    #[error("metadata record {name} is damaged: {error}")]
    Fields {
        /// The type.
        name: String,
        /// What is wrong.
        error: serde_json::Error,
    },
}

impl MetadataRecord {
    /// Encodes the record for a log of this feature level.
    pub(crate) fn encode(&self, level: FeatureLevel) -> Vec<u8> {
        let version = self.version();
        debug_assert!(level >= self.level(), "the decision knows the feature level");
        let encoded = match version {
            0 => serde_json::to_vec(self),
            version => serde_json::to_vec(&Versioned { record: self, version }),
        };
        encoded.expect("a record is plain data")
    }

    /// Decodes the value of a record.
    ///
    /// # Errors
    /// Names a record, or a version of it, that this program does not know.
    pub(crate) fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let mut object: Map<String, Value> = serde_json::from_slice(value).map_err(|_| RecordError::NoType)?;
        let name = object.get("type").and_then(Value::as_str).ok_or(RecordError::NoType)?.to_owned();
        let Some(&(_, known)) = VERSIONS.iter().find(|(known, _)| *known == name) else {
            return Err(RecordError::UnknownType(name));
        };
        let version = object.remove("version").unwrap_or(Value::from(0));
        if version.as_u64().is_none_or(|version| version > known) {
            return Err(RecordError::UnknownVersion { name, version: version.to_string(), known });
        }
        serde_json::from_value(Value::Object(object)).map_err(|error| RecordError::Fields { name, error })
    }

    /// Returns the lowest feature level whose programs read the record.
    fn level(&self) -> FeatureLevel {
        match self {
            Self::FeatureChanged { .. } => FeatureLevel::FEATURES,
            Self::BrokerRegistered { .. }
            | Self::BrokerChanged { .. }
            | Self::BrokerUnregistered { .. }
            | Self::PartitionChanged { .. }
            | Self::PartitionRestored { .. }
            | Self::BrokerEpochsAllocated { .. } => FeatureLevel::CLUSTER,
            _ if self.version() > 0 => FeatureLevel::ASSIGNMENTS,
            _ => FeatureLevel::INITIAL,
        }
    }

    /// Returns the oldest version that holds the record.
    fn version(&self) -> u16 {
        match self {
            Self::TopicCreated { replicas, .. } | Self::PartitionsAdded { replicas, .. } => {
                u16::from(!replicas.is_empty())
            }
            _ => 0,
        }
    }
}

/// A record as it is written from version 1 on.
#[derive(Serialize)]
struct Versioned<'a> {
    #[serde(flatten)]
    record: &'a MetadataRecord,
    version: u16,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Endpoint;

    fn registration() -> BrokerRegistration {
        BrokerRegistration {
            id: 2,
            incarnation: Uuid::from_u128(9),
            endpoints: vec![Endpoint { listener: "PLAINTEXT".into(), host: "b2".into(), port: 9092 }],
            rack: Some("r1".into()),
            level_min: 0,
            level_max: 2,
        }
    }

    fn check_forms(records: &[(MetadataRecord, &str)]) {
        for (record, text) in records {
            assert_eq!(String::from_utf8(record.encode(record.level())).expect("JSON"), *text);
            assert_eq!(MetadataRecord::decode(text.as_bytes()).expect("a known record"), *record);
        }
    }

    /// The format on disk is a contract: this text must stay readable.
    #[test]
    fn the_form_on_disk_does_not_change() {
        let id = Uuid::from_u128(7);
        let configs = BTreeMap::from([("retention.ms".to_owned(), "1".to_owned())]);
        let created = |replicas| MetadataRecord::TopicCreated {
            name: "t".into(),
            id,
            partitions: 3,
            configs: configs.clone(),
            replicas,
        };
        let records = [
            (
                MetadataRecord::ClusterCreated { cluster_id: "c".into() },
                r#"{"type":"cluster_created","cluster_id":"c"}"#,
            ),
            (MetadataRecord::FeatureLevelSet { level: 1 }, r#"{"type":"feature_level_set","level":1}"#),
            (MetadataRecord::LeaderEpochRaised { epoch: 2 }, r#"{"type":"leader_epoch_raised","epoch":2}"#),
            (
                created(Vec::new()),
                concat!(
                    r#"{"type":"topic_created","name":"t","id":"00000000-0000-0000-0000-000000000007","partitions":3,"#,
                    r#""configs":{"retention.ms":"1"}}"#
                ),
            ),
            (
                created(vec![vec![1], vec![2], vec![1]]),
                concat!(
                    r#"{"type":"topic_created","name":"t","id":"00000000-0000-0000-0000-000000000007","partitions":3,"#,
                    r#""configs":{"retention.ms":"1"},"replicas":[[1],[2],[1]],"version":1}"#
                ),
            ),
            (
                MetadataRecord::PartitionsAdded { id, partitions: 4, replicas: vec![vec![1, 2]] },
                concat!(
                    r#"{"type":"partitions_added","id":"00000000-0000-0000-0000-000000000007","partitions":4,"#,
                    r#""replicas":[[1,2]],"version":1}"#
                ),
            ),
            (
                MetadataRecord::PartitionsAdded { id, partitions: 4, replicas: Vec::new() },
                r#"{"type":"partitions_added","id":"00000000-0000-0000-0000-000000000007","partitions":4}"#,
            ),
            (
                MetadataRecord::TopicDeleted { id },
                r#"{"type":"topic_deleted","id":"00000000-0000-0000-0000-000000000007"}"#,
            ),
            (
                MetadataRecord::TopicConfigChanged { id, name: "a".into(), value: None },
                concat!(
                    r#"{"type":"topic_config_changed","id":"00000000-0000-0000-0000-000000000007","#,
                    r#""name":"a","value":null}"#
                ),
            ),
            (
                MetadataRecord::DecoderNeeded { id, digest: "ab".into() },
                r#"{"type":"decoder_needed","id":"00000000-0000-0000-0000-000000000007","digest":"ab"}"#,
            ),
            (MetadataRecord::ProducerIdsAllocated { next: 1000 }, r#"{"type":"producer_ids_allocated","next":1000}"#),
        ];
        check_forms(&records);
    }

    #[test]
    fn the_form_of_a_cluster_does_not_change() {
        let id = Uuid::from_u128(7);
        let records = [
            (
                MetadataRecord::BrokerRegistered { broker: registration(), epoch: 4 },
                concat!(
                    r#"{"type":"broker_registered","broker":{"id":2,"#,
                    r#""incarnation":"00000000-0000-0000-0000-000000000009","#,
                    r#""endpoints":[{"listener":"PLAINTEXT","host":"b2","port":9092}],"rack":"r1","level_min":0,"#,
                    r#""level_max":2},"epoch":4}"#
                ),
            ),
            (
                MetadataRecord::BrokerChanged { id: 2, epoch: 4, fenced: Some(false), shutting_down: None },
                r#"{"type":"broker_changed","id":2,"epoch":4,"fenced":false}"#,
            ),
            (
                MetadataRecord::BrokerUnregistered { id: 2, epoch: 4 },
                r#"{"type":"broker_unregistered","id":2,"epoch":4}"#,
            ),
            (
                MetadataRecord::PartitionChanged {
                    id,
                    partition: 1,
                    change: PartitionChange { leader: Some(2), isr: Some(vec![2, 3]), ..Default::default() },
                },
                concat!(
                    r#"{"type":"partition_changed","id":"00000000-0000-0000-0000-000000000007","partition":1,"#,
                    r#""change":{"leader":2,"isr":[2,3]}}"#
                ),
            ),
            (
                MetadataRecord::PartitionRestored {
                    id,
                    partition: 1,
                    state: Box::new(PartitionImage::new([2, 3].into(), 5)),
                },
                concat!(
                    r#"{"type":"partition_restored","id":"00000000-0000-0000-0000-000000000007","partition":1,"#,
                    r#""state":{"leader":2,"leader_epoch":5,"partition_epoch":0,"replicas":[2,3],"isr":[2,3]}}"#
                ),
            ),
            (
                MetadataRecord::BrokerConfigChanged { broker: Some(2), name: "a".into(), value: Some("1".into()) },
                r#"{"type":"broker_config_changed","broker":2,"name":"a","value":"1"}"#,
            ),
            (
                MetadataRecord::BrokerConfigChanged { broker: None, name: "a".into(), value: None },
                r#"{"type":"broker_config_changed","name":"a","value":null}"#,
            ),
            (MetadataRecord::BrokerEpochsAllocated { next: 6 }, r#"{"type":"broker_epochs_allocated","next":6}"#),
            (
                MetadataRecord::FeatureChanged { feature: "transaction.version".into(), level: 2 },
                r#"{"type":"feature_changed","feature":"transaction.version","level":2}"#,
            ),
        ];
        check_forms(&records);
    }

    #[test]
    fn records_of_a_newer_program_are_named() {
        let error = |text: &str| MetadataRecord::decode(text.as_bytes()).expect_err(text).to_string();
        let text = error(r#"{"type":"topic_created","version":3,"name":"t"}"#);
        assert!(
            text.starts_with("metadata record topic_created has version 3, this program knows up to 1: "),
            "{text}"
        );
        let text = error(r#"{"type":"topic_deleted","version":"new"}"#);
        assert!(text.starts_with(r#"metadata record topic_deleted has version "new", this"#), "{text}");
        let text = error(r#"{"type":"broker_painted","id":1}"#);
        assert!(text.starts_with("this program does not know the metadata record broker_painted: "), "{text}");
        let text = error(r#"{"type":"leader_epoch_raised","epoch":1,"by":2}"#);
        assert!(text.starts_with("metadata record leader_epoch_raised is damaged: unknown field `by`"), "{text}");
        for broken in ["", "[]", "{}", r#"{"type":5}"#, "\u{0}"] {
            assert_eq!(error(broken), "a metadata record is not a JSON object with a `type`");
        }
    }
}
