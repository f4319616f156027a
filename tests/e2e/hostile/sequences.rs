//! Row 28: sequences and epochs of idempotent producers.

use std::time::Duration;

use millstream_tests::wait_until;
use millstream_wire::ErrorCode;
use millstream_wire::messages::{InitProducerIdRequest, PartitionProduceResponse};

use super::{PRODUCE_VERSIONS, Victim};
use crate::support::producer_batch;

impl Victim {
    /// Returns a producer id from the broker.
    fn producer_id(&mut self) -> i64 {
        let request = InitProducerIdRequest { transaction_timeout_ms: 60_000, ..Default::default() };
        // Kafka's coordinator may still be loading after the start.
        let answer = wait_until("a producer id", Duration::from_secs(20), || {
            let answer = self.raw.call(4, &request);
            (!answer.error_code.retriable()).then_some(answer)
        });
        assert_eq!((answer.error_code, answer.producer_epoch), (ErrorCode::NONE, 0));
        answer.producer_id
    }

    fn produce_as(
        &mut self,
        version: i16,
        id: i64,
        epoch: i16,
        sequence: i32,
        values: &[&str],
    ) -> PartitionProduceResponse {
        self.topic.produce_by(&mut self.raw, version, producer_batch(id, epoch, sequence, values))
    }

    fn takes(&mut self, what: &str, id: i64, epoch: i16, sequence: i32, values: &[&str]) -> i64 {
        let end = self.topic.end(&mut self.raw);
        let answer = self.produce_as(9, id, epoch, sequence, values);
        assert_eq!(answer.error_code, ErrorCode::NONE, "{what}: {:?}", answer.error_message);
        assert_eq!(answer.base_offset, end, "{what}");
        end
    }

    fn refuses_as(&mut self, what: &str, id: i64, epoch: i16, sequence: i32, error: ErrorCode) {
        let end = self.topic.end(&mut self.raw);
        for version in PRODUCE_VERSIONS {
            let answer = self.produce_as(version, id, epoch, sequence, &["refused"]);
            assert_eq!(answer.error_code, error, "{what}, v{version}: {:?}", answer.error_message);
            assert_eq!(self.topic.end(&mut self.raw), end, "{what}, v{version}: something was appended");
        }
    }
}

#[test]
fn row_28_a_gap_in_the_sequence() {
    let mut victim = Victim::start();
    let id = victim.producer_id();
    victim.takes("the first batch", id, 0, 0, &["0", "1", "2"]);
    for sequence in [4, 100, i32::MAX] {
        victim.refuses_as(
            &format!("sequence {sequence} after 2"),
            id,
            0,
            sequence,
            ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
        );
    }
    victim.takes("the next batch", id, 0, 3, &["3"]);
    victim.is_well("gaps");
}

#[test]
fn row_28_the_sequence_wraps() {
    let mut victim = Victim::start();
    let id = victim.producer_id();
    // An unknown producer may begin with any sequence.
    victim.takes("the last but two", id, 0, i32::MAX - 2, &["a", "b"]);
    victim.takes("the last", id, 0, i32::MAX, &["c"]);
    victim.refuses_as("1 after the last", id, 0, 1, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    let base = victim.takes("0 after the last", id, 0, 0, &["d"]);
    assert_eq!(victim.produce_as(9, id, 0, 0, &["d"]).base_offset, base, "a duplicate after the wrap");
    victim.takes("1 after 0", id, 0, 1, &["e"]);

    let id = victim.producer_id();
    let base = victim.takes("a batch across the wrap", id, 0, i32::MAX - 1, &["a", "b", "c", "d"]);
    let again = victim.produce_as(9, id, 0, i32::MAX - 1, &["a", "b", "c", "d"]);
    assert_eq!((again.error_code, again.base_offset), (ErrorCode::NONE, base), "its duplicate");
    victim.takes("what follows it", id, 0, 2, &["e"]);
    victim.is_well("wraps");
}

#[test]
fn row_28_old_and_future_epochs() {
    let mut victim = Victim::start();
    let id = victim.producer_id();
    victim.takes("epoch 5", id, 5, 0, &["0", "1"]);
    for epoch in [0, 4] {
        victim.refuses_as(&format!("epoch {epoch} after 5"), id, epoch, 2, ErrorCode::INVALID_PRODUCER_EPOCH);
    }
    // A new epoch restarts its sequence.
    victim.refuses_as("epoch 6 in the middle", id, 6, 2, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    victim.takes("epoch 5 still", id, 5, 2, &["2"]);
    victim.takes("epoch 6 from 0", id, 6, 0, &["3"]);
    victim.refuses_as("epoch 5 after 6", id, 5, 3, ErrorCode::INVALID_PRODUCER_EPOCH);
    victim.takes("epoch 6", id, 6, 1, &["4"]);
    victim.is_well("epochs");
}

#[test]
fn row_28_fields_that_do_not_go_together() {
    let mut victim = Victim::start();
    let id = victim.producer_id();
    for (what, id, epoch, sequence) in [
        ("no epoch", id, -1, 0),
        ("no sequence", id, 0, -1),
        ("a negative sequence", id, 0, i32::MIN),
        ("a negative id", -2, 0, 0),
    ] {
        victim.refuses(what, &producer_batch(id, epoch, sequence, &["value"]), ErrorCode::INVALID_RECORD);
    }
    victim.is_well("producer fields");
}

#[test]
fn row_28_a_duplicate_is_acknowledged_and_not_stored() {
    let mut victim = Victim::start();
    let id = victim.producer_id();
    let bases: Vec<i64> =
        (0..5).map(|batch| victim.takes("a batch of two", id, 0, batch * 2, &["even", "odd"])).collect();
    let end = victim.topic.end(&mut victim.raw);
    for version in PRODUCE_VERSIONS {
        for (batch, base) in bases.iter().enumerate() {
            let answer = victim.produce_as(version, id, 0, batch as i32 * 2, &["even", "odd"]);
            assert_eq!((answer.error_code, answer.base_offset), (ErrorCode::NONE, *base), "batch {batch}, v{version}");
        }
    }
    assert_eq!(victim.topic.end(&mut victim.raw), end, "a duplicate was stored");
    // The window holds five batches: the sixth pushes out the first.
    victim.takes("the sixth", id, 0, 10, &["even", "odd"]);
    let answer = victim.produce_as(9, id, 0, 0, &["even", "odd"]);
    assert!(
        [ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, ErrorCode::DUPLICATE_SEQUENCE_NUMBER].contains(&answer.error_code),
        "older than the window: {:?}",
        answer.error_code
    );
    assert_eq!(victim.topic.end(&mut victim.raw), end + 2);
    victim.is_well("duplicates");
}
