//! Quick stages run inline, on the threads that serve the sockets. Their decisions stay the same, and a stage that
//! turns slow is moved away.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use millstream_record::Codec;
use millstream_tests::Broker;
use millstream_wire::messages::{PartitionProduceData, ProduceRequest};
use millstream_wire::{ErrorCode, Records};

use super::{NOT_NEGATIVE, rows, set, values};
use crate::guests::Guest;
use crate::support::{Raw, Topic, batch, compressed};

/// More batches than a stage needs to count as quick.
const MANY: usize = 100;

const GOOD: &str = r#"{"n":1}"#;
const MIXED: [&str; 4] = [GOOD, "no json", r#"{"n":-1}"#, GOOD];

/// Sends batches until the topic's stages count as quick.
fn warm_up(raw: &mut Raw, topic: &Topic) {
    for _ in 0..MANY {
        topic.produce(raw, batch(&[GOOD]));
    }
}

#[test]
fn decisions_stay_the_same() {
    let broker = Broker::builder().set("flush.mode", "page-cache").start();
    let mut raw = Raw::connect(&broker);
    for (policy, left) in [("fail", 0), ("skip", 2), ("dead-letter", 2), ("pass", 4)] {
        let topic = Topic::create(&mut raw, policy, 1, &[]);
        let options = [("stage.admit.failure.policy", policy), ("stage.dead.letter.topic", "dead")];
        set(&mut raw, &topic, &[("stage.admit", NOT_NEGATIVE), options[0], options[1]]);
        // After a failure the stages are measured for longer, and then count as quick again.
        for codec in [Codec::None, Codec::None, Codec::Lz4] {
            warm_up(&mut raw, &topic);
            let end = topic.end(&mut raw);
            let answer = topic.produce_by(&mut raw, 9, compressed(codec, &MIXED));
            if left == 0 {
                assert_eq!(answer.error_code, ErrorCode::INVALID_RECORD);
                let named: Vec<i32> = answer.record_errors.iter().map(|error| error.batch_index).collect();
                assert_eq!((named, topic.end(&mut raw)), (vec![1, 2], end));
            } else {
                assert_eq!((answer.error_code, answer.base_offset), (ErrorCode::NONE, end), "{policy}");
                assert_eq!((topic.end(&mut raw), values(&mut raw, &topic).range(end..).count()), (end + 4, left));
            }
        }
    }
    let dead = Topic { name: "dead".into(), id: uuid::Uuid::nil() };
    let letters = rows(&mut raw, &dead);
    let letters: Vec<_> = letters.iter().filter_map(|row| row.value.as_deref()).collect();
    assert_eq!(letters, [MIXED[1], MIXED[2]].repeat(3));
}

#[test]
fn one_that_turns_slow_gives_the_worker_back() {
    const PARTITIONS: i32 = 32;
    // Does not end for more than one row: every batch of two runs into two deadlines, and then is processed row by row.
    let forever = "(if (i32.gt_u (local.get $rows) (i32.const 1)) (then (loop $forever (br $forever))))";
    let folder = tempfile::tempdir().expect("a folder");
    let guest = Guest::filter().name("turns").hook("filter", forever).build();
    std::fs::write(folder.path().join("turns.wasm"), guest).expect("written");
    // There is one worker: while it is blocked, no client is served.
    let broker = Broker::builder().plugins(folder.path()).env("TOKIO_WORKER_THREADS", "1").start();
    broker.allow("there is no rollback");
    broker.allow("fails too often");
    let mut raw = Raw::connect(&broker);
    let plain = Topic::create(&mut raw, "plain", 1, &[]);
    let topic = Topic::create(&mut raw, "turns", PARTITIONS, &[("stage.admit", "turns")]);
    warm_up(&mut raw, &topic);

    let answered = AtomicBool::new(false);
    let mut beside = 0;
    thread::scope(|scope| {
        let mut slow = Raw::connect(&broker);
        let correlation = slow.send(9, &to_all(&topic, PARTITIONS));
        let answered = &answered;
        scope.spawn(move || {
            let answer = slow.receive::<ProduceRequest>(9, correlation);
            answered.store(true, Ordering::Release);
            for partition in &answer.responses[0].partition_responses {
                assert_eq!(partition.error_code, ErrorCode::NONE, "{:?}", partition.error_message);
            }
        });
        while !answered.load(Ordering::Acquire) {
            plain.produce(&mut raw, batch(&["value"]));
            beside += 1;
        }
    });
    // More than a second of computing, for a request that takes a millisecond.
    assert!(beside > 50, "{beside} requests beside the slow one");
    assert_eq!(topic.produce(&mut raw, batch(&[GOOD])), MANY as i64 + 2);
}

/// Returns a produce request with two rows for each partition.
fn to_all(topic: &Topic, partitions: i32) -> ProduceRequest {
    let mut request = topic.produce_request(9, -1, 0, batch(&[GOOD, GOOD]));
    let data = |index| PartitionProduceData { index, records: Records::Bytes(batch(&[GOOD, GOOD]).into()) };
    request.topic_data[0].partition_data.extend((1..partitions).map(data));
    request
}
