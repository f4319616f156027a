//! The same log, compacted by Apache Kafka and by us.

use std::fs;
use std::path::Path;

use millstream_record::{BatchView, batches};
use rustix::process::Signal;

use super::load::Load;
use super::{
    COMPACTED, NEVER, active_segments, compacted_to, create, folders, kafka, logs, move_partitions, ours, run, see_all,
    set_lag,
};
use crate::java::Tools;

/// A batch without its bytes. The horizon is left out: it is the time of the pass.
#[derive(Debug, PartialEq, Eq)]
struct Batch {
    offsets: [i64; 2],
    count: i32,
    attributes: i16,
    producer: (i64, i16, i32),
    leader_epoch: i32,
    max_timestamp: i64,
    /// The offset, time, key and value of each record, and the number of its headers.
    records: Vec<Kept>,
}

/// A record that was kept.
type Kept = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>, usize);

impl Batch {
    fn of(batch: &BatchView<'_>) -> Self {
        batch.verify_crc().expect("undamaged");
        let records = batch.records(1 << 20).expect("readable");
        let records = records.iter().map(|record| {
            let record = record.expect("a record");
            let bytes = |field: Option<&[u8]>| field.map(<[u8]>::to_vec);
            (record.offset, record.timestamp, bytes(record.key), bytes(record.value), record.headers.len())
        });
        Self {
            offsets: [batch.base_offset(), batch.last_offset()],
            count: batch.count(),
            attributes: batch.attributes(),
            producer: (batch.producer_id(), batch.producer_epoch(), batch.base_sequence()),
            leader_epoch: batch.leader_epoch(),
            max_timestamp: batch.max_timestamp(),
            records: records.collect(),
        }
    }
}

/// Compares two folders of a partition, and returns how many batches there are, and how many of them differ in bytes.
fn compare(theirs: &Path, ours: &Path) -> (usize, usize) {
    let names = |folder: &Path| -> Vec<_> {
        logs(folder).iter().map(|path| path.file_name().expect("a name").to_owned()).collect()
    };
    assert_eq!(names(ours), names(theirs), "the segments");
    let (mut count, mut different) = (0, 0);
    for (theirs, ours) in logs(theirs).iter().zip(logs(ours)) {
        let [their_bytes, our_bytes] = [theirs, &ours].map(|path| fs::read(path).expect("a segment"));
        let [their_batches, our_batches] = [&their_bytes, &our_bytes]
            .map(|bytes| batches(bytes).map(|batch| batch.expect("a whole batch")).collect::<Vec<_>>());
        let [kept_there, kept_here] =
            [&their_batches, &our_batches].map(|all| all.iter().map(Batch::of).collect::<Vec<_>>());
        assert_eq!(kept_here, kept_there, "{}", ours.display());
        count += our_batches.len();
        for (one, other) in their_batches.iter().zip(&our_batches) {
            if one.bytes() != other.bytes() {
                different += 1;
                // Only a horizon or the output of a codec may differ.
                let has_codec = one.attributes() & 7 != 0;
                assert!(has_codec || one.delete_horizon_ms().is_some(), "{one:?} and {other:?}");
            }
        }
    }
    (count, different)
}

pub(super) fn both_compact_to_the_same_records(tools: &Tools) {
    let mut theirs = kafka(tools);
    let mut broker = ours();
    create(theirs.address(), NEVER);
    create(broker.address(), NEVER);
    run(Load::default().write(&theirs.bootstrap(), 400));
    theirs.stop();
    assert_eq!(broker.stop(Signal::TERM).code(), Some(0));
    move_partitions(&theirs.data(), broker.folder(), &folders());
    for name in COMPACTED {
        let (count, different) =
            compare(&theirs.data().join(format!("{name}-0")), &broker.folder().join(format!("{name}-0")));
        assert!(count > 40 && different == 0, "{name} has {count} batches");
    }

    theirs.restart();
    broker.restart();
    super::all_served(theirs.address());
    for (address, bootstrap, data) in [
        (theirs.address(), theirs.bootstrap(), theirs.data()),
        (broker.address(), broker.bootstrap(), broker.folder().to_owned()),
    ] {
        set_lag(address, "0");
        compacted_to(&data, &active_segments(&data));
        set_lag(address, NEVER);
        see_all(&bootstrap);
    }
    theirs.stop();
    assert_eq!(broker.stop(Signal::TERM).code(), Some(0));
    for name in COMPACTED {
        let folder = format!("{name}-0");
        let (count, different) = compare(&theirs.data().join(&folder), &broker.folder().join(&folder));
        println!("{name}: {count} batches, of which {different} differ in a horizon or in compressed bytes");
    }
}
