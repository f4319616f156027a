//! Loads a plug-in: scans, compiles and describes it, so that it can be instantiated.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Weak};

use sha2::{Digest as _, Sha256};
use wasmtime::component::{Component, InstancePre};

use crate::contract::{Description, Format, Kind, RawDescription};
use crate::engine::{Engine, Runtime, Trust};
use crate::error::LoadError;
use crate::failure_detector::{Health, SpikeLimits};
use crate::host_imports::{Caller, HostSide};
use crate::instance::{HostState, Instance, StartError};
use crate::scan::Scan;
use crate::source::VersionName;
use crate::spec::{NameError, check_name};

/// The SHA-256 of a component, which identifies a version. Displays as hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Computes the digest of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// Restores a digest from its bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }

    /// Returns the bytes of the digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A text that is not a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is 64 hexadecimal digits")]
pub struct DigestError;

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut digest = [0; 32];
        let pairs = text.as_bytes().chunks_exact(2);
        let is_hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex {
            return Err(DigestError);
        }
        let value = |digit: u8| (digit as char).to_digit(16).unwrap_or_default() as u8;
        for (byte, pair) in digest.iter_mut().zip(pairs) {
            *byte = value(pair[0]) << 4 | value(pair[1]);
        }
        Ok(Digest(digest))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A loaded plug-in. Clones share it.
#[derive(Clone)]
pub struct Plugin {
    /// The name in this host: the one that it states, unless it was stored under another.
    name: Arc<str>,
    loaded: Arc<Loaded>,
    /// Its counters and failures, in all stages.
    health: Arc<Health>,
}

struct Loaded {
    engine: Engine,
    trust: Trust,
    digest: Digest,
    size_bytes: usize,
    scan: Scan,
    description: Description,
    version: Arc<str>,
    pre: InstancePre<HostState>,
}

impl fmt::Debug for Plugin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Plugin")
            .field("digest", &self.loaded.digest)
            .field("description", &self.loaded.description)
            .finish_non_exhaustive()
    }
}

impl Plugin {
    pub(crate) fn load(engine: &Engine, bytes: &[u8], trust: Trust) -> Result<Plugin, LoadError> {
        let digest = Digest::of(bytes);
        let scan = engine.scanned().scan(&digest, bytes, engine.limits())?;
        let runtime = engine.runtime(trust)?;
        let component = compiled(engine, trust, runtime, &digest, bytes)?;
        let pre =
            runtime.linker.instantiate_pre(&component).map_err(|error| LoadError::Contract(format!("{error:#}")))?;
        let mut instance =
            Instance::start(engine, trust, &pre, scan.kind, Caller::unknown()).map_err(|error| match error {
                StartError::Contract(problem) => LoadError::Contract(problem),
                StartError::Fault(fault) => LoadError::Start(fault),
            })?;
        let raw = instance.describe().map_err(LoadError::Start)?;
        let description = check(raw, scan.kind).map_err(LoadError::Description)?;
        let loaded = Loaded {
            engine: engine.clone(),
            trust,
            digest,
            size_bytes: bytes.len(),
            scan,
            version: description.version.as_str().into(),
            description,
            pre,
        };
        let name = loaded.description.name.as_str().into();
        let health = Arc::new(Health::new(SpikeLimits::default(), None));
        Ok(Plugin { name, loaded: Arc::new(loaded), health })
    }

    /// Returns the same code under another name, with other counters.
    pub(crate) fn known_as(&self, name: &str, health: Arc<Health>) -> Plugin {
        Plugin { name: name.into(), loaded: Arc::clone(&self.loaded), health }
    }

    /// Returns whether it is the same code under the same name.
    pub(crate) fn is_same(&self, other: &Plugin) -> bool {
        Arc::ptr_eq(&self.loaded, &other.loaded) && self.name == other.name
    }

