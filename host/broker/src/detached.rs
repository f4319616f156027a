//! Work that ends even if its client disconnects.

use millstream_wire::ErrorCode;

use crate::error::ApiError;

/// Runs work on a task of its own and returns its result. The work continues if the returned future is dropped.
///
/// # Errors
/// Those of the work, and `UNKNOWN_SERVER_ERROR` when it panics or the runtime shuts down.
pub(crate) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|error| Err(ApiError::new(ErrorCode::UNKNOWN_SERVER_ERROR, error.to_string())))
}
