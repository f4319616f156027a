//! The format of the records: keys, manifests, and their limits.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use millstream_stage::{Digest, Kind, StageSpec};
use serde::{Deserialize, Serialize};

/// The topic that stores plug-ins.
pub const TOPIC: &str = "__millstream_plugins";

/// The topic that stores the log lines of plug-ins; the key is the plug-in's name.
pub const LOGS_TOPIC: &str = "__millstream_plugin_logs";

/// The maximum size of a chunk, in bytes. Two fit into a batch of Kafka's default `max.message.bytes`.
pub const CHUNK_BYTES_MAX: usize = 512 * 1024;

/// The maximum size of a component, in bytes, as in the sandbox's profile `large`. The scan of each host rejects what
/// is over its own limit.
pub const SIZE_BYTES_MAX: u64 = 20 * 1024 * 1024;

/// The maximum chunks of a component. Forty are enough, but other writers may use smaller ones.
pub const CHUNKS_MAX: u32 = 64;

/// The maximum versions of a plug-in.
pub const VERSIONS_MAX: usize = 500;

/// The maximum entries of a history; older ones are dropped.
pub const HISTORY_MAX: usize = 100;

/// The maximum consecutive entries of a history about changes that were not made.
const NOTES_MAX: usize = 10;

/// The maximum size of a record other than a chunk, in bytes.
pub const MANIFEST_BYTES_MAX: usize = 512 * 1024;

/// The maximum length of a reason, in bytes; longer ones are truncated.
pub const REASON_BYTES_MAX: usize = 1024;

/// The maximum length of a plug-in's name and of its own version, in bytes, as in the sandbox.
const NAME_BYTES_MAX: usize = 64;

/// The configs of the topic: no record expires, a chunk always fits, and the age of a record does not depend on a
/// client's clock.
pub const TOPIC_CONFIGS: [(&str, &str); 3] =
    [("cleanup.policy", "compact"), ("max.message.bytes", "1048588"), ("message.timestamp.type", "LogAppendTime")];

const _: () = assert!(SIZE_BYTES_MAX <= CHUNKS_MAX as u64 * CHUNK_BYTES_MAX as u64);
// 500 versions of about 300 bytes, and 100 entries of a history at maximum length.
const _: () = assert!(VERSIONS_MAX * 400 + HISTORY_MAX * (REASON_BYTES_MAX + 200) < MANIFEST_BYTES_MAX);

/// A malformed record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FormatError(pub String);

fn bad<T>(problem: impl Into<String>) -> Result<T, FormatError> {
    Err(FormatError(problem.into()))
}

/// The key of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// Bytes of a component.
    Chunk {
        /// The digest of the whole component.
        digest: Digest,
        /// The chunk's index, from 0.
        index: u32,
    },
    /// A plug-in's manifest.
    Plugin(String),
    /// The stages of a topic.
    Topic(String),
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Chunk { digest, index } => write!(formatter, "chunk/{digest}/{index}"),
            Key::Plugin(name) => write!(formatter, "plugin/{name}"),
            Key::Topic(name) => write!(formatter, "topic/{name}"),
        }
    }
}

impl Key {
    /// Parses a key.
    ///
    /// # Errors
    /// [`FormatError`]: it is not of the three kinds, or malformed.
    pub fn parse(key: Option<&[u8]>) -> Result<Key, FormatError> {
        let Some(key) = key else {
            return bad("the record has no key; expected plugin/NAME, chunk/DIGEST/INDEX or topic/NAME");
        };
        let text = std::str::from_utf8(key).ok().filter(|text| text.len() <= 512);
        let Some(text) = text else { return bad("the key is not UTF-8 or longer than 512 bytes") };
        match text.split_once('/') {
            Some(("plugin", name)) => {
                check_name(name)?;
                Ok(Key::Plugin(name.to_owned()))
            }
            Some(("topic", name)) if is_topic_name(name) => Ok(Key::Topic(name.to_owned())),
            Some(("chunk", place)) => parse_chunk(place),
            _ => bad(format!("the key {text:?} is not plugin/NAME, chunk/DIGEST/INDEX or topic/NAME")),
        }
    }
}

