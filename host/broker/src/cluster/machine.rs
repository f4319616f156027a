//! The metadata as the state of the quorum's log.

use std::sync::Arc;

use bytes::Bytes;
use millstream_metadata::MetadataStore;
use millstream_metadata::entry::{EntryError, ReplicatedImage};
use millstream_quorum::{Machine, RestoreError};
use parking_lot::Mutex;
use tokio::sync::watch;

/// Applies committed entries to the image, and publishes it.
pub(super) struct ImageMachine {
    state: Arc<Mutex<ReplicatedImage>>,
    metadata: Arc<MetadataStore>,
    fatal: watch::Sender<Option<String>>,
    /// An entry could not be applied: later ones would give another image than on other nodes.
    has_failed: bool,
}

impl ImageMachine {
    pub(super) fn new(
        state: Arc<Mutex<ReplicatedImage>>,
        metadata: Arc<MetadataStore>,
        fatal: watch::Sender<Option<String>>,
    ) -> Self {
        Self { state, metadata, fatal, has_failed: false }
    }

    fn fail(&mut self, error: &EntryError) {
        tracing::error!("the metadata of the cluster cannot be followed: {error}");
        self.has_failed = true;
        self.fatal.send_replace(Some(error.to_string()));
    }
}

impl Machine for ImageMachine {
    fn apply(&mut self, index: u64, bytes: &Bytes) {
        if self.has_failed {
            return;
        }
        let mut state = self.state.lock();
        let before = state.version();
        let applied = state.apply(index, bytes);
        if state.version() != before {
            self.metadata.publish(state.image().clone(), state.version());
        }
        drop(state);
        if let Err(error) = applied {
            self.fail(&error);
        }
    }

    fn snapshot(&self) -> Bytes {
        self.state.lock().snapshot()
    }

    fn restore(&mut self, _index: u64, snapshot: &Bytes) -> Result<(), RestoreError> {
        let mut state = self.state.lock();
        state.restore(snapshot)?;
        self.metadata.publish(state.image().clone(), state.version());
        Ok(())
    }
}
