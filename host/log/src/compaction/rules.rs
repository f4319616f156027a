//! Decides what stays of a batch, as Kafka 4.2 does.
//!
//! | Batch | What stays |
//! |---|---|
//! | of an aborted transaction | nothing |
//! | a marker whose transaction has batches | the marker |
//! | another marker | the marker with a horizon; from the horizon on, nothing |
//! | any other | the last record of each key, and records that are not indexed yet |
//!
//! A tombstone stays until the horizon of its batch, which the first pass sets. A batch without records goes, but for
//! the last one of a living producer, and the last one below the end of the pass: only their headers stay.

use std::collections::HashMap;

use millstream_record::{BatchView, Codec, Records, compacted, emptied};

use super::offset_map::{KeyHash, OffsetMap};
use super::{CleanError, unreadable};
use crate::batch_walk::BatchHeader;

/// What the log knows of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LastBatch {
    /// The last offset of its last batch; `None` if only a marker is known of it.
    pub(super) last_offset: Option<i64>,
    /// Its epoch.
    pub(super) epoch: i16,
}

/// What is the same for all batches of a pass.
pub(super) struct Rules<'a> {
    pub(super) map: &'a OffsetMap,
    pub(super) now_ms: i64,
    pub(super) delete_retention_ms: i64,
    /// The offset below which the pass cleans.
    pub(super) end: i64,
    pub(super) producers: &'a HashMap<i64, LastBatch>,
}

/// What transactions say about a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is part of the log.
    Committed,
    /// It belongs to an aborted transaction.
    Aborted,
    /// It is a marker that is still needed.
    Marker,
    /// It is a marker of a transaction without batches.
    LeftoverMarker,
}

/// What decides about one record.
struct Place {
    offset: i64,
    hash: Option<KeyHash>,
    is_tombstone: bool,
}

/// What stays of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// Every byte.
    Whole,
    /// Another batch in its place.
    Part(Vec<u8>),
    /// Nothing.
    Nothing,
}

impl Rules<'_> {
    /// Returns what stays of a batch. `records` is called only if the records decide: it returns them with the codec
    /// in which a part of them is stored.
    pub(super) fn apply<'r>(
        &self,
        batch: &BatchView<'_>,
        header: &BatchHeader,
        standing: Standing,
        records: impl FnOnce() -> Result<(Records<'r>, Codec), CleanError>,
    ) -> Result<Kept, CleanError> {
        let bad = || unreadable(header.base_offset);
        let is_past_horizon = batch.delete_horizon_ms().is_some_and(|horizon| horizon <= self.now_ms);
        let drops_all = match standing {
            Standing::Committed | Standing::Marker => false,
            Standing::Aborted => true,
            Standing::LeftoverMarker => is_past_horizon,
        };
        if drops_all || header.count == 0 {
            return Ok(self.without_records(batch, header));
        }
        if header.is_control() {
            let sets_horizon = standing == Standing::LeftoverMarker && batch.delete_horizon_ms().is_none();
            if !sets_horizon {
                return Ok(Kept::Whole);
            }
            let (records, codec) = records()?;
            let marked = compacted(batch, &records, codec, Some(self.horizon()), |_, _| true).map_err(bad())?;
            return Ok(Kept::Part(marked));
        }
        // No record is indexed: nothing is known to replace one of them.
        if header.base_offset > self.map.latest() {
            return Ok(Kept::Whole);
        }
        let (records, codec) = records()?;
        let (mut places, mut kept, mut tombstones) = (Vec::new(), 0, false);
        for record in records.iter() {
            let record = record.map_err(bad())?;
            places.push(Place {
                offset: record.offset,
                hash: record.key.map(|key| self.map.hash(key)),
                is_tombstone: record.value.is_none(),
            });
        }
        let mut keeps = Vec::with_capacity(places.len());
        let hash = |place: &Place| place.hash.filter(|_| place.offset <= self.map.latest());
        self.map.get_all(&places, hash, |place, last| {
            let stays = self.keeps(place, last, is_past_horizon);
            kept += usize::from(stays);
            tombstones |= stays && place.is_tombstone;
            keeps.push(stays);
        });
        if kept == 0 {
            return Ok(self.without_records(batch, header));
        }
        let horizon = (tombstones && batch.delete_horizon_ms().is_none()).then(|| self.horizon());
        if kept == keeps.len() && horizon.is_none() {
            return Ok(Kept::Whole);
        }
        Ok(Kept::Part(compacted(batch, &records, codec, horizon, |place, _| keeps[place]).map_err(bad())?))
    }

    fn horizon(&self) -> i64 {
        self.now_ms.saturating_add(self.delete_retention_ms)
    }

    /// Returns whether a record stays; `last` is the last offset of its key. A record without a key never stays, since
    /// no later one could replace it.
    fn keeps(&self, place: &Place, last: Option<i64>, is_past_horizon: bool) -> bool {
        if place.offset > self.map.latest() {
            return true;
        }
        let is_last = place.hash.is_some() && last.is_none_or(|last| place.offset >= last);
        is_last && !(place.is_tombstone && is_past_horizon)
    }

    fn without_records(&self, batch: &BatchView<'_>, header: &BatchHeader) -> Kept {
        if !self.is_last_of_producer(header) && header.next_offset() != self.end {
            return Kept::Nothing;
        }
        let emptied = emptied(batch);
        if batch.bytes() == emptied { Kept::Whole } else { Kept::Part(emptied.to_vec()) }
    }

    /// Returns whether the state of a producer depends on a batch: on its sequence, or on the epoch of a marker.
    fn is_last_of_producer(&self, header: &BatchHeader) -> bool {
        let Some(last) = self.producers.get(&header.producer_id).filter(|_| header.producer_id >= 0) else {
            return false;
        };
        match last.last_offset {
            Some(offset) => header.last_offset() == offset,
            None => header.is_control() && header.producer_epoch == last.epoch,
        }
    }
}