    pub(crate) fn is_version(&self, name: &str, digest: Digest) -> bool {
        *self.name == *name && self.loaded.digest == digest
    }

    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    /// Returns a handle that does not keep the code in memory.
    pub(crate) fn downgrade(&self) -> WeakPlugin {
        let loaded = Arc::downgrade(&self.loaded);
        WeakPlugin { name: Arc::clone(&self.name), loaded, health: Arc::clone(&self.health) }
    }

    /// Returns the description that the plug-in gives of itself.
    pub fn description(&self) -> &Description {
        &self.loaded.description
    }

    /// Returns its name in this host. Its description has the name that it states.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the version that it states.
    pub fn version(&self) -> &str {
        &self.loaded.version
    }

    /// Returns its number in a store, or [`EMBEDDED_NUMBER`](crate::EMBEDDED_NUMBER), if it has one.
    pub fn number(&self) -> Option<u32> {
        self.health.number()
    }

    /// Returns the version for display.
    pub fn version_name(&self) -> VersionName<'_> {
        VersionName { plugin: &self.name, version: &self.loaded.version, number: self.number() }
    }

    /// Returns its kind.
    pub fn kind(&self) -> Kind {
        self.loaded.description.kind
    }

    /// Returns the SHA-256 of the component.
    pub fn digest(&self) -> Digest {
        self.loaded.digest
    }

    /// Returns the size of the component, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.loaded.size_bytes
    }

    /// Returns its imports, such as `millstream:stage/host@1.0.0`.
    pub fn imports(&self) -> &[String] {
        &self.loaded.scan.imports
    }

    /// Returns its exports, such as `describe`.
    pub fn exports(&self) -> &[String] {
        &self.loaded.scan.exports
    }

    /// Returns the result of the scan.
    pub fn scan(&self) -> &Scan {
        &self.loaded.scan
    }

    /// Returns how far it is trusted, and so whether its calls have a deadline.
    pub fn trust(&self) -> Trust {
        self.loaded.trust
    }

    /// Returns the engine that it was loaded into.
    pub fn engine(&self) -> &Engine {
        &self.loaded.engine
    }

    pub(crate) fn shared_name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn shared_version(&self) -> &Arc<str> {
        &self.loaded.version
    }

    /// Creates an instance, which is not configured yet.
    pub(crate) fn instantiate(&self, side: Arc<HostSide>) -> Result<Instance, StartError> {
        let caller = Caller { side, version: Arc::clone(&self.loaded.version), health: Arc::clone(&self.health) };
        Instance::start(&self.loaded.engine, self.loaded.trust, &self.loaded.pre, self.kind(), caller)
    }
}

/// Refers to a [`Plugin`] that may have been dropped.
pub(crate) struct WeakPlugin {
    name: Arc<str>,
    loaded: Weak<Loaded>,
    pub(crate) health: Arc<Health>,
}

impl WeakPlugin {
    pub(crate) fn upgrade(&self) -> Option<Plugin> {
        let loaded = self.loaded.upgrade()?;
        Some(Plugin { name: Arc::clone(&self.name), loaded, health: Arc::clone(&self.health) })
    }
}

/// Returns the component as machine code: from the cache, or compiled and kept there.
fn compiled(
    engine: &Engine,
    trust: Trust,
    runtime: &Runtime,
    digest: &Digest,
    bytes: &[u8],
) -> Result<Component, LoadError> {
    if let Some(cache) = &runtime.cache
        && let Some(artefact) = cache.get(digest)
    {
        match deserialize(runtime, &artefact) {
            Ok(component) => return Ok(component),
            Err(error) => cache.reject(digest, error),
        }
    }
    let artefact = engine.compiler().compile(&runtime.wasmtime, trust, engine.limits(), bytes)?;
    let component = deserialize(runtime, &artefact).map_err(|error| LoadError::Compile(format!("{error:#}")))?;
    if let Some(cache) = &runtime.cache {
        cache.put(digest, &artefact);
    }
    Ok(component)
}

