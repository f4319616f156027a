//! Batches of the source that the filters of a view cannot read, since compressed records may be stored unchecked.

use std::collections::BTreeSet;

use millstream_partition::Partition;
use millstream_record::{BatchError, BatchView};
use millstream_wire::ErrorCode;
use parking_lot::Mutex;

use crate::config::FailurePolicy;
use crate::edge::view::link::Layer;
use crate::error::ApiError;

/// The most batches that are logged for one view.
const LOGGED_MAX: usize = 1_000;

/// What the policy of a view says about a batch that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Treatment {
    Shown,
    Hidden,
}

/// Applies the failure policy of the first view, whose filters read the batch, to all its records.
///
/// # Errors
/// The policy fails the fetch.
pub(super) fn treat(
    batch: &BatchView<'_>,
    error: &BatchError,
    source: &Partition,
    layers: &[Layer],
) -> Result<Treatment, ApiError> {
    let policy = match layers.first().map(|layer| &layer.stages) {
        Some(Ok(stages)) => stages.filter_policy,
        // The view is out of service for now, and its policy may hide the batch later.
        Some(Err(error)) => return Err(ApiError::new(ErrorCode::KAFKA_STORAGE_ERROR, error.message.clone())),
        None => FailurePolicy::Fail,
    };
    match policy {
        FailurePolicy::Fail => Err(fail(batch, error, source, layers)),
        FailurePolicy::Pass => Ok(Treatment::Shown),
        FailurePolicy::Skip | FailurePolicy::DeadLetter => {
            let place = Place::new(batch, source, layers);
            place.log_once(false, error, "a view does not show a batch that cannot be read");
            Ok(Treatment::Hidden)
        }
    }
}

/// Returns the error of a fetch at a batch that cannot be read, and logs it: a fetch response has no room for a
/// message. It has the one code that clients report with the offset.
pub(super) fn fail(batch: &BatchView<'_>, error: &BatchError, source: &Partition, layers: &[Layer]) -> ApiError {
    let place = Place::new(batch, source, layers);
    place.log_once(true, error, "fetches of a view fail at a batch that cannot be read");
    let Place { source, offset, .. } = place;
    let (topic, partition) = (source.topic(), source.index());
    let message = format!("the batch at offset {offset} of {topic}-{partition} cannot be read: {error}");
    ApiError::new(ErrorCode::CORRUPT_MESSAGE, message)
}

/// The view that reads a batch, and the place of the batch.
struct Place<'a> {
    layer: Option<&'a Layer>,
    source: &'a Partition,
    offset: i64,
}

impl<'a> Place<'a> {
    fn new(batch: &BatchView<'_>, source: &'a Partition, layers: &'a [Layer]) -> Self {
        Self { layer: layers.first(), source, offset: batch.base_offset() }
    }

    fn log_once(&self, fails: bool, error: &BatchError, message: &str) {
        let Some(layer) = self.layer else { return };
        let (partition, offset) = (self.source.index(), self.offset);
        if layer.logged.is_new(partition, offset, fails) {
            let (view, source) = (layer.topic.as_str(), self.source.topic());
            tracing::warn!(view, source, partition, offset, "{message}: {error}");
        }
    }
}

/// The unreadable batches of a view that were logged: partition, offset, and whether fetches fail there. Each is logged
/// once, however often it is read. Above a limit no more are logged.
#[derive(Debug, Default)]
pub(crate) struct LoggedBatches(Mutex<BTreeSet<(i32, i64, bool)>>);

impl LoggedBatches {
    fn is_new(&self, partition: i32, offset: i64, fails: bool) -> bool {
        let mut known = self.0.lock();
        known.len() < LOGGED_MAX && known.insert((partition, offset, fails))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_batch_is_logged_once_and_a_limited_number_at_all() {
        let logged = LoggedBatches::default();
        assert!(logged.is_new(0, 5, false));
        assert!(!logged.is_new(0, 5, false));
        assert!(logged.is_new(0, 5, true), "the policy was changed");
        assert!(logged.is_new(1, 5, false));
        let new = (0..LOGGED_MAX as i64 + 5).filter(|offset| logged.is_new(2, *offset, false)).count();
        assert_eq!(new, LOGGED_MAX - 3);
    }
}
