//! The folder of `--plugins`: every component in it is pushed when the broker starts, unless it is known, and when it
//! changes. A broken file is logged and changes nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millstream_partition::now_ms;
use millstream_registry::TOPIC;
use millstream_registry::format::{Key, Manifest, SIZE_BYTES_MAX};
use millstream_registry::plan::{NewVersion, chunks};
use millstream_stage::{Digest, Watcher};
use millstream_wire::ErrorCode;
use tokio::sync::{mpsc, watch};

use super::error::PushError;
use super::own::Own;
use crate::blocking::blocking;
use crate::cluster::{EdgeCall, EdgeReply};
use crate::edge::context::{Edge, MetadataChanges};
use crate::edge::leaders;
use crate::error::ApiError;

/// The time for which a push is tried while the topic has no leader.
const PUSH_WAIT: Duration = Duration::from_secs(60);

/// A folder that is followed.
pub(super) struct Folder {
    edge: Arc<Edge>,
    changes: Arc<dyn MetadataChanges>,
    /// The digest of each file when it was last read.
    seen: BTreeMap<PathBuf, Digest>,
    changed: mpsc::UnboundedReceiver<PathBuf>,
    /// Ends with this value.
    _watcher: Option<Watcher>,
}

impl Folder {
    /// Pushes the components in the folder, by name, and watches it from now on.
    pub(super) async fn open(edge: &Arc<Edge>, changes: &Arc<dyn MetadataChanges>, folder: &Path) -> Folder {
        let (sender, changed) = mpsc::unbounded_channel();
        // The watcher starts before the first look: a change in between is then seen twice, but never missed.
        let watcher = Watcher::folder(folder, move |path| {
            // The receiver lives as long as the broker.
            let _ = sender.send(path.to_owned());
        });
        let watcher = watcher.map_err(|error| tracing::error!(folder = %folder.display(), "{error}")).ok();
        let (edge, seen) = (Arc::clone(edge), BTreeMap::new());
        let mut opened = Folder { edge, changes: Arc::clone(changes), seen, changed, _watcher: watcher };
        match components(folder) {
            Ok(paths) => {
                for path in paths {
                    opened.look(&path).await;
                }
            }
            Err(error) => tracing::error!(folder = %folder.display(), "cannot read the folder of plug-ins: {error}"),
        }
        opened
    }

    /// Pushes changed files until the broker stops.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            let path = tokio::select! {
                path = self.changed.recv() => path,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match path {
                Some(path) => self.look(&path).await,
                None => return,
            }
        }
    }

    /// Reads a file, and pushes it if it has changed.
    async fn look(&mut self, path: &Path) {
        let shown = path.display();
        let from = path.to_owned();
        let read = tokio::task::spawn_blocking(move || read(&from)).await;
        let component = match read.map_err(std::io::Error::other).flatten() {
            Ok(component) => component,
            Err(error) => return tracing::error!(path = %shown, "cannot read a plug-in: {error}"),
        };
        let digest = Digest::of(&component);
        let before = self.seen.insert(path.to_owned(), digest);
        if before == Some(digest) {
            return;
        }
        let is_first_look = before.is_none();
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let call = EdgeCall::Push { file, is_first_look };
        let pushed = async {
            self.changes.ensure_topic(TOPIC).await?;
            leaders::ask(&self.edge, &self.changes, TOPIC, (call, component.into()), PUSH_WAIT).await
        };
        match pushed.await {
            Ok(EdgeReply::Pushed { is_new: true }) => tracing::info!(path = %shown, %digest, "pushed"),
            Ok(_) => {}
            Err(error) => tracing::error!(path = %shown, "not used, what served before serves on: {error}"),
        }
    }
}

/// Returns the components of a folder, by name, so that the same folder always gives the same versions.
fn components(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    // The watcher uses absolute paths too.
    let folder = std::path::absolute(folder)?;
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Reads a file up to the size limit and one byte more, which the checks reject.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut component = Vec::new();
    // Reading a pipe would block everything after it.
    if !path.metadata()?.is_file() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file"));
    }
    File::open(path)?.take(SIZE_BYTES_MAX + 1).read_to_end(&mut component)?;
    Ok(component)
}

/// Pushes a component, as the leader of the topic. Returns whether the store did not have it yet.
///
/// # Errors
/// Another broker leads, or the component is rejected.
pub(in crate::edge) async fn push_here(
    edge: &Arc<Edge>,
    changes: &Arc<dyn MetadataChanges>,
    component: &Bytes,
    is_first_look: bool,
    file: &str,
) -> Result<bool, ApiError> {
    let own = Own::lock(edge, changes).await?;
    push(&own, component, is_first_look, file).await.map_err(|error| match error {
        PushError::Write(error) => error,
        error => ApiError::new(ErrorCode::INVALID_RECORD, error.to_string()),
    })
}

/// Pushes a component. Returns whether the store did not have it yet.
async fn push(own: &Own, component: &Bytes, is_first_look: bool, file: &str) -> Result<bool, PushError> {
    let (edge, bytes) = (Arc::clone(own.edge()), component.clone());
    let load = move || Ok::<_, PushError>(edge.plugins.library()?.engine().load(&bytes)?);
    let plugin = blocking(load).await??;
    let (name, digest, image) = (plugin.name(), plugin.digest(), own.image());
    let is_known = image.plugin(name).is_some_and(|known| known.with_digest(&digest).is_some());
    // The file has not changed since the broker stopped. Its version may have been marked as bad since then, and a
    // start does not undo that.
    if is_first_look && is_known {
        return Ok(false);
    }
    let new = NewVersion { name, kind: plugin.kind(), digest, size: component.len() as u64, version: plugin.version() };
    let plan = image.plan_push(new, true, file, now_ms())?;
    let Some(manifest) = plan.manifest else { return Ok(false) };
    for key in image.stale_chunks(now_ms()) {
        own.write(&key, None).await?;
    }
    let pushed = push_records(own, component, &manifest).await;
    if pushed.is_err() {
        // Rejected chunks must not stay for ever.
        for key in own.image().unclaimed(&digest) {
            own.write(&key, None).await?;
        }
    }
    Ok(pushed.map(|()| true)?)
}

async fn push_records(own: &Own, component: &[u8], manifest: &Manifest) -> Result<(), ApiError> {
    let (image, digest) = (own.image(), Digest::of(component));
    for (index, chunk) in (0..).zip(chunks(component)) {
        if image.place(&digest, index).is_none_or(|place| place.size as usize != chunk.len()) {
            own.write(&Key::Chunk { digest, index }, Some(chunk)).await?;
        }
    }
    own.write(&Key::Plugin(manifest.name.clone()), Some(&manifest.to_bytes())).await
}