#[cfg(test)]
mod tests {
    use millstream_record::{BatchBuilder, EndMarker, TimestampType};

    use super::*;

    const NOW: i64 = 1_700_000_000_000;
    const RETENTION: i64 = 6000;

    type Rows<'a> = &'a [(i64, &'a str, Option<&'a str>)];

    fn batch(producer: i64, rows: Rows<'_>, last: i64) -> Vec<u8> {
        let base = rows.first().map_or(last, |row| row.0);
        let mut batch = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
        batch.base_offset(base).producer(producer, 0, 0);
        for (offset, key, value) in rows {
            let key = (!key.is_empty()).then_some(key.as_bytes());
            batch.append_at((offset - base) as i32, NOW - 5, key, value.map(str::as_bytes), []).unwrap();
        }
        batch.last_offset_delta((last - base) as i32);
        batch.build().unwrap()
    }

    /// Returns what stays of a batch: its rows, or `None` for nothing.
    fn rows(kept: &Kept, bytes: &[u8]) -> Option<(usize, Vec<i64>, Option<i64>)> {
        let bytes = match kept {
            Kept::Whole => bytes,
            Kept::Part(bytes) => bytes.as_slice(),
            Kept::Nothing => return None,
        };
        let batch = BatchView::parse(bytes).unwrap();
        batch.verify_crc().unwrap();
        let offsets = batch.records(1000).unwrap().iter().map(|record| record.unwrap().offset).collect();
        Some((batch.size(), offsets, batch.delete_horizon_ms()))
    }

    fn apply(rules: &Rules<'_>, bytes: &[u8], standing: Standing) -> Kept {
        let batch = BatchView::parse(bytes).unwrap();
        let header = BatchHeader::parse(bytes).unwrap();
        rules.apply(&batch, &header, standing, || Ok((batch.records(1000).unwrap(), Codec::None))).unwrap()
    }

    fn map(entries: &[(&str, i64)], latest: i64) -> OffsetMap {
        let mut map = OffsetMap::new(0, 4096, 0.9);
        for (key, offset) in entries {
            assert!(map.put_all(&[(map.hash(key.as_bytes()), *offset)]));
        }
        map.indexed(latest);
        map
    }

    fn rules<'a>(map: &'a OffsetMap, now_ms: i64, producers: &'a HashMap<i64, LastBatch>) -> Rules<'a> {
        Rules { map, now_ms, delete_retention_ms: RETENTION, end: 100, producers }
    }

    #[test]
    fn the_last_record_of_each_key_stays() {
        let (map, none) = (map(&[("a", 7), ("b", 1)], 8), HashMap::new());
        let rules = rules(&map, NOW, &none);
        let bytes = batch(-1, &[(0, "a", Some("1")), (1, "b", Some("2")), (2, "", Some("3")), (3, "c", Some("4"))], 4);
        let kept = apply(&rules, &bytes, Standing::Committed);
        // A key that is not in the map has no later record.
        assert_eq!(rows(&kept, &bytes).unwrap().1, [1, 3]);
        let Kept::Part(part) = kept else { panic!("{kept:?}") };
        let part = BatchView::parse(&part).unwrap();
        assert_eq!((part.base_offset(), part.last_offset(), part.count()), (0, 4, 2));
        // What is not indexed yet stays as it is, without a look at it.
        let later = batch(-1, &[(9, "a", Some("1")), (10, "", Some("2"))], 10);
        let batch = BatchView::parse(&later).unwrap();
        let unread = || -> Result<_, CleanError> { panic!("it was read") };
        let header = BatchHeader::parse(&later).unwrap();
        assert_eq!(rules.apply(&batch, &header, Standing::Committed, unread).unwrap(), Kept::Whole);
    }

