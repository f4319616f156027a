//! A fetch that names a view, or a topic whose batches are not sent as they are stored. It scans its source in steps,
//! on threads that may block, until it has the requested bytes or its time is over. Then it waits for new records like
//! every fetch, and continues where it was.

use std::sync::Arc;
use std::time::Duration;

use millstream_partition::{Partition, PartitionRead};
use tokio::time::Instant;

use super::long_poll::{LongPoll, Registered};
use super::{Pass, Plan, Target, ZSTD_SINCE};
use crate::blocking::blocking;
use crate::broker::Broker;
use crate::edge::view::scan::{Progress, Scan, StepLimits};
use crate::edge::{ServedTopic, write_of_views};
use crate::error::ApiError;
use crate::net::message_memory::Share;
use crate::net::send_queue::Outgoing;
use crate::net::types::Close;

/// The bytes of the source that one step scans. A step holds a permit for that long.
const STEP_BYTES: usize = 1 << 20;

/// The memory of a step, for each of these bytes: what it reads, and what it shows of it.
const STEP_FACTOR: usize = 2;

/// The same, for a request with many partitions.
const STEP_BYTES_MIN: usize = 64 << 10;

/// The bytes that the first steps of a request scan together. Every partition gets a step, even if the time is short.
const ROUND_BYTES: usize = 16 << 20;

/// The longest time of the first steps of a request, if its own max wait is shorter.
const FIRST_ROUND: Duration = Duration::from_secs(5);

/// The bytes that one request scans. The client then gets an offset to continue at, which is kept even if it
/// disconnects.
const REQUEST_BYTES_MAX: usize = 256 << 20;

/// The bytes that one request shows of its views, except for a first batch that is larger. They are in memory until
/// they are sent.
const SHOWN_BYTES_MAX: usize = 4 << 20;

/// The scans of a request, one for each partition of a view.
struct Scans {
    /// By the index of the target.
    scans: Vec<Option<Scan>>,
    step_bytes: usize,
    /// The bytes that may still be scanned.
    left: usize,
    /// The share of the request. It covers what is shown, and in a step also what the step may add.
    share: Share,
    /// The bytes of the share that are for the request.
    request_bytes: usize,
}

/// Responds to a fetch that names views.
pub(super) async fn poll(broker: Arc<Broker>, mut fetch: Plan, max_wait: Duration) -> Result<Option<Outgoing>, Close> {
    let deadline = Instant::now() + max_wait;
    let mut scans = Scans::of(&mut fetch);
    // Every partition gets a step, even if the request has no max wait. Behind a slow filter there may be no time for
    // all.
    let mut until = deadline.max(Instant::now() + FIRST_ROUND);
    loop {
        let arrival = fetch.arrival();
        let registered = Registered::new(&fetch, &arrival);
        scans.round(&broker, &fetch, until).await;
        let pass = fetch.pass_beside(&scans);
        let is_over = scans.left == 0 || Instant::now() >= deadline;
        if is_over || scans.any_done() || fetch.is_enough(&pass) {
            drop(registered);
            let pass = scans.fill(pass, &mut fetch);
            return fetch.respond(pass).map(Some);
        }
        until = deadline;
        if !scans.any_behind() {
            arrival.count(pass.bytes);
            // After the deadline the response has what is there.
            let _ = tokio::time::timeout_at(deadline, arrival.enough()).await;
            scans.resume();
        }
    }
}

impl Scans {
    fn of(fetch: &mut Plan) -> Self {
        let share = std::mem::take(&mut fetch.context.share);
        let fetch = &*fetch;
        let scans = fetch.topics.iter().flat_map(|topic| {
            topic.targets.iter().map(move |target| {
                (topic.is_scanned && target.preferred.is_none()).then(|| {
                    let mut scan = Scan::new(target.offset, fetch.read_committed);
                    let checked = target.partition.as_ref().map_err(Clone::clone);
                    if let Err(error) = checked.and_then(|partition| topic.check(target, partition)) {
                        scan.stop(error);
                    }
                    scan
                })
            })
        });
        let scans: Vec<Option<Scan>> = scans.collect();
        let count = scans.iter().flatten().count().max(1);
        let step_bytes = (ROUND_BYTES / count).clamp(STEP_BYTES_MIN, STEP_BYTES);
        let request_bytes = share.bytes();
        Self { scans, step_bytes, left: REQUEST_BYTES_MAX, share, request_bytes }
    }

