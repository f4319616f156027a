//! What readers of committed records see, and whether it is what the producers know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millstream_log::Log;
use millstream_record::{BatchView, EndMarker, batches};

use super::Bug;
use super::world::{Claim, Counts, DATA, Sent, World};
use crate::group::CONSUMER_OFFSETS;
use crate::transaction::model::TopicPartition;
use crate::transaction::records::TRANSACTION_STATE;

/// Returns the values that a consumer with `isolation.level=read_committed` delivers from a log, and the number of
/// values that it leaves out.
fn delivered(log: &Log, high_watermark: i64, bug: Bug) -> (Vec<String>, usize) {
    let end = match bug {
        Bug::StableIsHighWatermark => high_watermark,
        _ => log.last_stable_offset(high_watermark),
    };
    let (mut values, mut left_out) = (Vec::new(), 0);
    let mut offset = log.log_start_offset();
    while let Some(slice) = log.read(offset, usize::MAX, end, true).expect("a sound log") {
        let aborted = log.reader().aborted_transactions(&slice).expect("a sound index");
        let mut later = aborted.iter().peekable();
        let mut open = BTreeSet::new();
        let bytes = slice.read_to_bytes().expect("a sound disk");
        for batch in batches(&bytes) {
            let batch: BatchView<'_> = batch.expect("a whole batch");
            while let Some(begun) = later.next_if(|aborted| aborted.first_offset <= batch.base_offset()) {
                open.insert(begun.producer_id);
            }
            offset = batch.next_offset();
            if batch.is_control() {
                if EndMarker::of(&batch).is_some_and(|marker| !marker.is_commit) {
                    open.remove(&batch.producer_id());
                }
                continue;
            }
            let records = batch.records(1 << 20).expect("records");
            for record in records.iter() {
                let value = record.expect("a record").value.expect("a value");
                if open.contains(&batch.producer_id()) {
                    left_out += 1;
                } else {
                    values.push(String::from_utf8(value.to_vec()).expect("text"));
                }
            }
        }
    }
    (values, left_out)
}

/// Returns the transaction that a value is of.
fn transaction_of(value: &str) -> usize {
    value.split(':').next().and_then(|number| number.parse().ok()).expect("a value of a producer")
}

/// Reads all partitions as consumers do while things go wrong. What they see has to stay.
pub(super) fn read_committed(world: &World) {
    let (bug, mut state) = (world.bug, world.state.lock());
    let mut seen = BTreeSet::new();
    for (_, one) in state.partitions.iter_mut().filter(|((topic, _), _)| &**topic == DATA) {
        let high_watermark = one.high_watermark();
        seen.extend(delivered(one.log(), high_watermark, bug).0.iter().map(|value| transaction_of(value)));
    }
    state.seen.extend(seen);
}

/// Checks all promises, once all faults have stopped.
pub(super) fn check(world: &Arc<World>) -> Result<(), String> {
    world.wrong()?;
    let (mut times, mut left_out) = (BTreeMap::<String, usize>::new(), 0);
    let (sent, seen) = {
        let (bug, mut state) = (world.bug, world.state.lock());
        for (place, one) in &mut state.partitions {
            let high_watermark = one.high_watermark();
            check_end(place, one.log(), high_watermark)?;
            if &*place.0 == DATA {
                let (values, aborted) = delivered(one.log(), high_watermark, bug);
                values.into_iter().for_each(|value| *times.entry(value).or_default() += 1);
                left_out += aborted;
            }
        }
        (state.sent.clone(), state.seen.clone())
    };
    if let Some((value, count)) = times.iter().find(|(_, count)| **count > 1) {
        return Err(format!("{value} is visible {count} times"));
    }
    let visible: BTreeSet<usize> = times.keys().map(|value| transaction_of(value)).collect();
    if let Some(number) = seen.difference(&visible).next() {
        return Err(format!("a reader saw records of transaction {number}, which is aborted: {:?}", sent[*number]));
    }
    for (number, sent) in sent.iter().enumerate() {
        check_transaction(number, sent, &times)?;
    }
    check_offsets(world, &sent, &visible)?;
    check_ended(world, &sent)?;
    world.count(|counts| count(counts, &sent, left_out));
    Ok(())
}

