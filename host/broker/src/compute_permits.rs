//! ComputePermits at work that takes its time: decompressing, recoding, calling stages.

use std::sync::Arc;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::blocking::blocking;
use crate::error::ApiError;

/// So much is worked on at a time as leaves half of the cores to everybody else, and so that the memory that it takes has a
/// bound. Each topic with stages has turns of its own, so that a slow stage keeps only its own topic waiting.
#[derive(Debug, Clone)]
pub(crate) struct ComputePermits(Arc<Semaphore>);

impl ComputePermits {
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self(Arc::new(Semaphore::new((cores / 2).max(1))))
    }

    /// Waits for a turn, which ends when what this gives is dropped.
    pub(crate) async fn take(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.0).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Runs work on a thread where it may take its time, when it is its turn.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = self.take().await;
        // The turn goes with the work: it lasts even if the client that waits for it is gone.
        let in_turn = move || {
            let done = work();
            drop(turn);
            done
        };
        blocking(in_turn).await
    }

    /// Runs work that is done at once here and now, unless others are before it.
    pub(crate) async fn run_quick<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        // A runtime of one thread has nobody to go on with the rest, should the work turn out to be slow.
        if Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread
            && let Ok(_turn) = self.0.try_acquire()
        {
            return Ok(work());
        }
        self.run(work).await
    }
}

/// Runs work that may take its time. On a worker that serves sockets, where quick stages run, what else waits for that worker
/// goes to another thread first; on a thread of its own nothing changes.
pub(crate) fn aside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}