    /// Runs one step of every scan that is behind.
    async fn round(&mut self, broker: &Arc<Broker>, fetch: &Plan, until: Instant) {
        let mut place = 0;
        for topic in &fetch.topics {
            for target in &topic.targets {
                let at = place;
                place += 1;
                let Some(view) = topic.served.as_ref().filter(|_| self.scans[at].is_some()) else { continue };
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
        let shown = self.shown_bytes();
        let Some(slot) = self.scans[at].as_mut().filter(|scan| *scan.progress() == Progress::Behind) else { return };
        // The current filters: they may have changed while the fetch waited, or the view was deleted.
        let found = broker.topics.load().by_id(view.id).cloned();
        let Some(topic) = found else { return slot.stop(ApiError::unknown_topic()) };
        // Most fetches that wait find nothing new, which needs neither a permit nor a thread.
        if slot.is_at_end(partition) {
            return;
        }
        let bytes = self.request_bytes + shown + STEP_FACTOR * self.step_bytes;
        let taken = broker.message_memory.cover(&mut self.share, bytes);
        let until = if shown == 0 {
            // Without any record the client would only ask again, and wait again behind all others.
            taken.await;
            until.max(Instant::now() + FIRST_ROUND)
        } else {
            if tokio::time::timeout_at(until, taken).await.is_err() {
                return;
            }
            until
        };
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
        let mut scan = std::mem::replace(slot, Scan::new(offset, false));
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
        self.share.shrink(self.request_bytes + self.shown_bytes());
    }

    fn shown_bytes(&self) -> usize {
        self.scans.iter().flatten().map(Scan::shown_bytes).sum()
    }

    fn any_behind(&self) -> bool {
        self.scans.iter().flatten().any(|scan| *scan.progress() == Progress::Behind)
    }

    /// Returns whether waiting is useless for a partition.
    fn any_done(&self) -> bool {
        let is_done = |scan: &Scan| matches!(scan.progress(), Progress::Full | Progress::Stopped(_));
        self.scans.iter().flatten().any(is_done)
    }

    fn resume(&mut self) {
        self.scans.iter_mut().flatten().for_each(Scan::resume);
    }

    /// Adds the shown records to the response.
    fn fill(self, mut pass: Pass, fetch: &mut Plan) -> Pass {
        fetch.context.share = self.share;
        pass.shown = self.scans.into_iter().map(|scan| scan.map(Scan::into_records)).collect();
        pass
    }
}

/// Writes the dead letters of a step. If that fails, the step is undone from the first batch with such dead letters on.
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
    /// Reads the topics beside the views, and adds what the views show.
    fn pass_beside(&self, scans: &Scans) -> Pass {
        let shown = scans.shown_bytes();
        let mut left = self.max_bytes.saturating_sub(shown);
        let mut pass = Pass { results: Vec::new(), bytes: shown, failed: false, redirects: false, shown: Vec::new() };
        for ((topic, target), scan) in self.targets().zip(&scans.scans) {
            let result = match scan {
                Some(scan) => target.ends(scan, self.read_committed),
                None => topic.read(target, left.min(target.max_bytes), pass.bytes == 0, self.read_committed),
            };
            left = left.saturating_sub(pass.add(result));
            pass.redirects |= target.preferred.is_some();
        }
        pass
    }
}

impl Target {
    /// Returns the ends of the source for the response of a view.
    fn ends(&self, scan: &Scan, is_committed: bool) -> Result<PartitionRead, ApiError> {
        if let Some(error) = scan.error() {
            return Err(error.clone());
        }
        let source = self.partition.as_ref().map_err(Clone::clone)?;
        let log_start_offset = source.reader()?.log_start_offset();
        let last_stable_offset = source.last_stable_offset();
        let high_watermark = source.high_watermark();
        let aborted = is_committed.then(|| scan.aborted());
        Ok(PartitionRead { slice: None, log_start_offset, high_watermark, last_stable_offset, aborted })
    }
}
