//! Permits for slow work: decompressing, recoding, calling stages.

use std::sync::Arc;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::blocking::blocking;
use crate::error::ApiError;

/// Limits the slow work at a time, so that half of the cores are left to other work and its memory is bounded. Each
/// topic with stages has its own permits, so that a slow stage delays only its own topic.
#[derive(Debug, Clone)]
pub(crate) struct ComputePermits(Arc<Semaphore>);

impl ComputePermits {
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self(Arc::new(Semaphore::new((cores / 2).max(1))))
    }

    /// Waits for a permit, which is released when it is dropped.
    pub(crate) async fn take(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.0).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Runs work on a thread where it may be slow, once there is a permit.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = self.take().await;
        // The permit moves into the work, so that it lasts even if the client that waits is gone.
        let in_turn = move || {
            let done = work();
            drop(turn);
            done
        };
        blocking(in_turn).await
    }

    /// Runs quick work here and now, unless other work already waits for permits.
    pub(crate) async fn run_quick<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        // A runtime with one thread has no other thread to continue its tasks if the work turns out to be slow.
        if Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread
            && let Ok(_turn) = self.0.try_acquire()
        {
            return Ok(work());
        }
        self.run(work).await
    }
}

/// Runs work that may be slow. On a worker thread that serves sockets, where quick stages run, its other tasks first
/// move to another thread. On a thread of the blocking pool nothing changes.
pub(crate) fn aside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}
