//! Counts the batches that stages reject, by topic and producer. Rejections use up an idempotent producer of
//! librdkafka: after about 32,767 of them it fails for good records too. A producer with many rejections is therefore
//! logged, and listed by `millstream plugin stats`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use millstream_registry::RejectedProducer;
use millstream_wire::Str;
use parking_lot::Mutex;

/// The most producers that are counted. The one with the oldest last rejection makes room for another.
const PRODUCERS_MAX: usize = 1_000;

/// The most producers that are listed.
const LISTED_MAX: usize = 100;

/// The counts at which a producer is logged; after the last one, each multiple of it.
const LOGGED_AT: [u64; 4] = [100, 1_000, 10_000, 30_000];

/// The least time between two lines about producers.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// The producers whose batches were rejected. Only a rejection takes the lock.
#[derive(Debug, Default)]
pub(crate) struct RejectedProducers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By topic and producer id; -1 stands for all producers without an id.
    producers: HashMap<(Str, i64), Counts>,
    logged: Option<Instant>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    batches: u64,
    records: u64,
    last_ms: i64,
}

impl RejectedProducers {
    /// Counts a batch with `records` rejected records. Logs the producer if it has many of them.
    pub(crate) fn add(&self, topic: &Str, producer_id: i64, records: u64, now_ms: i64, reason: &str) {
        let Some(batches) = self.count(topic, producer_id, records, now_ms, Instant::now()) else { return };
        tracing::warn!(
            topic = topic.as_str(),
            producer_id,
            batches,
            reason,
            "the batches of a producer are rejected again and again. An idempotent producer of librdkafka fails for \
             good records, too, after about 32,767 rejections; stage.admit.failure.policy=skip or dead-letter \
             avoids that"
        );
    }

    /// Counts a batch. Returns the count of the producer's batches if it should be logged.
    fn count(&self, topic: &Str, producer_id: i64, records: u64, now_ms: i64, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        let key = (topic.clone(), producer_id);
        if state.producers.len() >= PRODUCERS_MAX && !state.producers.contains_key(&key) {
            let oldest = state.producers.iter().min_by_key(|(_, counts)| counts.last_ms);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                state.producers.remove(&oldest);
            }
        }
        let counts = state.producers.entry(key).or_default();
        counts.batches += 1;
        counts.records += records;
        counts.last_ms = now_ms;
        let batches = counts.batches;
        let is_due = state.logged.is_none_or(|logged| now.duration_since(logged) >= LOG_INTERVAL);
        if !is_due || !is_logged_at(batches) {
            return None;
        }
        state.logged = Some(now);
        Some(batches)
    }

    /// Returns the producers with the most rejected batches, as the JSON of `plugin.rejected.producers`.
    pub(crate) fn to_json(&self) -> String {
        let mut listed: Vec<RejectedProducer> = self
            .0
            .lock()
            .producers
            .iter()
            .map(|((topic, producer_id), counts)| RejectedProducer {
                topic: topic.as_str().to_owned(),
                producer_id: *producer_id,
                batches: counts.batches,
                records: counts.records,
                last_ms: counts.last_ms,
            })
            .collect();
        listed.sort_by(|one, other| {
            (other.batches, &one.topic, one.producer_id).cmp(&(one.batches, &other.topic, other.producer_id))
        });
        listed.truncate(LISTED_MAX);
        serde_json::to_string(&listed).expect("counts are plain data")
    }
}

fn is_logged_at(batches: u64) -> bool {
    let last = LOGGED_AT[LOGGED_AT.len() - 1];
    LOGGED_AT.contains(&batches) || (batches > last && batches.is_multiple_of(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(producers: &RejectedProducers) -> Vec<RejectedProducer> {
        serde_json::from_str(&producers.to_json()).expect("a list")
    }

    #[test]
    fn a_producer_is_logged_at_growing_counts() {
        let (producers, topic, start) = (RejectedProducers::default(), Str::from("lines"), Instant::now());
        let seconds = |second| start + Duration::from_secs(second);
        let logged: Vec<u64> =
            (0..70_000).filter_map(|batch| producers.count(&topic, 7, 2, 0, seconds(batch))).collect();
        assert_eq!(logged, [100, 1_000, 10_000, 30_000, 60_000]);
        assert_eq!(producers.count(&topic, 8, 1, 5, start), None);
        let all = listed(&producers);
        assert_eq!((all[0].producer_id, all[0].batches, all[0].records), (7, 70_000, 140_000));
        assert_eq!((all[1].producer_id, all[1].batches, all[1].last_ms), (8, 1, 5));
    }

    #[test]
    fn many_producers_are_logged_once_a_second() {
        let (producers, topic, start) = (RejectedProducers::default(), Str::from("lines"), Instant::now());
        let all = (0..100).flat_map(|_| 0..50);
        assert_eq!(all.filter(|id| producers.count(&topic, *id, 1, 0, start).is_some()).count(), 1);
    }

    #[test]
    fn the_number_of_producers_is_limited() {
        let (producers, topic, start) = (RejectedProducers::default(), Str::from("lines"), Instant::now());
        for id in 0..2_000 {
            producers.count(&topic, id, 1, id, start);
        }
        assert_eq!(producers.0.lock().producers.len(), PRODUCERS_MAX);
        assert_eq!(listed(&producers).len(), LISTED_MAX);
        assert!(producers.0.lock().producers.contains_key(&(topic, 1_999)));
    }
}
