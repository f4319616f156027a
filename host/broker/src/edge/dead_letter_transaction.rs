//! Dead letters in a transaction: their partition becomes part of the transaction of the records that they come from,
//! so that the markers of its end reach it.
//!
//! The leader of that partition does this, before it appends. It writes the dead letters with the id and epoch of the
//! producer, and without sequences, as a coordinator writes the offsets of a group. So the sequences of a producer that
//! writes to the dead letter topic itself stay as they are.

use bytes::Bytes;
use millstream_coordinator::transaction::TransactionVersion;
use millstream_log::{AppendOrigin, Verification};
use millstream_metadata::MetadataImage;
use millstream_partition::Partition;
use millstream_record::BatchHeader;
use millstream_wire::{ErrorCode, Str};

use super::context::Edge;
use crate::cluster::BatchTransaction;
use crate::error::ApiError;
use crate::produce::verifier::{ADDS_SINCE, VerifyPartitions, translated};

/// How often the coordinator is asked, if a marker comes each time.
const VERIFICATIONS_MAX: usize = 5;

/// Returns the origin of a batch of the broker's own. Adds the partition to the batch's transaction, if it has one that
/// is not open in the partition.
///
/// # Errors
/// The coordinator does not add the partition. The code is one that the producer knows, or CONCURRENT_TRANSACTIONS.
/// FENCED_LEADER_EPOCH: the records' partition has another leader by now.
pub(super) async fn origin(
    edge: &Edge,
    partition: &Partition,
    batch: &Bytes,
    transaction: Option<&BatchTransaction>,
) -> Result<AppendOrigin, ApiError> {
    let Some(transaction) = transaction else { return Ok(AppendOrigin::Client(Verification::Unknown)) };
    check_leader(&edge.metadata.image(), transaction)?;
    let header = BatchHeader::parse(batch)?;
    let raises_epoch = transaction.produce_version >= ADDS_SINCE;
    for _ in 0..VERIFICATIONS_MAX {
        let Some(guard) = partition.begin_verification(&header, raises_epoch)? else {
            return Ok(AppendOrigin::Broker(Verification::Unknown));
        };
        let producer = (header.producer_id(), header.producer_epoch());
        add(edge, partition, producer, transaction).await.map_err(|error| match error.code {
            // It is not retried here: the marker of the transaction may wait for these dead letters.
            ErrorCode::CONCURRENT_TRANSACTIONS => error,
            _ => translated(error, transaction.produce_version),
        })?;
        // The marker of the transaction before may have come meanwhile.
        match partition.begin_verification(&header, raises_epoch)? {
            None => return Ok(AppendOrigin::Broker(Verification::Unknown)),
            Some(renewed) if renewed == guard => return Ok(AppendOrigin::Broker(Verification::Confirmed(guard))),
            Some(_) => {}
        }
    }
    Err(ApiError::new(ErrorCode::CONCURRENT_TRANSACTIONS, "the transaction ends while a dead letter is written"))
}

/// Checks that the broker that sends dead letters may still lead the partition of their records. If it was paused,
/// their transaction may have ended. With the older protocol the producer of the next one is the same.
fn check_leader(image: &MetadataImage, transaction: &BatchTransaction) -> Result<(), ApiError> {
    let (topic, index) = &transaction.source;
    let known = image.topic(topic).and_then(|topic| image.partition(topic.id, *index));
    match known {
        Some(known) if known.leader_epoch > transaction.leader_epoch => {
            let message = format!("another broker leads {topic}-{index} by now: send the records to it");
            Err(ApiError::new(ErrorCode::FENCED_LEADER_EPOCH, message))
        }
        _ => Ok(()),
    }
}

/// Asks the coordinator to add a partition to the transaction of a batch.
async fn add(
    edge: &Edge,
    partition: &Partition,
    (producer_id, producer_epoch): (i64, i16),
    transaction: &BatchTransaction,
) -> Result<(), ApiError> {
    let (version, required) = match transaction.produce_version {
        ADDS_SINCE.. => (TransactionVersion::V2, None),
        _ => (TransactionVersion::V0, Some(&transaction.source)),
    };
    let asked = VerifyPartitions {
        transactional_id: Str::from(transaction.id.as_str()),
        producer_id,
        producer_epoch,
        adds: Some(version),
        required: required.map(|(topic, index)| (Str::from(topic.as_str()), *index)),
        partitions: vec![(Str::from(partition.topic()), partition.index())],
    };
    edge.verifier.verify(asked).await.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use millstream_metadata::MetadataRecord;

    use super::*;

    #[test]
    fn a_broker_that_does_not_lead_the_records_any_more_writes_no_dead_letters() {
        let mut image = MetadataImage::new(0);
        let created = MetadataRecord::TopicCreated {
            name: "orders".to_owned(),
            id: uuid::Uuid::new_v4(),
            partitions: 1,
            configs: std::collections::BTreeMap::new(),
            replicas: Vec::new(),
        };
        image.apply(&created).expect("a record that fits");
        image.apply(&MetadataRecord::LeaderEpochRaised { epoch: 5 }).expect("a record that fits");
        let check = |leader_epoch| {
            let source = ("orders".to_owned(), 0);
            let transaction = BatchTransaction { id: "a".to_owned(), produce_version: 11, source, leader_epoch };
            check_leader(&image, &transaction).map_err(|error| error.code)
        };
        assert_eq!(check(4), Err(ErrorCode::FENCED_LEADER_EPOCH));
        // This broker may be the last to learn of a new leader.
        assert_eq!([5, 6].map(check), [Ok(()); 2]);
    }
}