fn parse_chunk(place: &str) -> Result<Key, FormatError> {
    let parsed = place.split_once('/').and_then(|(digest, index)| {
        let key = (Digest::from_str(digest).ok()?, index.parse::<u32>().ok()?);
        // Each key has one spelling; otherwise a chunk could exist twice.
        let is_plain = key.0.to_string() == digest && key.1.to_string() == index;
        (is_plain && key.1 < CHUNKS_MAX).then_some(key)
    });
    match parsed {
        Some((digest, index)) => Ok(Key::Chunk { digest, index }),
        None => bad(format!(
            "the key \"chunk/{place}\" is not chunk/DIGEST/INDEX with a SHA-256 in lower case and an index below \
             {CHUNKS_MAX}"
        )),
    }
}

/// Checks the name of a plug-in.
///
/// # Errors
/// [`FormatError`] names what is wrong.
pub fn check_name(name: &str) -> Result<(), FormatError> {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_plain) || name.ends_with(".wasm") {
        let shown: String = name.chars().take(NAME_BYTES_MAX).collect();
        return bad(format!(
            "{shown:?} is not a valid plug-in name: use letters, digits, `-`, `_` and `.`, at most {NAME_BYTES_MAX}, \
             not ending in .wasm"
        ));
    }
    Ok(())
}

fn is_topic_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= 249 && name.bytes().all(is_plain)
}

/// The complete state of one plug-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The plug-in's name, as in the record's key.
    pub name: String,
    /// Increases by one with every change.
    pub revision: u64,
    /// The plug-in's kind, which no version changes.
    #[serde(with = "text")]
    pub kind: Kind,
    /// The version used by stages that pin none. 0: the one in the binary, if it has one.
    pub active: u32,
    /// The number of the next version. Numbers are never reused.
    pub next: u32,
    /// The versions, oldest first.
    pub versions: Vec<Version>,
    /// The history, oldest entry first.
    pub history: Vec<Event>,
}

/// A version of a plug-in. Only `bad` can change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its number, the 3 of `NAME@3`.
    pub number: u32,
    /// The SHA-256 of the component.
    #[serde(with = "text")]
    pub digest: Digest,
    /// The size of the component, in bytes.
    pub size: u64,
    /// The number of its chunks.
    pub chunks: u32,
    /// The version that the plug-in reports.
    pub version: String,
    /// The time of the push, in milliseconds since the epoch.
    pub pushed_ms: i64,
    /// Why a rollback must skip it; `None` for a good version.
    #[serde(default)]
    pub bad: Option<String>,
}

/// An entry of a plug-in's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The time, in milliseconds since the epoch.
    pub at_ms: i64,
    /// The event.
    pub event: EventKind,
    /// The version. After an activation or a rollback, the one that is active now.
    pub version: u32,
    /// The reason; may be empty.
    #[serde(default)]
    pub reason: String,
}

/// The events of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// It was stored.
    Pushed,
    /// It was activated.
    Activated,
    /// It was activated because a later version was bad.
    RolledBack,
    /// Its activation was rejected, because it does not work for a stage that uses the plug-in.
    Refused,
    /// It failed too often and stays active, because no other version works.
    NotRolledBack,
    /// It was deleted.
    Deleted,
}

impl EventKind {
    /// Returns the name in a manifest.
    pub fn name(self) -> &'static str {
        match self {
            EventKind::Pushed => "pushed",
            EventKind::Activated => "activated",
            EventKind::RolledBack => "rolled-back",
            EventKind::Refused => "refused",
            EventKind::NotRolledBack => "not-rolled-back",
            EventKind::Deleted => "deleted",
        }
    }

    /// Returns whether the event activates a version.
    pub fn is_begin(self) -> bool {
        matches!(self, EventKind::Activated | EventKind::RolledBack)
    }

    /// Returns whether the event is about a change that was not made.
    fn is_note(self) -> bool {
        matches!(self, EventKind::Refused | EventKind::NotRolledBack)
    }
}

