//! A fetch that names a view, or a topic with batches that a client does not read as they lie. It looks at its source
//! piece by piece, on threads that may block, until it has what the client asked for or the request's time is over;
//! then it waits for news as every fetch does, and goes on from where it was.

use std::sync::Arc;
use std::time::Duration;

use millstream_partition::{Arrival, Partition, PartitionRead};
use tokio::time::Instant;

use super::{Pass, Plan, Registered, Target, ZSTD_SINCE};
use crate::blocking::blocking;
use crate::broker::Broker;
use crate::edge::view::scan::{Progress, Scan, StepLimits};
use crate::edge::{ServedTopic, write_of_views};
use crate::error::ApiError;
use crate::net::send_queue::Outgoing;
use crate::net::types::Close;

/// How much of the source one step looks at, bytes. A turn lasts for as long as that takes.
const STEP_BYTES: usize = 1 << 20;

/// The same, where a request has many partitions.
const STEP_BYTES_MIN: usize = 64 << 10;

/// How much the first steps of a request look at together, bytes: every partition gets one, however little time there
/// is.
const ROUND_BYTES: usize = 16 << 20;

/// How long the first steps of a request may take, if it does not give more time itself.
const FIRST_ROUND: Duration = Duration::from_secs(5);

/// How much one request looks at, bytes. The client then gets an offset to go on from, which is not lost if it goes
/// away.
const REQUEST_BYTES_MAX: usize = 256 << 20;

/// How much one request shows of its views, bytes, but for a first batch that is larger. It is all in memory until it
/// is sent.
const SHOWN_BYTES_MAX: usize = 4 << 20;

/// The scans of a request, one for each partition of a view.
struct Scans {
    /// By the place of the target.
    scans: Vec<Option<Scan>>,
    step_bytes: usize,
    /// How much more may be looked at.
    left: usize,
}

/// Answers a fetch that names views.
pub(super) async fn poll(broker: Arc<Broker>, fetch: Plan, max_wait: Duration) -> Result<Option<Outgoing>, Close> {
    let deadline = Instant::now() + max_wait;
    let mut scans = Scans::of(&fetch);
    // Every partition has its step, also in a request without any time; behind a slow filter there is not one for
    // everybody.
    let mut until = deadline.max(Instant::now() + FIRST_ROUND);
    loop {
        let arrival = Arrival::new(fetch.min_bytes);
        let registered = Registered::new(&fetch, &arrival);
        scans.round(&broker, &fetch, until).await;
        let pass = fetch.pass_beside(&scans);
        let is_over = scans.left == 0 || Instant::now() >= deadline;
        if is_over || scans.any_done() || fetch.is_enough(&pass) {
            drop(registered);
            return fetch.answer(scans.fill(pass)).map(Some);
        }
        until = deadline;
        if !scans.any_behind() {
            arrival.count(pass.bytes);
            // Who comes back too late answers with what is there.
            let _ = tokio::time::timeout_at(deadline, arrival.enough()).await;
            scans.resume();
        }
    }
}

impl Scans {
    fn of(fetch: &Plan) -> Self {
        let scans = fetch.topics.iter().flat_map(|topic| {
            topic.targets.iter().map(move |target| {
                topic.is_scanned.then(|| {
                    let mut scan = Scan::new(target.offset);
                    let checked = target.partition.as_ref().map_err(Clone::clone);
                    if let Err(error) = checked.and_then(|partition| Ok(partition.check_epoch(target.leader_epoch)?)) {
                        scan.stop(error);
                    }
                    scan
                })
            })
        });
        let scans: Vec<Option<Scan>> = scans.collect();
        let count = scans.iter().flatten().count().max(1);
        let step_bytes = (ROUND_BYTES / count).clamp(STEP_BYTES_MIN, STEP_BYTES);
        Self { scans, step_bytes, left: REQUEST_BYTES_MAX }
    }

    /// One step for every scan that is behind.
    async fn round(&mut self, broker: &Arc<Broker>, fetch: &Plan, until: Instant) {
        let mut place = 0;
        for topic in &fetch.topics {
            for target in &topic.targets {
                let at = place;
                place += 1;
                let Some(view) = topic.served.as_ref().filter(|_| topic.is_scanned) else { continue };
                let Ok(partition) = &target.partition else { continue };
                if Instant::now() >= until {
                    return;
                }
                let limits = self.limits(broker, fetch, target.max_bytes, at);
                self.step(broker, at, view, partition, limits, until).await;
            }
        }
    }

