//! A plug-in: scanned, compiled and described, ready to be instantiated as often as it is needed.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use wasmtime::component::{Component, InstancePre};

use crate::contract::{Description, Kind, RawDescription};
use crate::engine::Engine;
use crate::error::LoadError;
use crate::host_imports::HostSide;
use crate::instance::{HostState, Instance, StartError};
use crate::scan::{Scan, scan};
use crate::spec::check_name;

/// The SHA-256 of a component's bytes: what a version is pinned by. Displays as hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// The digest itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
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

/// A loaded plug-in; clones are the same one.
#[derive(Clone)]
pub struct Plugin(Arc<Loaded>);

struct Loaded {
    engine: Engine,
    digest: Digest,
    size_bytes: usize,
    scan: Scan,
    description: Description,
    name: Arc<str>,
    version: Arc<str>,
    pre: InstancePre<HostState>,
}

impl fmt::Debug for Plugin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Plugin")
            .field("digest", &self.0.digest)
            .field("description", &self.0.description)
            .finish_non_exhaustive()
    }
}

impl Plugin {
    pub(crate) fn load(engine: &Engine, bytes: &[u8]) -> Result<Plugin, LoadError> {
        let scan = scan(bytes, engine.limits())?;
        let digest = Digest::of(bytes);
        let component = compiled(engine, &digest, bytes)?;
        let pre =
            engine.linker().instantiate_pre(&component).map_err(|error| LoadError::Contract(format!("{error:#}")))?;
        let side = Arc::new(HostSide::new("(loading)".into()));
        let mut instance = Instance::start(engine, &pre, scan.kind, side).map_err(|error| match error {
            StartError::Contract(problem) => LoadError::Contract(problem),
            StartError::Fault(fault) => LoadError::Start(fault),
        })?;
        let raw = instance.describe().map_err(LoadError::Start)?;
        let description = check(raw, scan.kind).map_err(LoadError::Description)?;
        Ok(Plugin(Arc::new(Loaded {
            engine: engine.clone(),
            digest,
            size_bytes: bytes.len(),
            scan,
            name: description.name.as_str().into(),
            version: description.version.as_str().into(),
            description,
            pre,
        })))
    }

    /// What the plug-in says about itself.
    pub fn description(&self) -> &Description {
        &self.0.description
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its own version.
    pub fn version(&self) -> &str {
        &self.0.version
    }

    /// What it is for.
    pub fn kind(&self) -> Kind {
        self.0.description.kind
    }

    /// The SHA-256 of the component.
    pub fn digest(&self) -> Digest {
        self.0.digest
    }

    /// The size of the component, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.0.size_bytes
    }

    /// What it imports, such as `millstream:stage/host@1.0.0`.
    pub fn imports(&self) -> &[String] {
        &self.0.scan.imports
    }

    /// What it exports, such as `describe`.
    pub fn exports(&self) -> &[String] {
        &self.0.scan.exports
    }

    /// What the scan found before it was compiled.
    pub fn scan(&self) -> &Scan {
        &self.0.scan
    }

    /// The engine that it was loaded into.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(crate) fn shared_name(&self) -> &Arc<str> {
        &self.0.name
    }

    pub(crate) fn shared_version(&self) -> &Arc<str> {
        &self.0.version
    }

    /// A fresh instance, not configured yet.
    pub(crate) fn instantiate(&self, side: Arc<HostSide>) -> Result<Instance, StartError> {
        Instance::start(&self.0.engine, &self.0.pre, self.kind(), side)
    }
}

/// The component as machine code: from the cache, or compiled and kept there.
fn compiled(engine: &Engine, digest: &Digest, bytes: &[u8]) -> Result<Component, LoadError> {
    if let Some(artefact) = engine.cache().and_then(|cache| cache.get(digest)) {
        match deserialize(engine, &artefact) {
            Ok(component) => return Ok(component),
            Err(error) => tracing::warn!(%digest, %error, "kept code is compiled again"),
        }
    }
    let artefact = engine.compiler().compile(engine.wasmtime(), bytes)?;
    let component = deserialize(engine, &artefact).map_err(|error| LoadError::Compile(format!("{error:#}")))?;
    if let Some(cache) = engine.cache() {
        cache.put(digest, &artefact);
    }
    Ok(component)
}

fn deserialize(engine: &Engine, artefact: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the artefact was made by `precompile_component` of this build: either a moment ago, by
    // this process or by its own child over a pipe that no one else holds, or it comes from the
    // cache, which gives only what carries a hash under this host's key. Bytes from a user are never
    // passed here: a precompiled file is refused by the scan.
    #[allow(unsafe_code)]
    unsafe {
        Component::deserialize(engine.wasmtime(), artefact)
    }
}

/// Checks what a plug-in says about itself.
fn check(raw: RawDescription, world: Kind) -> Result<Description, String> {
    check_name(&raw.name, "").map_err(|problem| format!("name: {problem}"))?;
    check_name(&raw.version, "+").map_err(|problem| format!("version: {problem}"))?;
    if raw.kind != world {
        return Err(format!("it says that it is a {}, and exports a {world}", raw.kind));
    }
    if raw.format.is_some() != (world == Kind::Compressor) {
        return Err("a compressor has a format, and nothing else has".to_owned());
    }
    if let Some(crate::contract::Format::Private(name)) = &raw.format {
        check_name(name, "").map_err(|problem| format!("format: {problem}"))?;
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
    use crate::contract::{Columns, Format, RawColumns};

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
    }
}
