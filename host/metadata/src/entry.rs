//! An entry of the cluster's metadata log, and the image that the entries add up to.
//!
//! The log of a cluster is replicated by a quorum, which knows bytes only. An entry carries the version of the image
//! that its changes were decided on. If another entry came in between, the changes do not count: the controller decides
//! again. So a controller that lost its leadership cannot change what it has not seen.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use millstream_record::{BatchView, batches};

use crate::snapshot::{self, SnapshotError};
use crate::store::apply_batch;
use crate::{Draft, MetadataError, MetadataImage};

/// The first byte of an entry: what follows.
const IMAGE: u8 = 0;
const CHANGES: u8 = 1;

/// The number of entries that were not applied and can still be asked for.
const SKIPPED_MAX: usize = 1024;

/// Why an entry or a snapshot cannot be applied. The node must stop: its image would differ from that of others.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// The bytes are not those of an entry.
    #[error("the metadata log is damaged at entry {index}: it has no known kind")]
    Kind {
        /// The index of the entry.
        index: u64,
    },
    /// The image that starts the log cannot be read.
    #[error("the metadata log is damaged at entry {index}: {error}")]
    Image {
        /// The index of the entry.
        index: u64,
        /// What is wrong.
        error: SnapshotError,
    },
    /// A change cannot be read, or does not fit.
    #[error("the metadata log cannot be applied at entry {index}: {error}")]
    Changes {
        /// The index of the entry.
        index: u64,
        /// What is wrong.
        error: MetadataError,
    },
    /// A snapshot cannot be read.
    #[error("a snapshot of the metadata cannot be used: {0}")]
    Snapshot(#[from] SnapshotError),
    /// A snapshot has no version.
    #[error("a snapshot of the metadata is damaged: it has no version")]
    NoVersion,
}

/// Returns the entry that starts the log of a cluster with an image.
///
/// # Panics
/// The image has a lower feature level than [`crate::FeatureLevel::CLUSTER`].
pub fn first(image: &MetadataImage) -> Bytes {
    let mut entry = BytesMut::from(&[IMAGE][..]);
    entry.extend_from_slice(&snapshot::write(image));
    entry.freeze()
}

/// The image that the applied entries add up to.
#[derive(Debug)]
pub struct ReplicatedImage {
    image: MetadataImage,
    /// The index after the entry that changed the image last; 0 before the first.
    version: u64,
    skipped: VecDeque<u64>,
}

impl Default for ReplicatedImage {
    fn default() -> Self {
        Self { image: MetadataImage::without_brokers(), version: 0, skipped: VecDeque::new() }
    }
}

impl ReplicatedImage {
    /// Returns the image.
    pub fn image(&self) -> &MetadataImage {
        &self.image
    }

    /// Returns the version of the image, for [`changes`].
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns whether the changes of an entry did not count.
    pub fn was_skipped(&self, index: u64) -> bool {
        self.skipped.contains(&index)
    }

    /// Applies an entry. Changes that were decided on an older image are skipped.
    ///
    /// # Errors
    /// The entry is damaged, or another program wrote it.
    pub fn apply(&mut self, index: u64, entry: &Bytes) -> Result<(), EntryError> {
        let mut image = match entry.split_first() {
            Some((&IMAGE, text)) if self.version == 0 => {
                snapshot::read(text).map_err(|error| EntryError::Image { index, error })?
            }
            Some((&CHANGES, rest)) => {
                let (base, changes) = rest.split_first_chunk().ok_or(EntryError::Kind { index })?;
                if u64::from_be_bytes(*base) != self.version {
                    self.skip(index);
                    return Ok(());
                }
                changed(self.image.clone(), changes).map_err(|error| EntryError::Changes { index, error })?
            }
            Some((&IMAGE, _)) => {
                self.skip(index);
                return Ok(());
            }
            _ => return Err(EntryError::Kind { index }),
        };
        std::mem::swap(&mut self.image, &mut image);
        self.version = index + 1;
        Ok(())
    }

    fn skip(&mut self, index: u64) {
        if self.skipped.len() == SKIPPED_MAX {
            self.skipped.pop_front();
        }
        self.skipped.push_back(index);
    }