    fn limits(&self, broker: &Broker, fetch: &Plan, max_bytes: usize, at: usize) -> StepLimits {
        let own = self.scans[at].as_ref().map_or(0, Scan::shown_bytes);
        let others = self.shown_bytes() - own;
        let left = fetch.max_bytes.min(SHOWN_BYTES_MAX).saturating_sub(others);
        StepLimits {
            read_bytes: self.step_bytes,
            shown_bytes: max_bytes.min(left),
            at_least_one: others == 0,
            decompressed_bytes: broker.config.request_max_bytes,
            zstd: fetch.context.version >= ZSTD_SINCE,
        }
    }

    async fn step(
        &mut self,
        broker: &Arc<Broker>,
        at: usize,
        view: &ServedTopic,
        partition: &Arc<Partition>,
        limits: StepLimits,
        until: Instant,
    ) {
        let Some(slot) = self.scans[at].as_mut().filter(|scan| *scan.progress() == Progress::Behind) else { return };
        // The filters of now: they may have changed while the fetch waited, or the view is gone.
        let found = broker.topics.load().by_id(view.id).cloned();
        let Some(topic) = found else { return slot.stop(ApiError::unknown_topic()) };
        // Most fetches that wait find nothing new: that needs no turn and no thread.
        if slot.is_at_end(partition) {
            return;
        }
        let permits = match (&topic.edge.view, &topic.edge.decoders) {
            (Some(view), _) => Some(&view.permits),
            (None, decoders) => decoders.as_ref().map(|decoders| &decoders.permits),
        };
        let permit = match permits {
            None => None,
            Some(permits) => {
                let Ok(permit) = tokio::time::timeout_at(until, permits.take()).await else { return };
                Some(permit)
            }
        };
        let (offset, partition) = (slot.next(), Arc::clone(partition));
        let mut scan = std::mem::replace(slot, Scan::new(offset));
        let edge = Arc::clone(&broker.edge);
        let done = blocking(move || {
            let layers = topic.edge.view.as_ref().map_or(&[][..], |view| &view.layers);
            let looked_at = scan.step(&edge, &partition, layers, &limits);
            // The permit moves with the work, so that it lasts if the client disconnects.
            drop(permit);
            (scan, looked_at)
        });
        match done.await {
            Ok((mut scan, looked_at)) => {
                write_letters(broker, &mut scan).await;
                *slot = scan;
                self.left = self.left.saturating_sub(looked_at);
            }
            Err(error) => slot.stop(error),
        }
    }

    fn shown_bytes(&self) -> usize {
        self.scans.iter().flatten().map(Scan::shown_bytes).sum()
    }

    fn any_behind(&self) -> bool {
        self.scans.iter().flatten().any(|scan| *scan.progress() == Progress::Behind)
    }

    /// Whether waiting brings a partition nothing more.
    fn any_done(&self) -> bool {
        let is_done = |scan: &Scan| matches!(scan.progress(), Progress::Full | Progress::Stopped(_));
        self.scans.iter().flatten().any(is_done)
    }

    fn resume(&mut self) {
        self.scans.iter_mut().flatten().for_each(Scan::resume);
    }

    /// Puts what the views show into the answer.
    fn fill(self, mut pass: Pass) -> Pass {
        pass.shown = self.scans.into_iter().map(|scan| scan.map(Scan::into_records)).collect();
        pass
    }
}

/// Writes the dead letters of a step. Without them, the step is taken back from the first batch with such letters on.
async fn write_letters(broker: &Broker, scan: &mut Scan) {
    let letters = scan.take_letters();
    if letters.is_empty() {
        return;
    }
    match write_of_views(&broker.edge, &broker.changes, letters).await {
        Ok(()) => scan.letters_written(),
        Err(error) => scan.letters_failed(error),
    }
}

impl Plan {
    /// What there is beside the views, and what they show.
    fn pass_beside(&self, scans: &Scans) -> Pass {
        let shown = scans.shown_bytes();
        let mut left = self.max_bytes.saturating_sub(shown);
        let mut pass = Pass { results: Vec::new(), bytes: shown, failed: false, shown: Vec::new() };
        for ((topic, target), scan) in self.targets().zip(&scans.scans) {
            let result = match scan {
                Some(scan) => target.ends(scan),
                None => topic.read(target, left.min(target.max_bytes), pass.bytes == 0),
            };
            left = left.saturating_sub(pass.add(result));
        }
        pass
    }
}

impl Target {
    /// The ends of the source beside what a view shows of it.
    fn ends(&self, scan: &Scan) -> Result<PartitionRead, ApiError> {
        if let Some(error) = scan.error() {
            return Err(error.clone());
        }
        let source = self.partition.as_ref().map_err(Clone::clone)?;
        let log_start_offset = source.reader()?.log_start_offset();
        let high_watermark = source.high_watermark();
        Ok(PartitionRead { slice: None, log_start_offset, high_watermark })
    }
}