    #[test]
    fn a_tombstone_goes_after_its_horizon() {
        let (map, none) = (map(&[("a", 0), ("b", 1)], 8), HashMap::new());
        let bytes = batch(-1, &[(0, "a", None), (1, "b", Some("2"))], 1);
        let Kept::Part(marked) = apply(&rules(&map, NOW, &none), &bytes, Standing::Committed) else { panic!() };
        assert_eq!(rows(&Kept::Whole, &marked).unwrap().1, [0, 1]);
        assert_eq!(BatchView::parse(&marked).unwrap().delete_horizon_ms(), Some(NOW + RETENTION));
        let at = |now| apply(&rules(&map, now, &none), &marked, Standing::Committed);
        assert_eq!(at(NOW + RETENTION - 1), Kept::Whole);
        let (_, offsets, horizon) = rows(&at(NOW + RETENTION), &marked).unwrap();
        assert_eq!((offsets, horizon), (vec![1], Some(NOW + RETENTION)));
        // With nothing else in it the batch goes.
        let alone = batch(-1, &[(0, "a", None)], 0);
        let Kept::Part(marked) = apply(&rules(&map, NOW, &none), &alone, Standing::Committed) else { panic!() };
        assert_eq!(apply(&rules(&map, NOW + RETENTION, &none), &marked, Standing::Committed), Kept::Nothing);
    }

    #[test]
    fn a_header_stays_for_a_producer_and_at_the_end() {
        let map = map(&[("a", 50)], 60);
        let producers = HashMap::from([(5, LastBatch { last_offset: Some(3), epoch: 0 })]);
        let rules = rules(&map, NOW, &producers);
        let old = |producer, last| batch(producer, &[(last, "a", Some("1"))], last);
        let size = |bytes: &[u8]| rows(&apply(&rules, bytes, Standing::Committed), bytes).map(|kept| kept.0);
        assert_eq!(size(&old(5, 2)), None);
        assert_eq!(size(&old(5, 3)), Some(61));
        assert_eq!(size(&old(6, 3)), None);
        assert_eq!(size(&old(-1, 3)), None);
        let Kept::Part(header) = apply(&rules, &old(5, 3), Standing::Committed) else { panic!() };
        assert_eq!(apply(&rules, &header, Standing::Committed), Kept::Whole, "it stays as it is");
        // The last batch below the end, so that the next pass knows that nothing is missing.
        let end = Rules { end: 31, ..rules };
        assert_eq!(apply(&end, &old(-1, 29), Standing::Committed), Kept::Nothing);
        assert!(matches!(apply(&end, &old(-1, 30), Standing::Committed), Kept::Part(_)));
    }

    #[test]
    fn an_aborted_batch_goes_whatever_its_keys() {
        let (map, none) = (map(&[("a", 50)], 60), HashMap::new());
        let bytes = batch(1, &[(20, "z", Some("1"))], 20);
        assert_eq!(apply(&rules(&map, NOW, &none), &bytes, Standing::Aborted), Kept::Nothing);
        let producers = HashMap::from([(1, LastBatch { last_offset: Some(20), epoch: 0 })]);
        let Kept::Part(header) = apply(&rules(&map, NOW, &producers), &bytes, Standing::Aborted) else { panic!() };
        assert_eq!(header.len(), 61);
    }

    #[test]
    fn a_marker_goes_in_three_passes() {
        let (map, none) = (map(&[], 60), HashMap::new());
        let bytes = EndMarker { is_commit: true, coordinator_epoch: 3 }.batch(7, 2, NOW - 9);
        assert_eq!(apply(&rules(&map, NOW, &none), &bytes, Standing::Marker), Kept::Whole);
        let Kept::Part(marked) = apply(&rules(&map, NOW, &none), &bytes, Standing::LeftoverMarker) else { panic!() };
        let view = BatchView::parse(&marked).unwrap();
        assert_eq!((bytes.len(), view.size(), view.attributes()), (78, 79, 112));
        assert_eq!(view.delete_horizon_ms(), Some(NOW + RETENTION));
        assert_eq!(EndMarker::of(&view).map(|marker| marker.coordinator_epoch), Some(3));
        assert_eq!(apply(&rules(&map, NOW + 1, &none), &marked, Standing::LeftoverMarker), Kept::Whole);
        let late = NOW + RETENTION;
        assert_eq!(apply(&rules(&map, late, &none), &marked, Standing::LeftoverMarker), Kept::Nothing);
        assert_eq!(apply(&rules(&map, late, &none), &marked, Standing::Marker), Kept::Whole);
        // All that is known of the producer is this epoch.
        for (epoch, size) in [(2, Some(61)), (3, None)] {
            let producers = HashMap::from([(7, LastBatch { last_offset: None, epoch })]);
            let kept = apply(&rules(&map, late, &producers), &marked, Standing::LeftoverMarker);
            assert_eq!(rows(&kept, &marked).map(|kept| kept.0), size);
        }
    }
}
