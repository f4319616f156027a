//! The plug-ins that read batches in private formats: which ones a topic needs, and the conversion of batches to
//! Kafka's own codecs.
//!
//! A metadata record says that a topic needs a plug-in. It is durable before the plug-in's first batch is appended, so
//! that a start knows it without reading any segment. It stays when the topic's configs change.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use millstream_metadata::NO_LEADER;
use millstream_partition::Partition;
use millstream_record::{BatchView, Codec, CodecError, codec};
use millstream_stage::{Digest, Plugin, Stage};
use millstream_wire::ErrorCode;
use parking_lot::Mutex;
use uuid::Uuid;

use super::context::{Edge, MetadataChanges};
use super::private_format::{Private, is_private};
use super::stages;
use super::topic::ServedTopic;
use crate::compute_permits::ComputePermits;
use crate::error::ApiError;
use crate::produce::recode::with_payload;

/// The most decoders that are kept ready, one for each version and configuration.
const READY_MAX: usize = 64;

/// The decoders that one topic needs.
#[derive(Debug)]
pub(crate) struct TopicDecoders {
    digests: Vec<Digest>,
    /// The permits for reading.
    pub(crate) permits: ComputePermits,
}

impl TopicDecoders {
    /// Returns the decoders of these digests, which the metadata has in hexadecimal; `None` if the topic needs none.
    pub(crate) fn new(digests: &BTreeSet<String>) -> Option<Arc<Self>> {
        if digests.is_empty() {
            return None;
        }
        // This program never wrote an invalid digest, and each batch also names its plug-in.
        let digests = digests.iter().filter_map(|digest| digest.parse().ok()).collect();
        Some(Arc::new(Self { digests, permits: ComputePermits::new() }))
    }
}

/// The decoders that are ready, and the plug-ins that are in use or being deleted.
#[derive(Debug, Default)]
pub(crate) struct Decoders {
    ready: Mutex<HashMap<(Digest, String), Arc<Stage>>>,
    /// Whether a plug-in is in use or being deleted, by its digest. It is never both.
    moving: Mutex<HashMap<Digest, Moving>>,
}

/// The use of a plug-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moving {
    /// The number of its batches that are on their way to a log.
    Packed(usize),
    /// It is being deleted.
    Leaving,
}

/// Keeps a plug-in while one of its batches is on its way to a log.
#[derive(Debug)]
struct InUse(Arc<Decoders>, Digest);

/// Prevents appends of a plug-in's batches while the plug-in is being deleted.
#[derive(Debug)]
pub(crate) struct Leaving(Arc<Decoders>, Digest);

/// The plug-in that reads a batch. It cannot be deleted until this is dropped, after the append.
#[derive(Debug)]
pub(crate) struct NeededDecoder {
    plugin: InUse,
    /// Whether the metadata names the plug-in for the topic.
    is_noted: bool,
}

impl NeededDecoder {
    /// Returns whether the batch may be appended: the metadata must name the plug-in first, so that a start knows it.
    pub(super) fn is_noted(&self) -> bool {
        self.is_noted
    }

    /// Records that a topic needs the plug-in, unless the metadata already says so.
    pub(super) async fn note(&self, topic: Uuid, changes: &dyn MetadataChanges) -> Result<(), ApiError> {
        if self.is_noted { Ok(()) } else { changes.add_decoder(topic, self.plugin.1.to_string()).await }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut moving = self.0.moving.lock();
        match moving.get_mut(&self.1) {
            Some(Moving::Packed(count)) if *count > 1 => *count -= 1,
            _ => drop(moving.remove(&self.1)),
        }
    }
}

impl Leaving {
    pub(crate) fn is(&self, digest: &Digest) -> bool {
        self.1 == *digest
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.moving.lock().remove(&self.1);
    }
}

impl Decoders {
    /// Marks the plug-in as in use; `None` if it is being deleted.
    fn packed(self: &Arc<Self>, digest: &Digest) -> Option<InUse> {
        match self.moving.lock().entry(*digest).or_insert(Moving::Packed(0)) {
            Moving::Packed(count) => *count += 1,
            Moving::Leaving => return None,
        }
        Some(InUse(Arc::clone(self), *digest))
    }

    /// Marks the plug-in as being deleted; `None` if one of its batches is on its way to a log.
    pub(crate) fn leave(self: &Arc<Self>, digest: &Digest) -> Option<Leaving> {
        let mut moving = self.moving.lock();
        if moving.contains_key(digest) {
            return None;
        }
        moving.insert(*digest, Moving::Leaving);
        Some(Leaving(Arc::clone(self), *digest))
    }
}

impl Edge {
    /// Keeps a plug-in that has packed a batch for a topic.
    ///
    /// # Errors
    /// The plug-in was deleted meanwhile.
    pub(super) fn packed(&self, topic: &ServedTopic, plugin: &Plugin) -> Result<NeededDecoder, ApiError> {
        let digest = plugin.digest();
        // The order matters: a deletion that starts after this check waits for the batch.
        let packed = self.decoders.packed(&digest).filter(|_| self.plugins.keeps(plugin));
        let plugin = packed.ok_or_else(|| {
            let message = format!("the plug-in {} that has packed the batch is deleted: send it again", plugin.name());
            ApiError::new(ErrorCode::KAFKA_STORAGE_ERROR, message)
        })?;
        let is_noted = topic.edge.decoders.as_ref().is_some_and(|decoders| decoders.digests.contains(&digest));
        Ok(NeededDecoder { plugin, is_noted })
    }

