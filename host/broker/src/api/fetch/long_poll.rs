//! The wait of a fetch: it reads, and reads again when enough has come or its time is over.

use std::sync::Arc;

use millstream_partition::{Arrival, FetchWaiters};
use tokio::time::Instant;

use crate::net::send_queue::Outgoing;
use crate::net::types::Close;

/// A fetch that can be served as often as needed.
pub(super) trait LongPoll: Send + Sync {
    /// The result of one pass over the partitions.
    type Pass: Send;

    /// Reads every partition once.
    fn pass(&self) -> Self::Pass;

    /// Returns the bytes that a pass has read.
    fn bytes(pass: &Self::Pass) -> usize;

    /// Returns whether the response leaves with this pass, before the deadline.
    fn is_enough(&self, pass: &Self::Pass) -> bool;

    /// Returns what the fetch waits for.
    fn arrival(&self) -> Arc<Arrival>;

    /// Returns the places where its partitions tell of new records.
    fn waiters(&self) -> impl Iterator<Item = &FetchWaiters>;

    /// Returns the response with the result of a pass.
    fn respond(&mut self, pass: Self::Pass) -> Result<Outgoing, Close>;
}

/// Waits for bytes until the deadline. Bytes that arrived before count too.
pub(super) async fn poll_until<P: LongPoll>(mut fetch: P, deadline: Instant) -> Result<Outgoing, Close> {
    loop {
        let arrival = fetch.arrival();
        let registered = Registered::new(&fetch, &arrival);
        let pass = fetch.pass();
        if fetch.is_enough(&pass) {
            drop(registered);
            return fetch.respond(pass);
        }
        arrival.count(P::bytes(&pass));
        let timed_out = tokio::time::timeout_at(deadline, arrival.enough()).await.is_err();
        drop(registered);
        if timed_out {
            let pass = fetch.pass();
            return fetch.respond(pass);
        }
    }
}

/// The registrations of a fetch. They end with it, even if its connection closes.
pub(super) struct Registered<'a, P: LongPoll> {
    fetch: &'a P,
    arrival: &'a Arc<Arrival>,
}

impl<'a, P: LongPoll> Registered<'a, P> {
    pub(super) fn new(fetch: &'a P, arrival: &'a Arc<Arrival>) -> Self {
        fetch.waiters().for_each(|waiters| waiters.register(arrival));
        Self { fetch, arrival }
    }
}

impl<P: LongPoll> Drop for Registered<'_, P> {
    fn drop(&mut self) {
        self.fetch.waiters().for_each(|waiters| waiters.remove(self.arrival));
    }
}