/// Checks that readers of committed records get to the end of a log.
fn check_end(place: &TopicPartition, log: &Log, high_watermark: i64) -> Result<(), String> {
    let (stable, end) = (log.last_stable_offset(high_watermark), log.log_end_offset());
    if stable == end {
        return Ok(());
    }
    let open: Vec<_> = log.producers().into_iter().filter(|producer| producer.transaction_start.is_some()).collect();
    Err(format!("{place:?} is not read to its end: LSO {stable}, HW {high_watermark}, end {end}, open: {open:?}"))
}

fn check_transaction(number: usize, sent: &Sent, times: &BTreeMap<String, usize>) -> Result<(), String> {
    let prefix = format!("{number}:");
    let visible: Vec<_> = times.keys().filter(|value| value.starts_with(&prefix)).collect();
    let missing = sent.values.iter().filter(|value| !times.contains_key(*value)).count();
    let is_whole = missing == 0 && visible.len() == sent.values.len();
    let wrong = match sent.claim {
        Claim::Committed if !is_whole => "is committed, and its records are not those that were acknowledged",
        Claim::Aborted | Claim::Open if !visible.is_empty() => "is aborted, and has visible records",
        Claim::Unknown if !visible.is_empty() && !is_whole => "is torn",
        _ => return Ok(()),
    };
    Err(format!("transaction {number} {wrong}: {sent:?}, visible: {visible:?}"))
}

/// Checks that each group has the offset of the last transaction with offsets that is committed.
fn check_offsets(world: &World, sent: &[Sent], visible: &BTreeSet<usize>) -> Result<(), String> {
    let mut expected = BTreeMap::<&Arc<str>, usize>::new();
    for (number, one) in sent.iter().enumerate() {
        let last = expected.entry(&one.id).or_default();
        if one.has_offsets && visible.contains(&number) {
            *last = number;
        }
    }
    for (id, number) in expected {
        let leader = world.coordinator(CONSUMER_OFFSETS, id);
        let groups = world.broker(leader).groups;
        let fetched = groups.fetch_offsets(id, &[(Arc::from(DATA), 0)]).map_err(|error| format!("{id}: {error}"))?;
        let found = fetched.get(DATA).and_then(|partitions| partitions.get(&0)).map(|found| found.offset);
        let expected = i64::try_from(number).ok().filter(|number| *number > 0);
        if found.filter(|found| *found > 0) != expected {
            return Err(format!("the offset of group {id} is {found:?}, that of its last transaction is {expected:?}"));
        }
        let unstable = groups.unstable_offsets(id).map_err(|error| format!("{id}: {error}"))?;
        if !unstable.is_empty() {
            return Err(format!("group {id} still has offsets of an open transaction: {unstable:?}"));
        }
    }
    Ok(())
}

/// Checks that no transaction is open or half done at its coordinator.
fn check_ended(world: &World, sent: &[Sent]) -> Result<(), String> {
    for id in sent.iter().map(|sent| &sent.id).collect::<BTreeSet<_>>() {
        let coordinator = world.broker(world.coordinator(TRANSACTION_STATE, id)).transactions;
        let state = coordinator.describe(id).map_err(|error| format!("{id}: {error}"))?.state;
        if !state.is_idle() {
            return Err(format!("the last transaction of {id} stays {}", state.name()));
        }
    }
    Ok(())
}

fn count(counts: &mut Counts, sent: &[Sent], aborted_records: usize) {
    let of = |claim| sent.iter().filter(|sent| sent.claim == claim).count();
    counts.committed = of(Claim::Committed);
    counts.aborted = of(Claim::Aborted);
    counts.unknown = of(Claim::Unknown);
    counts.offsets = sent.iter().filter(|sent| sent.has_offsets).count();
    counts.aborted_records = aborted_records;
}