impl Manifest {
    /// Parses and checks the manifest of `name`.
    ///
    /// # Errors
    /// [`FormatError`]: it is too long, malformed, or inconsistent.
    pub fn parse(name: &str, value: &[u8]) -> Result<Manifest, FormatError> {
        let manifest: Manifest = parse_json(value)?;
        if manifest.name != name {
            return bad(format!("the manifest has the name {:?}", cut(&manifest.name, NAME_BYTES_MAX)));
        }
        manifest.check()?;
        Ok(manifest)
    }

    /// Encodes the value of its record.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest is plain data")
    }

    /// Returns the version with this number.
    pub fn version(&self, number: u32) -> Option<&Version> {
        self.versions.iter().find(|version| version.number == number)
    }

    /// Returns the version with the same bytes.
    pub fn with_digest(&self, digest: &Digest) -> Option<&Version> {
        self.versions.iter().find(|version| version.digest == *digest)
    }

    /// Returns the numbers of all versions as a text for users.
    pub fn numbers(&self) -> String {
        let numbers: Vec<String> = self.versions.iter().map(|version| version.number.to_string()).collect();
        if numbers.is_empty() { "none".to_owned() } else { numbers.join(", ") }
    }

    fn check(&self) -> Result<(), FormatError> {
        check_name(&self.name)?;
        if self.revision == 0 || self.next == 0 {
            return bad("revisions and numbers start at 1");
        }
        if self.versions.len() > VERSIONS_MAX {
            return bad(format!(
                "{} versions, but at most {VERSIONS_MAX} are allowed: delete old ones",
                self.versions.len()
            ));
        }
        if self.history.len() > HISTORY_MAX {
            return bad(format!("a history of {} entries, but at most {HISTORY_MAX} are allowed", self.history.len()));
        }
        let mut last = 0;
        for version in &self.versions {
            version.check()?;
            if version.number <= last || version.number >= self.next {
                return bad(format!("version {} is out of order", version.number));
            }
            last = version.number;
        }
        if self.active != 0 && self.version(self.active).is_none() {
            return bad(format!("version {} is active but does not exist", self.active));
        }
        self.history.iter().try_for_each(|event| check_reason(&event.reason))
    }

    /// Returns whether to add an entry about a change that was not made. Repeated entries are omitted and their
    /// number is limited, because they would displace more important entries.
    pub(crate) fn takes_note(&self, event: EventKind, version: u32, reason: &str) -> bool {
        let reason = reason_of(reason);
        let notes: Vec<&Event> = self.history.iter().rev().take_while(|event| event.event.is_note()).collect();
        let is_known = notes.iter().any(|it| (it.event, it.version, &it.reason) == (event, version, &reason));
        !is_known && notes.len() < NOTES_MAX
    }

    /// Adds an entry to the history and forgets the oldest if there are too many.
    pub(crate) fn record(&mut self, at_ms: i64, event: EventKind, version: u32, reason: &str) {
        let reason = reason_of(reason);
        self.history.push(Event { at_ms, event, version, reason });
        let forgotten = self.history.len().saturating_sub(HISTORY_MAX);
        self.history.drain(..forgotten);
    }
}

impl Version {
    fn check(&self) -> Result<(), FormatError> {
        let number = self.number;
        if self.size == 0 || self.size > SIZE_BYTES_MAX {
            return bad(format!("version {number} has {} bytes; 1 to {SIZE_BYTES_MAX} are allowed", self.size));
        }
        let room = u64::from(self.chunks) * CHUNK_BYTES_MAX as u64;
        if self.chunks == 0 || self.chunks > CHUNKS_MAX || self.size > room || self.size < u64::from(self.chunks) {
            return bad(format!("version {number} of {} bytes cannot lie in {} chunks", self.size, self.chunks));
        }
        let is_plain = |character: char| character.is_ascii_alphanumeric() || "-_.+".contains(character);
        if self.version.len() > NAME_BYTES_MAX || !self.version.chars().all(is_plain) {
            return bad(format!("version {number} reports an invalid version"));
        }
        self.bad.as_deref().map_or(Ok(()), check_reason)
    }
}

