//! The state of the registry: the result of its records, applied in order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use millstream_stage::Digest;

use crate::format::{self, CHUNK_BYTES_MAX, FormatError, Key, Manifest, StageConfigs, Version};

/// The maximum chunks of an image: 50 GiB of components.
const CHUNKS_KEPT_MAX: usize = 100_000;

/// The maximum size of all manifests and stages of an image, in bytes.
const TEXT_BYTES_MAX: usize = 64 << 20;

/// The maximum time of a push from its first chunk to its manifest: an hour.
const PUSH_MS_MAX: i64 = 3_600_000;

/// The position of a chunk in the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The offset of its record.
    pub offset: i64,
    /// Its size, in bytes.
    pub size: u32,
    /// The time of the write, in milliseconds since the epoch.
    pub at_ms: i64,
}

/// The effect of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It changed this plug-in.
    Plugin(String),
    /// It added, removed or moved a chunk.
    Chunk,
    /// It changed the stages of this topic.
    Topic(String),
    /// It changed nothing.
    Nothing,
}

/// All plug-ins of a cluster, with the positions of their chunks.
#[derive(Debug, Clone, Default)]
pub struct PluginImage {
    plugins: BTreeMap<String, Text<Arc<Manifest>>>,
    chunks: HashMap<Digest, BTreeMap<u32, Place>>,
    chunk_count: usize,
    topics: BTreeMap<String, Text<StageConfigs>>,
    text_bytes: usize,
}

/// A value and its size in the record.
#[derive(Debug, Clone)]
struct Text<T> {
    value: T,
    bytes: usize,
}