    /// Returns the state as bytes.
    pub fn snapshot(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u64(self.version);
        if self.version > 0 {
            bytes.extend_from_slice(&snapshot::write(&self.image));
        }
        bytes.freeze()
    }

    /// Replaces the state by that of a snapshot.
    ///
    /// # Errors
    /// The snapshot is damaged, or a newer program wrote it. The state stays.
    pub fn restore(&mut self, snapshot: &[u8]) -> Result<(), EntryError> {
        let (version, text) = snapshot.split_first_chunk().ok_or(EntryError::NoVersion)?;
        let version = u64::from_be_bytes(*version);
        let image = if version == 0 { MetadataImage::without_brokers() } else { snapshot::read(text)? };
        *self = Self { image, version, skipped: VecDeque::new() };
        Ok(())
    }
}

/// Returns the entry with the changes of a draft on the image of this version.
pub fn changes(version: u64, draft: &Draft) -> Bytes {
    let batches = draft.batches();
    let mut entry = BytesMut::with_capacity(9 + batches.iter().map(Bytes::len).sum::<usize>());
    entry.put_u8(CHANGES);
    entry.put_u64(version);
    batches.iter().for_each(|batch| entry.extend_from_slice(batch));
    entry.freeze()
}

fn changed(mut image: MetadataImage, changes: &[u8]) -> Result<MetadataImage, MetadataError> {
    for batch in batches(changes) {
        let batch: BatchView<'_> = batch?;
        batch.verify_crc()?;
        apply_batch(&mut image, &batch)?;
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::cluster_tests::cluster;
    use crate::{MetadataRecord, MetadataStore};

    fn ids(next: i64) -> MetadataRecord {
        MetadataRecord::ProducerIdsAllocated { next }
    }

    fn draft(image: &ReplicatedImage, next: i64) -> Bytes {
        let store = MetadataStore::replicated();
        store.publish(image.image().clone(), image.version());
        let (mut draft, version) = store.draft_of_version(0);
        draft.add(&[ids(next)]).expect("it fits");
        changes(version, &draft)
    }

    #[test]
    fn changes_count_only_on_the_image_that_they_were_decided_on() {
        let mut state = ReplicatedImage::default();
        state.apply(3, &first(&cluster(&[(1, None)]))).expect("an image");
        assert_eq!(state.version(), 4);
        let (one, other) = (draft(&state, 1000), draft(&state, 2000));
        state.apply(4, &one).expect("changes");
        state.apply(5, &other).expect("it is skipped");
        assert_eq!((state.image().next_producer_id, state.version()), (1000, 5));
        assert!(!state.was_skipped(4) && state.was_skipped(5));
        // A second image does not replace the first.
        state.apply(6, &first(&cluster(&[(2, None)]))).expect("it is skipped");
        assert!(state.was_skipped(6) && state.image().broker(1).is_some());
        let mut restored = ReplicatedImage::default();
        restored.restore(&state.snapshot()).expect("it was just written");
        assert_eq!((restored.image(), restored.version()), (state.image(), 5));
        restored.restore(&ReplicatedImage::default().snapshot()).expect("an empty state");
        assert_eq!(restored.version(), 0);
    }

    #[test]
    fn damaged_entries_are_errors() {
        let mut state = ReplicatedImage::default();
        state.apply(0, &first(&cluster(&[(1, None)]))).expect("an image");
        let good = draft(&state, 1000);
        for (entry, part) in [
            (Bytes::new(), "no known kind"),
            (Bytes::from_static(&[9]), "no known kind"),
            (good.slice(..5), "no known kind"),
            (good.slice(..good.len() - 1), "cannot be applied at entry 1"),
        ] {
            let error = state.apply(1, &entry).expect_err("damaged").to_string();
            assert!(error.contains(part), "{error}");
        }
        let mut flipped = good.to_vec();
        *flipped.last_mut().expect("bytes") ^= 1;
        state.apply(1, &flipped.into()).expect_err("damaged");
        assert_eq!(state.version(), 1, "the state stays");
    }
}