/// The stages of a topic, by config name.
pub type StageConfigs = BTreeMap<String, String>;

/// The configs of a topic that name the stages for its applications.
pub const STAGE_CONFIGS: [&str; 3] = ["stage.partitioner", "stage.serializer", "stage.compressor"];

/// Parses and checks the stages of a topic.
///
/// # Errors
/// [`FormatError`]: it is too long, not a JSON object of strings, or has an unknown config or a malformed stage.
pub fn parse_stage_configs(value: &[u8]) -> Result<StageConfigs, FormatError> {
    let configs: StageConfigs = parse_json(value)?;
    for (name, stage) in &configs {
        check_stage_config(name, stage)?;
    }
    Ok(configs)
}

/// Checks one stage of a topic.
///
/// # Errors
/// [`FormatError`] names the config and what is wrong.
pub fn check_stage_config(name: &str, stage: &str) -> Result<(), FormatError> {
    if !STAGE_CONFIGS.contains(&name) {
        return bad(format!("{:?} is not one of {}", cut(name, NAME_BYTES_MAX), STAGE_CONFIGS.join(", ")));
    }
    StageSpec::parse(stage).map(drop).map_err(|error| FormatError(format!("{name}: {error}")))
}

fn parse_json<T: serde::de::DeserializeOwned>(value: &[u8]) -> Result<T, FormatError> {
    if value.len() > MANIFEST_BYTES_MAX {
        return bad(format!("the value has {} bytes, but at most {MANIFEST_BYTES_MAX} are allowed", value.len()));
    }
    serde_json::from_slice(value).map_err(|error| FormatError(format!("unexpected JSON: {error}")))
}

/// Returns a reason without control characters, truncated to its maximum length.
pub(crate) fn reason_of(text: &str) -> String {
    let plain: String = text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    cut(&plain, REASON_BYTES_MAX).to_owned()
}

fn check_reason(text: &str) -> Result<(), FormatError> {
    if text.len() > REASON_BYTES_MAX || text.contains(char::is_control) {
        return bad(format!("a reason is longer than {REASON_BYTES_MAX} bytes or contains control characters"));
    }
    Ok(())
}

