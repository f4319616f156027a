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
