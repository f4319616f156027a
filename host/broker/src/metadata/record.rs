//! The records of `__cluster_metadata-0`: every change of the cluster's state is one of them.
//!
//! A record's value is a JSON object with a `type`, for example
//! `{"type":"topic_created","name":"orders","id":"…","partitions":3,"configs":{}}`. Changes that belong together are the
//! records of one batch, so that a torn tail takes all of them or none. Nothing in a record depends on the node that wrote
//! it: a quorum can replicate them as they are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum MetadataRecord {
    /// The first record of every log: who this cluster is.
    ClusterCreated {
        /// 22 characters of URL-safe base64, as Kafka writes a uuid.
        cluster_id: String,
    },
    /// The leader epoch of every partition from here on. It rises when a broker comes back from a stop that was not clean,
    /// since records that were read before may be gone.
    LeaderEpochRaised {
        epoch: i32,
    },
    TopicCreated {
        name: String,
        id: Uuid,
        partitions: i32,
        configs: BTreeMap<String, String>,
    },
    TopicDeleted {
        id: Uuid,
    },
    /// The topic now has `partitions` partitions.
    PartitionsAdded {
        id: Uuid,
        partitions: i32,
    },
    /// One option of a topic; no value takes it off.
    TopicConfigChanged {
        id: Uuid,
        name: String,
        value: Option<String>,
    },
    /// Batches of the topic may be in a format that only the plug-in of this digest reads: its SHA-256 in hexadecimal.
    DecoderNeeded {
        id: Uuid,
        digest: String,
    },
    /// Producer ids below `next` are given away, in blocks.
    ProducerIdsAllocated {
        next: i64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The form on disk is a contract: this text must stay readable.
    #[test]
    fn the_form_on_disk_does_not_change() {
        let id = Uuid::from_u128(7);
        let records = [
            (
                MetadataRecord::ClusterCreated { cluster_id: "c".into() },
                r#"{"type":"cluster_created","cluster_id":"c"}"#,
            ),
            (MetadataRecord::LeaderEpochRaised { epoch: 2 }, r#"{"type":"leader_epoch_raised","epoch":2}"#),
            (
                MetadataRecord::TopicCreated {
                    name: "t".into(),
                    id,
                    partitions: 3,
                    configs: BTreeMap::from([("retention.ms".to_owned(), "1".to_owned())]),
                },
                r#"{"type":"topic_created","name":"t","id":"00000000-0000-0000-0000-000000000007","partitions":3,"configs":{"retention.ms":"1"}}"#,
            ),
            (
                MetadataRecord::TopicConfigChanged { id, name: "a".into(), value: None },
                r#"{"type":"topic_config_changed","id":"00000000-0000-0000-0000-000000000007","name":"a","value":null}"#,
            ),
            (
                MetadataRecord::DecoderNeeded { id, digest: "ab".into() },
                r#"{"type":"decoder_needed","id":"00000000-0000-0000-0000-000000000007","digest":"ab"}"#,
            ),
            (MetadataRecord::ProducerIdsAllocated { next: 1000 }, r#"{"type":"producer_ids_allocated","next":1000}"#),
        ];
        for (record, text) in records {
            assert_eq!(serde_json::to_string(&record).expect("written"), text);
            assert_eq!(serde_json::from_str::<MetadataRecord>(text).expect("read"), record);
        }
    }
}