/// Truncates a text to at most `bytes_max` bytes, at a character boundary.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Serializes values in their display form.
mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D, T>(deserializer: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        T: FromStr<Err: Display>,
    {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Returns a manifest with these versions, the last one active.
    pub(crate) fn manifest(name: &str, numbers: &[u32]) -> Manifest {
        let version = |number: &u32| Version {
            number: *number,
            digest: Digest::of(&number.to_be_bytes()),
            size: 4,
            chunks: 1,
            version: format!("1.0.{number}"),
            pushed_ms: 1,
            bad: None,
        };
        let last = numbers.last().copied().unwrap_or(0);
        Manifest {
            name: name.to_owned(),
            revision: 1,
            kind: Kind::Filter,
            active: last,
            next: last + 1,
            versions: numbers.iter().map(version).collect(),
            history: Vec::new(),
        }
    }

    #[test]
    fn keys_have_one_spelling() {
        let digest = Digest::of(b"a");
        for key in [Key::Chunk { digest, index: 7 }, Key::Plugin("a-b_c.d".into()), Key::Topic("__x".into())] {
            assert_eq!(Key::parse(Some(key.to_string().as_bytes())), Ok(key));
        }
        let chunk = |index: &str| format!("chunk/{digest}/{index}");
        let upper = format!("chunk/{}/0", digest.to_string().to_uppercase());
        let long = format!("plugin/{}", "x".repeat(65));
        for text in [
            "",
            "plugin",
            "plugin/",
            "plugin/a b",
            "plugin/a/b",
            "plugin/x.wasm",
            "topic/",
            "topic/a/b",
            "chunk/ab/0",
            "manifest/a",
            &upper,
            &long,
            &chunk("64"),
            &chunk("-1"),
            &chunk("+1"),
            &chunk("01"),
            &chunk(""),
            &chunk("99999999999999999999"),
        ] {
            assert!(Key::parse(Some(text.as_bytes())).is_err(), "{text}");
        }
        assert!(Key::parse(None).is_err());
        assert!(Key::parse(Some(b"plugin/\xff")).is_err());
    }

    #[test]
    fn a_manifest_is_decoded_as_it_was_encoded() {
        let mut whole = manifest("a", &[1, 3]);
        whole.versions[0].bad = Some("it traps".into());
        whole.record(5, EventKind::RolledBack, 1, &"é\n".repeat(REASON_BYTES_MAX));
        assert!(whole.history[0].reason.len() <= REASON_BYTES_MAX);
        assert_eq!(Manifest::parse("a", &whole.to_bytes()), Ok(whole.clone()));
        let json: serde_json::Value = serde_json::from_slice(&whole.to_bytes()).unwrap();
        assert_eq!((&json["kind"], &json["history"][0]["event"]), (&"filter".into(), &"rolled-back".into()));
        for at_ms in 0..200 {
            whole.record(at_ms, EventKind::Activated, 3, "");
        }
        assert_eq!((whole.history.len(), whole.history[0].at_ms), (HISTORY_MAX, 100));
    }

    #[test]
    fn an_inconsistent_manifest_is_rejected() {
        let rejected = |change: fn(&mut Manifest)| {
            let mut manifest = manifest("a", &[1, 2]);
            change(&mut manifest);
            Manifest::parse("a", &manifest.to_bytes()).unwrap_err().0
        };
        assert!(rejected(|m| m.name = "b".into()).contains("has the name"));
        assert!(rejected(|m| m.revision = 0).contains("start at 1"));
        assert!(rejected(|m| m.active = 7).contains("active but does not exist"));
        assert!(rejected(|m| m.next = 2).contains("out of order"));
        assert!(rejected(|m| m.versions.reverse()).contains("out of order"));
        assert!(rejected(|m| m.versions[0].size = 0).contains("0 bytes"));
        assert!(rejected(|m| m.versions[0].size = SIZE_BYTES_MAX + 1).contains("bytes"));
        assert!(rejected(|m| m.versions[0].chunks = u32::MAX).contains("chunks"));
        assert!(rejected(|m| m.versions[0].chunks = 0).contains("chunks"));
        assert!(rejected(|m| m.versions[1].size = 1 << 20).contains("1 chunks"));
        assert!(rejected(|m| m.versions[1].version = "x".repeat(65)).contains("invalid version"));
        assert!(rejected(|m| m.versions[1].version = "\u{1b}[2J".into()).contains("invalid version"));
        assert!(rejected(|m| m.versions[1].bad = Some("a\nb".into())).contains("control characters"));
        assert!(
            rejected(|m| m.history = vec![
                m.history.first().cloned().unwrap_or(Event {
                    at_ms: 0,
                    event: EventKind::Pushed,
                    version: 1,
                    reason: String::new()
                });
                HISTORY_MAX + 1
            ])
            .contains("history")
        );
        assert!(rejected(|m| m.versions = vec![m.versions[0].clone(); VERSIONS_MAX + 1]).contains("versions"));
        assert!(Manifest::parse("a", b"{").is_err() && Manifest::parse("a", b"[]").is_err());
        assert!(Manifest::parse("a", &vec![b' '; MANIFEST_BYTES_MAX + 1]).unwrap_err().0.contains("at most"));
        assert!(Manifest::parse("a", "[".repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn stages_of_a_topic_are_checked() {
        let good = br#"{"stage.serializer":"json","stage.compressor":"zstd{\"level\":3}"}"#;
        assert_eq!(parse_stage_configs(good).unwrap().len(), 2);
        for bad in
            [&br#"{"stage.admit":"json"}"#[..], br#"{"stage.serializer":"a b"}"#, br#"{"stage.serializer":1}"#, b"[]"]
        {
            assert!(parse_stage_configs(bad).is_err());
        }
    }
}