fn deserialize(runtime: &Runtime, artefact: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the artefact was made by `precompile_component` of this build. Either this process or its own child made
    // it just now, over a pipe that no other process holds. Or it comes from the cache, which returns only artefacts
    // with a hash under this host's key. Bytes from a user are never passed here: the scan rejects a precompiled file.
    #[allow(unsafe_code, reason = "see above")]
    unsafe {
        Component::deserialize(&runtime.wasmtime, artefact)
    }
}

/// A description that a plug-in gives of itself is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptionError {
    /// Its name is not valid.
    #[error("name: {0}")]
    Name(NameError),
    /// Its version is not valid.
    #[error("version: {0}")]
    Version(NameError),
    /// The name of its compression format is not valid.
    #[error("format: {0}")]
    FormatName(NameError),
    /// It exports the functions of another kind.
    #[error("it describes itself as a {described}, but exports the functions of a {exported}")]
    OtherKind {
        /// The kind in its description.
        described: Kind,
        /// The kind of its exports.
        exported: Kind,
    },
    /// A compressor without a format.
    #[error("a compressor must state its format")]
    FormatMissing,
    /// A format of a plug-in that is not a compressor.
    #[error("a {0} must not state a format: only compressors have one")]
    FormatNotAllowed(Kind),
    /// A built-in plug-in is registered under a name that it does not have.
    #[error("it describes itself as `{0}`")]
    OtherName(String),
}

/// Checks the description that a plug-in gives of itself.
fn check(raw: RawDescription, world: Kind) -> Result<Description, DescriptionError> {
    check_name(&raw.name, "").map_err(DescriptionError::Name)?;
    check_name(&raw.version, "+").map_err(DescriptionError::Version)?;
    if raw.kind != world {
        return Err(DescriptionError::OtherKind { described: raw.kind, exported: world });
    }
    match (world, &raw.format) {
        (Kind::Compressor, None) => return Err(DescriptionError::FormatMissing),
        (Kind::Compressor, Some(Format::Private(name))) => {
            check_name(name, "").map_err(DescriptionError::FormatName)?;
        }
        (Kind::Compressor, Some(_)) | (_, None) => {}
        (other, Some(_)) => return Err(DescriptionError::FormatNotAllowed(other)),
    }
    Ok(Description {
        name: raw.name,
        version: raw.version,
        kind: raw.kind,
        columns: raw.columns.into(),
        format: raw.format,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Columns, RawColumns};

    fn raw(name: &str, kind: Kind, format: Option<Format>) -> RawDescription {
        RawDescription {
            name: name.to_owned(),
            version: "1.0.0+a".to_owned(),
            kind,
            columns: RawColumns::KEYS | RawColumns::HEADERS,
            format,
        }
    }

    #[test]
    fn a_description_is_checked() {
        let good = check(raw("a", Kind::Filter, None), Kind::Filter).unwrap();
        let columns = Columns { keys: true, headers: true, ..Columns::NONE };
        assert_eq!(good.columns, columns);
        assert!(check(raw("a b", Kind::Filter, None), Kind::Filter).is_err());
        assert!(check(raw("", Kind::Filter, None), Kind::Filter).is_err());
        assert!(check(raw("a", Kind::Filter, None), Kind::Compressor).is_err());
        assert!(check(raw("a", Kind::Compressor, None), Kind::Compressor).is_err());
        assert!(check(raw("a", Kind::Filter, Some(Format::Lz4)), Kind::Filter).is_err());
        let own = Some(Format::Private("x/y".to_owned()));
        assert!(check(raw("a", Kind::Compressor, own), Kind::Compressor).is_err());
    }

    #[test]
    fn a_digest_shows_as_hexadecimal() {
        let text = Digest::of(b"").to_string();
        assert!(text.starts_with("e3b0c44298fc1c14") && text.len() == 64);
        assert_eq!(text.parse(), Ok(Digest::of(b"")));
        assert!(text[1..].parse::<Digest>().is_err() && "ä".repeat(32).parse::<Digest>().is_err());
    }
}
