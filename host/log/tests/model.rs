//! Compares a log with a plain list under random operations, restarts and kills.

mod common;

use std::fs;
use std::path::Path;

use common::*;
use millstream_log::{Appended, Log, LogConfig};
use millstream_record::Codec;

/// xorshift64*: a seed gives the same operations on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// A batch that must be found again.
struct Batch {
    base_offset: i64,
    values: Vec<Vec<u8>>,
    times: Vec<i64>,
    producer: Option<Producer>,
    bytes: Vec<u8>,
}

struct World<'a> {
    dir: &'a Path,
    config: LogConfig,
    log: Log,
    batches: Vec<Batch>,
    start: i64,
    clock: i64,
    random: Random,
}

impl World<'_> {
    fn end(&self) -> i64 {
        let end = self.batches.last().map_or(0, |b| b.base_offset + b.values.len() as i64);
        end.max(self.start)
    }

    fn append(&mut self) {
        let count = 1 + self.random.below(4) as usize;
        let value = vec![self.random.below(256) as u8; self.random.below(150) as usize];
        self.clock += self.random.below(20) as i64;
        let times: Vec<i64> = (0..count).map(|_| self.clock - self.random.below(30) as i64).collect();
        let codec = [Codec::None, Codec::Lz4][self.random.below(2) as usize];
        let id = self.random.below(4) as i64;
        let last = self.batches.iter().rev().find(|b| b.producer.is_some_and(|p| p.0 == id));
        let next = last.map_or(0, |b| b.producer.map_or(0, |p| p.2) + b.values.len() as i32);
        let producer = (id > 0).then_some(Producer(id, 0, next));
        let bytes = batch_with(codec, producer, &times, &value);
        let epoch = (self.batches.len() / 10) as i32;
        let appended = append_with(&mut self.log, &bytes, epoch, self.clock).unwrap().batch();
        assert_eq!(appended.base_offset, self.end());
        self.batches.push(Batch {
            base_offset: appended.base_offset,
            values: vec![value; count],
            times,
            producer,
            bytes,
        });
    }

    /// Sends one of the last five batches of a producer again, which must be a duplicate.
    fn send_again(&mut self) {
        let id = 1 + self.random.below(3) as i64;
        let sent: Vec<&Batch> = self
            .batches
            .iter()
            .rev()
            .filter(|b| b.base_offset >= self.start && b.producer.is_some_and(|p| p.0 == id))
            .take(5)
            .collect();
        if sent.is_empty() {
            return;
        }
        let again = sent[self.random.below(sent.len() as u64) as usize];
        match append_with(&mut self.log, &again.bytes, 0, 0) {
            Ok(Appended::Duplicate(stored)) => assert_eq!(stored.base_offset, again.base_offset),
            other => panic!("{other:?} instead of a duplicate"),
        }
    }

    fn reopen(&mut self) {
        let kind = self.random.below(3);
        let mut options = unclean(self.log.recovery_point());
        if kind == 0 {
            options = clean(self.log.close_clean().unwrap());
        } else if kind == 1 {
            self.tear();
        }
        options.log_start_offset = self.start;
        self.log = open(self.dir, &self.config, options);
        if kind == 1 {
            let end = self.log.log_end_offset();
            assert!(end >= options.recovery_point, "nothing that was synced is lost");
            self.batches.retain(|b| b.base_offset + b.values.len() as i64 <= end);
        }
        assert_eq!(self.log.recovery_point(), self.log.log_end_offset());
    }

    /// Simulates a power failure: cuts any number of unsynced bytes off the active segment.
    fn tear(&mut self) {
        let active = files(self.dir, "log").pop().unwrap();
        let size = fs::metadata(&active).unwrap().len();
        let base: i64 = active.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let synced =
            match self.log.read(self.log.recovery_point().max(base).max(self.start), 1, i64::MAX, true).unwrap() {
                Some(slice) => slice.position,
                None => size,
            };
        let left = synced + self.random.below(size - synced + 1);
        fs::OpenOptions::new().write(true).open(&active).unwrap().set_len(left).unwrap();
    }

    fn truncate(&mut self) {
        if self.end() == self.start {
            return;
        }
        let to = self.start + self.random.below((self.end() - self.start) as u64 + 1) as i64;
        let end = self.log.truncate_to(to).unwrap();
        self.batches.retain(|b| b.base_offset + b.values.len() as i64 <= to);
        // The start may lie inside of the removed batch.
        self.start = self.start.min(end);
        assert_eq!(end, self.end());
    }

    fn forget(&mut self) {
        let to = self.start + self.random.below((self.end() - self.start) as u64 / 3 + 1) as i64;
        self.start = match self.random.below(2) {
            0 => self.log.delete_records(to).unwrap(),
            _ => {
                self.log.apply_retention(self.clock, self.end()).unwrap();
                self.log.log_start_offset()
            }
        };
    }

    fn check(&mut self) {
        assert_eq!((self.log.log_start_offset(), self.log.log_end_offset()), (self.start, self.end()));
        let mut expected = Vec::new();
        for batch in &self.batches {
            for (at, value) in batch.values.iter().enumerate() {
                expected.push((batch.base_offset + at as i64, batch.times[at], value.clone()));
            }
        }
        expected.retain(|(offset, _, _)| *offset >= self.start);
        let max_bytes = 1 + self.random.below(3000) as usize;
        let mut found = read_all(&self.log, self.start, max_bytes);
        found.retain(|(offset, _, _)| *offset >= self.start);
        assert_eq!(found, expected);
        let wanted = self.clock - self.random.below(400) as i64;
        let expected = expected.iter().find(|(_, time, _)| *time >= wanted);
        let found = self.log.offset_for_timestamp(wanted).unwrap();
        assert_eq!(found.map(|f| (f.offset, f.timestamp)), expected.map(|e| (e.0, e.1)));
    }
}

#[test]
fn random_work_and_random_deaths() {
    for seed in 1..=60u64 {
        let dir = tempdir();
        let config = LogConfig {
            segment_bytes: 1500,
            index_interval_bytes: 150,
            retention_bytes: Some(6000),
            retention_ms: None,
            ..LogConfig::default()
        };
        let log = open(dir.path(), &config, unclean(0));
        let random = Random(0x9e37_79b9_7f4a_7c15 ^ seed);
        let mut world = World { dir: dir.path(), config, log, batches: Vec::new(), start: 0, clock: NOW, random };
        for _ in 0..150 {
            match world.random.below(20) {
                0 => world.reopen(),
                1 => world.truncate(),
                2 => world.forget(),
                3 => drop(world.log.flush().unwrap()),
                4 => world.send_again(),
                _ => world.append(),
            }
            world.check();
        }
    }
}
