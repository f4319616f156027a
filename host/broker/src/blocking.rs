//! Blocking work, off the threads that serve sockets.

use millstream_wire::ErrorCode;

use crate::error::ApiError;

/// Runs work that blocks for the disk on a thread of the blocking pool.
///
/// # Errors
/// `UNKNOWN_SERVER_ERROR` when the work panics or the runtime shuts down.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ApiError::new(ErrorCode::UNKNOWN_SERVER_ERROR, error.to_string()))
}

/// Runs work as [`blocking`] does. Returns `None` when it panics, which is logged with `what`, and when the process
/// stops before it begins.
pub(crate) async fn blocking_or_log<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.inspect_err(|error| {
        if error.is_panic() {
            tracing::error!("{what}: {error}");
        }
    })
    .ok()
}
