//! Keeps compiled code on disk, so that a plug-in starts in 0.2 ms instead of 60 to 190.
//!
//! Machine code is trusted when it is loaded, so only files that this host wrote are loaded. The folder
//! and its files belong to this user, and no other user may write to them. Each file carries a keyed
//! hash (HMAC-SHA-256) of its contents and of what it was compiled for. A file that fails a check is
//! compiled again and replaced.
//!
//! The cache is only a cache: a folder that cannot be used costs compilations and one warning.
//!
//! ```text
//! FOLDER/key                                  32 random bytes
//! FOLDER/<component digest>-<engine>.stage    magic (8), hash (32), artefact
//! ```

use std::fmt;
use std::fs::{self, File, Metadata};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use memmap2::MmapMut;
use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};

use crate::checks;
use crate::engine::Trust;
use crate::plugin::Digest;

const MAGIC: [u8; 8] = *b"mstage01";
const KEY_BYTES: usize = 32;
const HASH_BYTES: usize = 32;
const HEADER_BYTES: usize = MAGIC.len() + HASH_BYTES;

/// The block of SHA-256, to which HMAC pads its key.
const HMAC_BLOCK_BYTES: usize = 64;

/// The largest size of the folder, in bytes: about a thousand plug-ins. The files that were unused for the longest time
/// are removed first.
const FOLDER_BYTES_MAX: u64 = 512 << 20;

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// A temporary file of this age was left by a process that ended while it wrote.
const LEFTOVER_AGE: Duration = Duration::from_secs(3600);

/// How often the key is read or created before the folder is given up. Each retry means that another process changed
/// it.
const KEY_ATTEMPTS: u32 = 8;

/// The mode bits that let other users write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Why the folder, or a file in it, is not used.
#[derive(Debug, thiserror::Error)]
enum CacheError {
    #[error("it belongs to user {0}, and this process runs as user {1}")]
    OtherOwner(u32, u32),
    #[error("other users may write to it (mode {:o}): run `chmod go-w` on it", .0 & 0o7777)]
    WritableByOthers(u32),
    #[error("it is not a regular file")]
    NotAFile,
    #[error("it is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    #[error("it was not written by this host, or is damaged")]
    NotOurs,
    #[error("the file `key` in it cannot be used: {0}")]
    Key(#[source] Box<CacheError>),
    #[error("another process keeps replacing the file `key` in it")]
    KeyChanges,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl CacheError {
    fn is_not_found(&self) -> bool {
        matches!(self, CacheError::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// The folder, shared by the engines of a process.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    key: [u8; KEY_BYTES],
    /// Whether a problem was logged as a warning. Later problems are logged at debug level.
    warned: AtomicBool,
}

impl Folder {
    /// Opens the folder, and creates it if it is missing. Logs a warning and returns `None` if it cannot be used.
    pub(crate) fn open(path: &Path) -> Option<Arc<Folder>> {
        match Folder::try_open(path) {
            Ok(folder) => Some(Arc::new(folder)),
            Err(error) => {
                let folder = path.display();
                let message = "the cache of compiled plug-ins is off: each process compiles them again";
                tracing::warn!(%folder, %error, "{message}");
                None
            }
        }
    }

    fn try_open(path: &Path) -> Result<Folder, CacheError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        check_owner(&fs::metadata(path)?)?;
        let (key, is_replaced) = open_key(path)?;
        let folder = Folder { path: path.to_owned(), key, warned: AtomicBool::default() };
        if is_replaced {
            folder.warn("key", "the key of the cache was damaged and is replaced: plug-ins are compiled again");
        }
        Ok(folder)
    }

    /// Logs a problem with a file of the folder: the first one as a warning.
    fn warn(&self, file: &str, problem: impl fmt::Display) {
        let folder = self.path.display();
        if self.warned.swap(true, Ordering::Relaxed) {
            tracing::debug!(%folder, file, "{problem}");
        } else {
            tracing::warn!(%folder, file, "{problem}");
        }
    }
}

/// A file of the cache with its artefact, in memory of its own. Megabytes on the heap would stay with the process:
/// versions are loaded on many threads, and the allocator keeps what each of them frees.
#[derive(Debug)]
pub(crate) struct Artefact(MmapMut);

impl Artefact {
    fn header(&self) -> &[u8] {
        &self.0[..HEADER_BYTES]
    }
}

impl Deref for Artefact {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0[HEADER_BYTES..]
    }
}

/// The compiled code of one engine.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: Arc<Folder>,
    /// Names the engine's version, its settings and the processor.
    engine: String,
}

impl Cache {
    pub(crate) fn new(folder: Arc<Folder>, engine: &wasmtime::Engine, trust: Trust) -> Cache {
        Cache { folder, engine: engine_name(engine, trust) }
    }

