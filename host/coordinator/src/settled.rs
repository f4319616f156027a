//! The wait for a record of a coordinator, and what the commit changes in memory.

use std::time::Duration;

use millstream_partition::{InternalAppend, PartitionError};
use tokio::time::timeout;

/// Why a request does not wait for its record any more. The record may still be committed, and memory then follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsettled {
    /// The request's time is over.
    Late,
    /// It is not known whether this broker still leads. The client looks for the coordinator again.
    Suspended,
}

/// Waits until a record is committed or lost, and calls `then` with that outcome. Returns the result.
///
/// A task of its own waits, so that memory follows the log even if the client disconnects or the request ends early.
///
/// # Errors
/// The request ends early, and `then` is called later.
pub(crate) async fn settled<T: Send + 'static>(
    mut appended: InternalAppend,
    limit: Duration,
    then: impl FnOnce(Result<(), PartitionError>) -> T + Send + 'static,
) -> Result<T, Unsettled> {
    let task = tokio::spawn(async move {
        match appended.committed.as_mut().await {
            Err(PartitionError::Suspended) => {
                tokio::spawn(async move { then(appended.settle().await) });
                Err(Unsettled::Suspended)
            }
            outcome => Ok(then(outcome)),
        }
    });
    match timeout(limit, task).await {
        // A task is only lost when the broker stops.
        Ok(done) => done.unwrap_or(Err(Unsettled::Suspended)),
        Err(_) => Err(Unsettled::Late),
    }
}
