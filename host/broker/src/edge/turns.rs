//! Turns at a topic's stages: how many of its batches are worked on at a time.

use std::sync::Arc;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;

use crate::broker::Broker;
use crate::controller;
use crate::error::ApiError;

/// The turns of one topic. Each topic has its own, so that a slow stage keeps only its own topic waiting: others find cores
/// and threads free.
#[derive(Debug, Clone)]
pub(crate) struct Turns(Arc<Semaphore>);

impl Turns {
    /// As many as leave half of the cores to everybody else.
    pub(crate) fn new() -> Self {
        Self(Broker::heavy_turns())
    }

    /// The turns themselves, for those who take them piece by piece.
    pub(crate) fn semaphore(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0)
    }

    /// Runs work that calls stages on a thread where that may take its time, when it is its turn.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        broker: &Arc<Broker>,
        work: impl FnOnce(&Arc<Broker>) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = Arc::clone(&self.0).acquire_owned().await.expect("the semaphore is never closed");
        // The turn goes with the work: it lasts even if the client that waits for it is gone.
        let in_turn = move |broker: &Arc<Broker>| {
            let done = work(broker);
            drop(turn);
            done
        };
        controller::blocking(broker, in_turn).await
    }

    /// Runs work that is done at once here and now, unless others are before it.
    pub(crate) async fn run_quick<T: Send + 'static>(
        &self,
        broker: &Arc<Broker>,
        work: impl FnOnce(&Arc<Broker>) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        // A runtime of one thread has nobody to go on with the rest, should the work turn out to be slow.
        if Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread
            && let Ok(_turn) = self.0.try_acquire()
        {
            return Ok(work(broker));
        }
        self.run(broker, work).await
    }
}

/// Runs work that may take its time. On a worker that serves sockets, where quick stages run, what else waits for that worker
/// goes to another thread first; on a thread of its own nothing changes.
pub(super) fn aside<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}