    /// Returns the uncompressed records of a batch in a private format, at most `bytes_max`, and the codec that its
    /// producer sent. Blocks while the plug-in computes.
    pub(crate) fn unpack(&self, batch: &BatchView<'_>, bytes_max: usize) -> Result<(Vec<u8>, Codec), ApiError> {
        let private = Private::parse(batch.payload())
            .map_err(|error| unreadable(batch, &format!("it is not in a private format: {error}")))?;
        if private.len > bytes_max {
            return Err(unreadable(batch, &format!("it has {} bytes, at most {bytes_max} are read", private.len)));
        }
        let stage = self.decoder(private.digest, private.config)?;
        let payload = stages::decompress(&stage, private.packed, batch.count().unsigned_abs(), private.len);
        payload.map(|payload| (payload, private.codec)).map_err(|error| unreadable(batch, &error.to_string()))
    }

    /// Returns the uncompressed records of a batch in a private format, for a lookup by time. `None` if they cannot be
    /// read; the lookup then counts the batch as one. Blocks while the plug-in computes.
    pub(crate) fn records_for_lookup(&self, batch: &BatchView<'_>, bytes_max: usize) -> Option<Vec<u8>> {
        match self.unpack(batch, bytes_max) {
            Ok((payload, _)) => Some(payload),
            Err(error) => {
                tracing::debug!("a lookup takes a batch as a whole: {error}");
                None
            }
        }
    }

    /// Returns a batch in a private format as clients get it: in the codec that its producer sent, or one that this
    /// client reads.
    pub(crate) fn give_back(&self, batch: &BatchView<'_>, reads_zstd: bool) -> Result<Vec<u8>, ApiError> {
        let (payload, sent) = self.unpack(batch, self.config.request_max_bytes)?;
        let codec = if sent == Codec::Zstd && !reads_zstd { Codec::Lz4 } else { sent };
        let failed = |error: CodecError| ApiError::new(ErrorCode::UNKNOWN_SERVER_ERROR, error.to_string());
        with_payload(batch, codec.id(), &codec::compress(codec, None, &payload).map_err(failed)?)
    }

    /// Returns a topic with a batch on this broker that needs the plug-in with this digest. Reads the logs of all
    /// topics that ever needed it; the other brokers search their own logs. Blocks for the disk. Call it while the
    /// plug-in is [leaving](Decoders::leave).
    ///
    /// # Errors
    /// A log cannot be read, or no broker has it now.
    pub(crate) fn needed_by(&self, digest: &Digest) -> Result<Option<String>, ApiError> {
        for topic in self.topics.load().iter() {
            if !topic.edge.decoders.as_ref().is_some_and(|decoders| decoders.digests.contains(digest)) {
                continue;
            }
            for partition in &topic.partitions {
                if !partition.is_replica() && partition.leader() == NO_LEADER {
                    let message = format!("partition {}-{} has no leader now", topic.name.as_str(), partition.index());
                    return Err(ApiError::new(ErrorCode::LEADER_NOT_AVAILABLE, message));
                }
                if partition.is_replica() && holds(partition, digest)? {
                    return Ok(Some(topic.name.as_str().to_owned()));
                }
            }
        }
        Ok(None)
    }

    fn decoder(&self, digest: Digest, config: &str) -> Result<Arc<Stage>, ApiError> {
        let key = (digest, config.to_owned());
        if let Some(stage) = self.decoders.ready.lock().get(&key) {
            return Ok(Arc::clone(stage));
        }
        let failed = |problem: String| {
            let message = format!("the plug-in with the digest {digest} that reads a batch cannot be had: {problem}");
            tracing::warn!("{message}");
            ApiError::new(ErrorCode::KAFKA_STORAGE_ERROR, message)
        };
        let plugin = self.plugins.library()?.by_digest(&digest).map_err(|error| failed(error.to_string()))?;
        let plugin = plugin.ok_or_else(|| failed("it is not in the store of plug-ins".to_owned()))?;
        let stage = Arc::new(Stage::new(plugin, config).map_err(|error| failed(error.to_string()))?);
        let mut ready = self.decoders.ready.lock();
        if ready.len() >= READY_MAX {
            // They can be made again in less than a millisecond.
            ready.clear();
        }
        ready.insert(key, Arc::clone(&stage));
        Ok(stage)
    }
}

/// Returns whether a partition has a batch that needs the plug-in. Reads its whole log.
fn holds(partition: &Partition, digest: &Digest) -> Result<bool, ApiError> {
    let mut found = false;
    partition.replay(|batch| {
        found = is_private(batch) && Private::parse(batch.payload()).is_ok_and(|private| private.digest == *digest);
        if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(found)
}

fn unreadable(batch: &BatchView<'_>, problem: &str) -> ApiError {
    let message = format!("the batch at offset {} cannot be read: {problem}", batch.base_offset());
    // A fetch response has no room for a message, so it is logged for operators.
    tracing::warn!("{message}");
    ApiError::new(ErrorCode::KAFKA_STORAGE_ERROR, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_not_deleted_while_batches_need_it() {
        let decoders = Arc::new(Decoders::default());
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        let (first, second) = (decoders.packed(&one).expect("it packs"), decoders.packed(&one).expect("it packs"));
        assert!(decoders.leave(&one).is_none());
        drop(first);
        assert!(decoders.leave(&one).is_none());
        let leaving = decoders.leave(&other).expect("nobody needs it");
        assert!(decoders.packed(&other).is_none() && decoders.leave(&other).is_none());
        drop((second, leaving));
        assert!(decoders.leave(&one).is_some() && decoders.packed(&other).is_some());
        assert!(decoders.moving.lock().is_empty());
    }
}