    /// Returns the artefact of a component, if this host wrote one for this engine.
    pub(crate) fn get(&self, digest: &Digest) -> Option<Artefact> {
        match self.read(digest) {
            Ok(artefact) => Some(artefact),
            Err(error) if error.is_not_found() => None,
            Err(error) => {
                self.reject(digest, error);
                None
            }
        }
    }

    /// Keeps an artefact. A failure costs a compilation in a later process, so it is only logged.
    pub(crate) fn put(&self, digest: &Digest, artefact: &[u8]) {
        if let Err(error) = self.write(digest, artefact) {
            let problem = format!("cannot keep compiled code: {error}; the next process compiles it again");
            self.folder.warn(&self.file(digest), problem);
        }
    }

    /// Logs why the artefact of a component is not used.
    pub(crate) fn reject(&self, digest: &Digest, error: impl fmt::Display) {
        self.folder.warn(&self.file(digest), format!("compiled code is not used: {error}; it is compiled again"));
    }

    fn read(&self, digest: &Digest) -> Result<Artefact, CacheError> {
        let (mut file, length) = open_own(&self.path(digest))?;
        if length < HEADER_BYTES {
            return Err(CacheError::NotOurs);
        }
        let mut bytes = MmapMut::map_anon(length)?;
        file.read_exact(&mut bytes)?;
        let artefact = Artefact(bytes);
        let (magic, hash) = artefact.header().split_at(MAGIC.len());
        if magic != MAGIC || hash != self.hash(digest, &artefact) {
            return Err(CacheError::NotOurs);
        }
        Ok(artefact)
    }

    fn write(&self, digest: &Digest, artefact: &[u8]) -> io::Result<()> {
        let hash = self.hash(digest, artefact);
        write_whole(&self.path(digest), &[&MAGIC, &hash, artefact])?;
        prune(&self.folder.path, FOLDER_BYTES_MAX, SystemTime::now())
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.path.join(self.file(digest))
    }

    fn file(&self, digest: &Digest) -> String {
        format!("{digest}-{}.stage", self.engine)
    }