impl PluginImage {
    /// Applies a record that was written at `at_ms`.
    ///
    /// # Errors
    /// [`FormatError`]: the record is malformed or based on an outdated state; the image is unchanged.
    pub fn apply(
        &mut self,
        offset: i64,
        at_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<Change, FormatError> {
        match (Key::parse(key)?, value) {
            (Key::Chunk { digest, index }, Some(value)) => {
                let size = u32::try_from(value.len()).unwrap_or(u32::MAX);
                self.put_chunk(digest, index, Place { offset, size, at_ms })
            }
            (Key::Chunk { digest, index }, None) => Ok(self.remove_chunk(&digest, index)),
            (Key::Plugin(name), Some(value)) => self.put_plugin(name, value),
            (Key::Plugin(name), None) => match self.plugins.remove(&name) {
                None => Ok(Change::Nothing),
                Some(gone) => {
                    self.text_bytes -= gone.bytes;
                    Ok(Change::Plugin(name))
                }
            },
            (Key::Topic(name), Some(value)) => {
                let configs = format::parse_stage_configs(value)?;
                self.make_room(value.len(), self.topics.get(&name).map_or(0, |text| text.bytes))?;
                self.topics.insert(name.clone(), Text { value: configs, bytes: value.len() });
                Ok(Change::Topic(name))
            }
            (Key::Topic(name), None) => match self.topics.remove(&name) {
                None => Ok(Change::Nothing),
                Some(gone) => {
                    self.text_bytes -= gone.bytes;
                    Ok(Change::Topic(name))
                }
            },
        }
    }

    fn put_plugin(&mut self, name: String, value: &[u8]) -> Result<Change, FormatError> {
        let manifest = Manifest::parse(&name, value)?;
        let known = self.plugins.get(&name);
        if let Some(known) = known {
            if *known.value == manifest {
                return Ok(Change::Nothing);
            }
            let (have, new) = (known.value.revision, manifest.revision);
            // Any higher revision is valid, because compaction leaves gaps.
            if new <= have {
                return Err(FormatError(format!(
                    "revision {new} of plug-in {name} is outdated: the current one is {have}"
                )));
            }
        }
        self.make_room(value.len(), known.map_or(0, |known| known.bytes))?;
        self.plugins.insert(name.clone(), Text { value: Arc::new(manifest), bytes: value.len() });
        Ok(Change::Plugin(name))
    }

    fn make_room(&mut self, bytes: usize, instead_of: usize) -> Result<(), FormatError> {
        let after = self.text_bytes - instead_of + bytes;
        if after > TEXT_BYTES_MAX {
            return Err(FormatError(format!("all manifests together have more than {TEXT_BYTES_MAX} bytes")));
        }
        self.text_bytes = after;
        Ok(())
    }

    fn put_chunk(&mut self, digest: Digest, index: u32, place: Place) -> Result<Change, FormatError> {
        let size = place.size as usize;
        if size == 0 || size > CHUNK_BYTES_MAX {
            return Err(FormatError(format!("a chunk has {size} bytes, but 1 to {CHUNK_BYTES_MAX} are allowed")));
        }
        let is_new = self.place(&digest, index).is_none();
        if is_new && self.chunk_count >= CHUNKS_KEPT_MAX {
            return Err(FormatError(format!("more than {CHUNKS_KEPT_MAX} chunks")));
        }
        self.chunk_count += usize::from(is_new);
        self.chunks.entry(digest).or_default().insert(index, place);
        Ok(Change::Chunk)
    }

    fn remove_chunk(&mut self, digest: &Digest, index: u32) -> Change {
        let Some(chunks) = self.chunks.get_mut(digest) else { return Change::Nothing };
        if chunks.remove(&index).is_none() {
            return Change::Nothing;
        }
        self.chunk_count -= 1;
        if chunks.is_empty() {
            self.chunks.remove(digest);
        }
        Change::Chunk
    }

    /// Returns a plug-in's state.
    pub fn plugin(&self, name: &str) -> Option<&Arc<Manifest>> {
        self.plugins.get(name).map(|text| &text.value)
    }

    /// Returns all plug-ins, by name.
    pub fn plugins(&self) -> impl Iterator<Item = &Arc<Manifest>> {
        self.plugins.values().map(|text| &text.value)
    }

    /// Returns the names of all plug-ins as a text for users.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.plugins.keys().map(String::as_str).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    /// Returns the stages of a topic in a cluster that does not know these configs.
    pub fn topic(&self, name: &str) -> Option<&StageConfigs> {
        self.topics.get(name).map(|text| &text.value)
    }

    /// Returns the position of a chunk.
    pub fn place(&self, digest: &Digest, index: u32) -> Option<Place> {
        self.chunks.get(digest)?.get(&index).copied()
    }

    /// Returns the positions of the chunks of a version, in order.
    ///
    /// # Errors
    /// [`FormatError`]: one is missing, or their total size differs from the manifest.
    pub fn places(&self, version: &Version) -> Result<Vec<Place>, FormatError> {
        let places = (0..version.chunks).map(|index| {
            self.place(&version.digest, index).ok_or_else(|| {
                FormatError(format!("chunk {index} of {} is missing: chunk/{}/{index}", version.chunks, version.digest))
            })
        });
        let places = places.collect::<Result<Vec<_>, _>>()?;
        let size: u64 = places.iter().map(|place| u64::from(place.size)).sum();
        if size != version.size {
            return Err(FormatError(format!(
                "its chunks have {size} bytes instead of the {} in the manifest",
                version.size
            )));
        }
        Ok(places)
    }

    /// Returns the chunks that become unused when version `without` of a plug-in is deleted, or all of it with `None`.
    pub fn orphans(&self, name: &str, without: Option<u32>) -> Vec<Key> {
        let Some(manifest) = self.plugin(name) else { return Vec::new() };
        let going = manifest.versions.iter().filter(|version| without.is_none_or(|number| number == version.number));
        let digests: Vec<Digest> = going.map(|version| version.digest).collect();
        self.unneeded(&digests, |user, version| user == name && without.is_none_or(|number| number == version.number))
    }

    /// Returns the chunks of this digest that no version uses.
    pub fn unclaimed(&self, digest: &Digest) -> Vec<Key> {
        self.unneeded(&[*digest], |_, _| false)
    }

    /// Returns the unused chunks that are too old to be part of a running push: those of an unfinished push or
    /// deletion.
    pub fn stale_chunks(&self, now_ms: i64) -> Vec<Key> {
        let needed: HashSet<&Digest> =
            self.plugins().flat_map(|user| user.versions.iter().map(|version| &version.digest)).collect();
        let free = self.chunks.iter().filter(|(digest, _)| !needed.contains(digest));
        let keys = free.flat_map(|(digest, chunks)| {
            let stale = chunks.iter().filter(|(_, place)| now_ms.saturating_sub(place.at_ms) > PUSH_MS_MAX);
            stale.map(|(index, _)| Key::Chunk { digest: *digest, index: *index })
        });
        keys.collect()
    }

    fn unneeded(&self, digests: &[Digest], is_going: impl Fn(&str, &Version) -> bool) -> Vec<Key> {
        let is_needed = |digest: &Digest| {
            let versions = self.plugins().flat_map(|user| user.versions.iter().map(move |version| (user, version)));
            versions.into_iter().any(|(user, version)| version.digest == *digest && !is_going(&user.name, version))
        };
        let free = digests.iter().filter(|digest| !is_needed(digest));
        let keys = free.flat_map(|digest| {
            let indexes = self.chunks.get(digest).into_iter().flat_map(|chunks| chunks.keys());
            indexes.map(|index| Key::Chunk { digest: *digest, index: *index })
        });
        keys.collect()
    }

    /// Returns the plug-in and version that use the chunks of this digest.
    pub fn user_of(&self, digest: &Digest) -> Option<(&str, u32)> {
        self.plugins().find_map(|user| Some((user.name.as_str(), user.with_digest(digest)?.number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tests::manifest;

    fn put(image: &mut PluginImage, offset: i64, key: &str, value: &[u8]) -> Result<Change, FormatError> {
        image.apply(offset, offset, Some(key.as_bytes()), Some(value))
    }

    fn with_chunks(numbers: &[u32]) -> PluginImage {
        let mut image = PluginImage::default();
        for number in numbers {
            let bytes = number.to_be_bytes();
            put(&mut image, i64::from(*number), &format!("chunk/{}/0", Digest::of(&bytes)), &bytes).unwrap();
        }
        image
    }

    #[test]
    fn of_two_changes_of_one_revision_the_first_wins() {
        let mut image = with_chunks(&[1, 2]);
        let first = manifest("a", &[1]);
        assert_eq!(put(&mut image, 10, "plugin/a", &first.to_bytes()), Ok(Change::Plugin("a".into())));
        assert_eq!(put(&mut image, 11, "plugin/a", &first.to_bytes()), Ok(Change::Nothing));
        let late = manifest("a", &[1, 2]);
        assert!(put(&mut image, 12, "plugin/a", &late.to_bytes()).unwrap_err().0.contains("is outdated"));
        assert_eq!(**image.plugin("a").unwrap(), first);
        let later = Manifest { revision: 7, ..late };
        assert_eq!(put(&mut image, 13, "plugin/a", &later.to_bytes()), Ok(Change::Plugin("a".into())));
        assert_eq!(image.apply(14, 14, Some(b"plugin/a"), None), Ok(Change::Plugin("a".into())));
        assert_eq!(image.apply(15, 15, Some(b"plugin/a"), None), Ok(Change::Nothing));
        assert!(image.plugin("a").is_none());
        assert_eq!(image.text_bytes, 0);
    }

    #[test]
    fn the_last_record_of_a_chunk_counts() {
        let mut image = with_chunks(&[1]);
        let version = manifest("a", &[1]).versions.remove(0);
        assert_eq!(image.places(&version), Ok(vec![Place { offset: 1, size: 4, at_ms: 1 }]));
        let key = format!("chunk/{}/0", version.digest);
        put(&mut image, 9, &key, &[0; 4]).unwrap();
        assert_eq!(image.places(&version), Ok(vec![Place { offset: 9, size: 4, at_ms: 9 }]));
        put(&mut image, 10, &key, &[0; 5]).unwrap();
        assert!(image.places(&version).unwrap_err().0.contains("5 bytes"));
        assert_eq!(image.apply(11, 11, Some(key.as_bytes()), None), Ok(Change::Chunk));
        assert!(image.places(&version).unwrap_err().0.contains("is missing"));
        assert_eq!((image.chunk_count, image.chunks.len()), (0, 0));
        assert!(put(&mut image, 12, &key, &[]).is_err());
        assert!(put(&mut image, 12, &key, &vec![0; CHUNK_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn only_unused_chunks_are_orphans() {
        let mut image = with_chunks(&[1, 2, 3]);
        put(&mut image, 10, "plugin/a", &manifest("a", &[1, 2]).to_bytes()).unwrap();
        put(&mut image, 11, "plugin/b", &manifest("b", &[2]).to_bytes()).unwrap();
        let chunk = |number: u32| Key::Chunk { digest: Digest::of(&number.to_be_bytes()), index: 0 };
        assert_eq!(image.orphans("a", None), [chunk(1)]);
        assert_eq!(image.orphans("a", Some(2)), []);
        assert_eq!(image.orphans("a", Some(1)), [chunk(1)]);
        assert_eq!(image.unclaimed(&Digest::of(&3u32.to_be_bytes())), [chunk(3)]);
        assert_eq!(image.unclaimed(&Digest::of(&2u32.to_be_bytes())), []);
        assert_eq!(image.user_of(&Digest::of(&2u32.to_be_bytes())), Some(("a", 2)));
        // Chunk 3 was written at 3 and may be part of a running push.
        assert_eq!(image.stale_chunks(3 + PUSH_MS_MAX), []);
        assert_eq!(image.stale_chunks(4 + PUSH_MS_MAX), [chunk(3)]);
    }

    #[test]
    fn the_total_of_texts_and_chunks_is_limited() {
        let mut image = PluginImage { text_bytes: TEXT_BYTES_MAX, ..PluginImage::default() };
        assert!(put(&mut image, 1, "plugin/a", &manifest("a", &[]).to_bytes()).unwrap_err().0.contains("together"));
        assert!(put(&mut image, 1, "topic/t", br#"{"stage.serializer":"json"}"#).is_err());
        image.chunk_count = CHUNKS_KEPT_MAX;
        assert!(put(&mut image, 1, &format!("chunk/{}/0", Digest::of(b"")), b"x").is_err());
    }
}
