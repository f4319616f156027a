//! Producers that note what was acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use millstream_client::{Delivery, Producer, ProducerConfig, ProducerRecord};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// The records that a producer has on their way.
const IN_FLIGHT_MAX: usize = 5000;

/// The errors that a producer notes.
const ERRORS_MAX: usize = 5;

/// The keys of a producer.
pub(crate) const KEYS: u64 = 20;

/// A record and its fate.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) producer: usize,
    pub(crate) number: u64,
    /// Where it was stored; `None` if the producer got an error, so that it may be stored or not.
    pub(crate) stored: Option<(i32, i64)>,
}

impl Sent {
    /// Returns the value of a record.
    pub(crate) fn value(producer: usize, number: u64) -> String {
        format!("{producer}:{number}")
    }
}

/// What one producer has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) sent: Vec<Sent>,
    pub(crate) errors: Vec<String>,
    /// The longest time between two acknowledgements.
    pub(crate) longest_gap: Duration,
}

/// What the producers share with the test.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// The number of acknowledged records.
    acknowledged: AtomicUsize,
}

/// Producers that run until they are stopped.
pub(crate) struct Workload {
    shared: Arc<Shared>,
    producers: Vec<JoinHandle<Seen>>,
}

impl Workload {
    /// Starts idempotent producers that send to a topic, each this many records in a second.
    pub(crate) fn start(bootstrap: &str, topic: &str, producers: usize, rate: u32) -> Self {
        Self::start_with(bootstrap, topic, producers, rate, |_| {})
    }

    /// Starts producers with other configs.
    pub(crate) fn start_with(
        bootstrap: &str,
        topic: &str,
        producers: usize,
        rate: u32,
        configure: impl Fn(&mut ProducerConfig),
    ) -> Self {
        let shared = Arc::<Shared>::default();
        let producers = (0..producers).map(|id| {
            let (shared, topic) = (Arc::clone(&shared), topic.to_owned());
            let mut config = ProducerConfig::new(bootstrap);
            config.linger = Duration::from_millis(1);
            configure(&mut config);
            tokio::spawn(async move { produce(id, config, &topic, rate, shared).await })
        });
        Self { producers: producers.collect(), shared }
    }

    /// Returns how many records are acknowledged by now.
    pub(crate) fn acknowledged(&self) -> usize {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Stops the producers, and waits for the fate of every record.
    pub(crate) async fn stop(self) -> Vec<Seen> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut seen = Vec::new();
        for producer in self.producers {
            seen.push(producer.await.expect("a producer does not panic"));
        }
        seen
    }
}

async fn produce(id: usize, config: ProducerConfig, topic: &str, rate: u32, shared: Arc<Shared>) -> Seen {
    let producer = Producer::builder(config).build().expect("a producer");
    let (under_way, deliveries) = mpsc::channel(IN_FLIGHT_MAX);
    let settled = tokio::spawn(settle(id, deliveries, Arc::clone(&shared)));
    let mut errors = Vec::new();
    let begun = Instant::now();
    let mut number = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let due = begun + Duration::from_secs(1) * u32::try_from(number).expect("a short run") / rate;
        sleep(due.saturating_duration_since(Instant::now())).await;
        let (key, value) = (format!("{id}-{}", number % KEYS), Sent::value(id, number));
        match producer.send(ProducerRecord::new(topic).key(key.as_bytes()).value(value.as_bytes())).await {
            Ok(delivery) => under_way.send((number, delivery)).await.expect("the other task runs"),
            Err(error) => errors.push(error.to_string()),
        }
        number += 1;
    }
    drop(under_way);
    let mut seen = settled.await.expect("no panic");
    producer.close(Duration::from_secs(10)).await.expect("everything is settled");
    seen.errors.extend(errors);
    seen
}

/// Waits for the fate of records in the order of sending.
async fn settle(producer: usize, mut deliveries: mpsc::Receiver<(u64, Delivery)>, shared: Arc<Shared>) -> Seen {
    let mut seen = Seen::default();
    let (started, mut acknowledged) = (Instant::now(), None::<Instant>);
    while let Some((number, delivery)) = deliveries.recv().await {
        let stored = match delivery.await {
            Ok(stored) => {
                let now = Instant::now();
                let gap = acknowledged.replace(now).map_or(Duration::ZERO, |before| now - before);
                seen.longest_gap = seen.longest_gap.max(gap);
                shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                Some((stored.partition, stored.offset))
            }
            Err(error) => {
                if seen.errors.len() < ERRORS_MAX {
                    let at = started.elapsed();
                    seen.errors.push(format!("record {number} of producer {producer} after {at:?}: {error}"));
                }
                None
            }
        };
        seen.sent.push(Sent { producer, number, stored });
    }
    seen
}