    /// Computes HMAC-SHA-256 (RFC 2104) over what the artefact was compiled for, and the artefact.
    fn hash(&self, digest: &Digest, artefact: &[u8]) -> [u8; HASH_BYTES] {
        let pad = |with: u8| {
            let mut block = [with; HMAC_BLOCK_BYTES];
            for (byte, key) in block.iter_mut().zip(self.folder.key) {
                *byte ^= key;
            }
            block
        };
        // The digest and the engine's name have fixed lengths, so different inputs never concatenate to the same bytes.
        let inner = Sha256::new()
            .chain_update(pad(0x36))
            .chain_update(digest.as_bytes())
            .chain_update(&self.engine)
            .chain_update(artefact)
            .finalize();
        Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
    }
}

/// Returns sixteen hexadecimal digits that differ where compiled code may not be shared.
fn engine_name(engine: &wasmtime::Engine, trust: Trust) -> String {
    struct Sha(Sha256);
    impl Hasher for Sha {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            let hash = self.0.clone().finalize();
            hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
        }
    }
    let mut hasher = Sha(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    // Both kinds of code have the same engine, but only one has checks.
    let checks = match trust {
        Trust::Foreign => checks::VERSION,
        Trust::Own => 0,
    };
    checks.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Checks that a file or folder belongs to this user, and that no other user may write to it.
fn check_owner(metadata: &Metadata) -> Result<(), CacheError> {
    let own_user = rustix::process::geteuid().as_raw();
    if metadata.uid() != own_user {
        return Err(CacheError::OtherOwner(metadata.uid(), own_user));
    }
    if metadata.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(CacheError::WritableByOthers(metadata.mode()));
    }
    Ok(())
}

/// Reads the folder's key, or creates one; also returns whether a damaged one was replaced. Two processes that create
/// one at once agree, since only the first can link its file to the name.
fn open_key(folder: &Path) -> Result<([u8; KEY_BYTES], bool), CacheError> {
    let path = folder.join("key");
    let mut is_replaced = false;
    for _ in 0..KEY_ATTEMPTS {
        match read_own(&path).map(<[u8; KEY_BYTES]>::try_from) {
            Ok(Ok(key)) => return Ok((key, is_replaced)),
            // Cut, as by a full disk.
            Ok(Err(_)) => {
                is_replaced = true;
                fs::remove_file(&path)?;
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(CacheError::Key(Box::new(error))),
        }
        create_key(&path)?;
    }
    Err(CacheError::KeyChanges)
}

fn create_key(path: &Path) -> io::Result<()> {
    let mut key = [0; KEY_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    let temporary = write_temporary(path, &[&key])?;
    let linked = fs::hard_link(&temporary, path);
    let _ = fs::remove_file(&temporary);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Reads a small file as [`open_own`] opens it.
fn read_own(path: &Path) -> Result<Vec<u8>, CacheError> {
    let (mut file, length) = open_own(path)?;
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Opens a regular file of this user that no other user may write, without following a link. Returns its size too.
fn open_own(path: &Path) -> Result<(File, usize), CacheError> {
    // Without NONBLOCK, opening a pipe would wait for a writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let descriptor: OwnedFd = rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from)?;
    let file = File::from(descriptor);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(CacheError::NotAFile);
    }
    check_owner(&metadata)?;
    if metadata.len() > FILE_BYTES_MAX {
        return Err(CacheError::TooLarge);
    }
    // For `prune`. A file system that rejects this costs no more than a compilation.
    let _ = file.set_modified(SystemTime::now());
    Ok((file, metadata.len() as usize))
}

/// Removes what killed processes left, and the artefacts of any engine that were unused for the longest time, until the
/// others have at most `bytes_max` bytes. Files of other names are left alone.
fn prune(folder: &Path, bytes_max: u64, now: SystemTime) -> io::Result<()> {
    let mut artefacts = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // Another process may have just removed it.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let Ok(modified) = metadata.modified() else { continue };
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("stage") if metadata.is_file() => artefacts.push((modified, metadata.len(), path)),
            Some("tmp") if now.duration_since(modified).is_ok_and(|age| age > LEFTOVER_AGE) => {
                let _ = fs::remove_file(path);
            }
            _ => {}
        }
    }
    artefacts.sort_unstable_by(|one, other| other.cmp(one));
    let mut bytes: u64 = 0;
    for (_, len, path) in artefacts {
        bytes = bytes.saturating_add(len);
        if bytes > bytes_max {
            // What cannot be removed is retried after the next compilation.
            let _ = fs::remove_file(path);
        }
    }
    Ok(())
}

/// Writes a file so that a reader sees all of it or nothing.
fn write_whole(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let temporary = write_temporary(path, parts)?;
    fs::rename(&temporary, path).inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

fn write_temporary(path: &Path, parts: &[&[u8]]) -> io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("{}-{number}.tmp", std::process::id()));
    let _ = fs::remove_file(&temporary);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let written = parts.iter().try_for_each(|part| file.write_all(part));
    written.inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })?;
    Ok(temporary)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::engine::{Trust, compiler_engine};
    use crate::limits::Limits;

    fn cache(folder: &Path) -> Cache {
        let engine = compiler_engine(&Limits::default()).unwrap();
        Cache::new(Folder::open(folder).unwrap(), &engine, Trust::Foreign)
    }

    #[test]
    fn keeps_what_it_wrote_for_a_later_process() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("cache");
        let digest = Digest::of(b"component");
        cache(&folder).put(&digest, b"artefact");
        let later = cache(&folder);
        assert_eq!(later.get(&digest).as_deref(), Some(&b"artefact"[..]));
        assert!(later.get(&Digest::of(b"other")).is_none());
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&later.path(&digest)), 0o600);
    }

    #[test]
    fn the_longest_unused_file_is_removed_first() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let digests: Vec<Digest> = (0..4_u8).map(|number| Digest::of(&[number])).collect();
        for (second, digest) in digests.iter().enumerate() {
            cache.put(digest, &[0; 1000]);
            let old = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(second as u64);
            File::options().write(true).open(cache.path(digest)).unwrap().set_modified(old).unwrap();
        }
        assert!(cache.get(&digests[0]).is_some(), "used now");
        prune(folder.path(), 2500, SystemTime::now()).unwrap();
        let kept: Vec<bool> = digests.iter().map(|digest| cache.get(digest).is_some()).collect();
        assert_eq!(kept, [true, false, false, true]);
        assert!(folder.path().join("key").exists());
    }

    #[test]
    fn a_file_that_was_touched_is_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let digest = Digest::of(b"component");
        cache.put(&digest, b"artefact");
        let path = cache.path(&digest);
        let good = fs::read(&path).unwrap();
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert!(cache.get(&digest).is_none(), "byte {index}");
        }
        for length in 0..good.len() {
            fs::write(&path, &good[..length]).unwrap();
            assert!(cache.get(&digest).is_none(), "length {length}");
        }
        fs::write(&path, &good).unwrap();
        assert!(cache.get(&digest).is_some());
    }

    #[test]
    fn a_file_of_another_component_or_key_is_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        cache.put(&one, b"artefact");
        fs::copy(cache.path(&one), cache.path(&two)).unwrap();
        assert!(cache.get(&two).is_none());
        fs::write(folder.path().join("key"), [7; KEY_BYTES]).unwrap();
        assert!(super::tests::cache(folder.path()).get(&one).is_none());
    }

    #[test]
    fn links_and_files_that_others_may_write_are_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        cache.put(&one, b"artefact");
        let path = cache.path(&one);
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        assert!(cache.get(&one).is_none());
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert!(cache.get(&one).is_some());
        let moved = folder.path().join("moved");
        fs::rename(&path, &moved).unwrap();
        std::os::unix::fs::symlink(&moved, &path).unwrap();
        assert!(cache.get(&one).is_none());
        assert!(cache.get(&two).is_none());
    }
}
