//! Compiled code on disk, so that a plug-in starts in 0.2 ms instead of 60 to 190.
//!
//! Machine code is trusted when it is loaded, so only files that this host wrote may be: the folder
//! and its files belong to this user alone, and each file carries a keyed hash (HMAC-SHA-256) of its
//! contents and of what it was made for. What fails any check is compiled again and replaced.
//!
//! ```text
//! FOLDER/key                                  32 random bytes
//! FOLDER/<component digest>-<engine>.stage    magic (8), hash (32), artefact
//! ```

use std::fs::{self, File, Permissions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};

use crate::plugin::Digest;

const MAGIC: [u8; 8] = *b"mstage01";
const KEY_BYTES: usize = 32;
const HASH_BYTES: usize = 32;
const HEADER_BYTES: usize = MAGIC.len() + HASH_BYTES;

/// The block of SHA-256, to which HMAC pads its key.
const HMAC_BLOCK_BYTES: usize = 64;

/// How large the folder may become, bytes: a thousand plug-ins. What was not used for longest goes first, and is compiled
/// again if somebody wants it.
const FOLDER_BYTES_MAX: u64 = 512 << 20;

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// A folder of compiled code, for one engine.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    key: [u8; KEY_BYTES],
    /// Names the engine's version, its settings and the processor.
    engine: String,
}

impl Cache {
    /// Opens the folder, which is made if it is not there.
    pub(crate) fn open(folder: &Path, engine: &wasmtime::Engine) -> io::Result<Cache> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let metadata = fs::metadata(folder)?;
        if metadata.uid() != own_user() {
            return Err(io::Error::other("it belongs to another user"));
        }
        if metadata.mode() & 0o077 != 0 {
            fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        }
        Ok(Cache { key: open_key(folder)?, folder: folder.to_owned(), engine: engine_name(engine) })
    }

    /// The artefact of a component, if this host wrote one for this engine.
    pub(crate) fn get(&self, digest: &Digest) -> Option<Vec<u8>> {
        let path = self.path(digest);
        let mut bytes = read_own(&path).ok()?;
        if bytes.len() < HEADER_BYTES || bytes[..MAGIC.len()] != MAGIC {
            return self.reject(&path);
        }
        let artefact = bytes.split_off(HEADER_BYTES);
        if bytes[MAGIC.len()..] != self.hash(digest, &artefact) {
            return self.reject(&path);
        }
        Some(artefact)
    }

    /// Keeps an artefact. A failure costs a compilation in a later process, so it is only logged.
    pub(crate) fn put(&self, digest: &Digest, artefact: &[u8]) {
        if let Err(error) = self.write(digest, artefact) {
            let folder = self.folder.display();
            tracing::warn!(%folder, %error, "compiled code cannot be kept");
        }
    }

    fn write(&self, digest: &Digest, artefact: &[u8]) -> io::Result<()> {
        let hash = self.hash(digest, artefact);
        write_whole(&self.path(digest), &[&MAGIC, &hash, artefact])?;
        prune(&self.folder, FOLDER_BYTES_MAX)
    }

    fn reject(&self, path: &Path) -> Option<Vec<u8>> {
        let path = path.display();
        tracing::warn!(%path, "not a file that this host wrote: it is compiled again");
        None
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(format!("{digest}-{}.stage", self.engine))
    }

    /// HMAC-SHA-256 (RFC 2104) over what the artefact was made for, and the artefact.
    fn hash(&self, digest: &Digest, artefact: &[u8]) -> [u8; HASH_BYTES] {
        let pad = |with: u8| {
            let mut block = [with; HMAC_BLOCK_BYTES];
            for (byte, key) in block.iter_mut().zip(self.key) {
                *byte ^= key;
            }
            block
        };
        // The digest and the engine's name have fixed lengths: no two inputs read the same.
        let inner = Sha256::new()
            .chain_update(pad(0x36))
            .chain_update(digest.as_bytes())
            .chain_update(&self.engine)
            .chain_update(artefact)
            .finalize();
        Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
    }
}

/// Sixteen hexadecimal digits that differ where compiled code may not be shared.
fn engine_name(engine: &wasmtime::Engine) -> String {
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
    format!("{:016x}", hasher.finish())
}

fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Reads the folder's key, or makes one. Two processes that make one at once agree, since only the
/// first can link its file to the name.
fn open_key(folder: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let path = folder.join("key");
    loop {
        match read_own(&path) {
            Ok(bytes) => {
                return bytes
                    .try_into()
                    .map_err(|_| io::Error::other("its file `key` has the wrong size: delete the folder"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut key = [0; KEY_BYTES];
        File::open("/dev/urandom")?.read_exact(&mut key)?;
        let temporary = write_temporary(&path, &[&key])?;
        let linked = fs::hard_link(&temporary, &path);
        fs::remove_file(&temporary)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
}

/// Reads a regular file of this user that nobody else may write, without following a link.
fn read_own(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let descriptor: OwnedFd = rustix::fs::open(path, flags, Mode::empty())?;
    let mut file = File::from(descriptor);
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.uid() != own_user() || metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other("not a file of this user alone"));
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(io::Error::other("too large"));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    Read::by_ref(&mut file).take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    // For `prune`. A file system that refuses costs no more than a compilation.
    let _ = file.set_modified(SystemTime::now());
    Ok(bytes)
}

/// Removes the artefacts that were not used for longest, of any engine, until those that are left have `bytes_max` bytes.
fn prune(folder: &Path, bytes_max: u64) -> io::Result<()> {
    let mut artefacts = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // One that another process has just removed is no artefact any more.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if path.extension().is_some_and(|extension| extension == "stage") {
            artefacts.push((metadata.modified()?, metadata.len(), path));
        }
    }
    artefacts.sort_unstable_by(|one, other| other.cmp(one));
    let mut bytes = 0;
    for (_, len, path) in artefacts {
        bytes += len;
        if bytes > bytes_max {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Writes a file so that a reader sees all of it or none.
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
    use super::*;
    use crate::engine::{Trust, compiler_engine};
    use crate::limits::Limits;

    fn cache(folder: &Path) -> Cache {
        let engine = compiler_engine(&Limits::default(), Trust::Foreign).unwrap();
        Cache::open(folder, &engine).unwrap()
    }

    #[test]
    fn keeps_what_it_wrote_for_a_later_process() {
        let folder = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"component");
        cache(folder.path()).put(&digest, b"artefact");
        let later = cache(folder.path());
        assert_eq!(later.get(&digest).as_deref(), Some(&b"artefact"[..]));
        assert_eq!(later.get(&Digest::of(b"other")), None);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(folder.path()), 0o700);
        assert_eq!(mode(&later.path(&digest)), 0o600);
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let digests: Vec<Digest> = (0..4_u8).map(|number| Digest::of(&[number])).collect();
        for (second, digest) in digests.iter().enumerate() {
            cache.put(digest, &[0; 1000]);
            let old = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(second as u64);
            File::options().write(true).open(cache.path(digest)).unwrap().set_modified(old).unwrap();
        }
        assert!(cache.get(&digests[0]).is_some(), "used now");
        prune(folder.path(), 2500).unwrap();
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
            assert_eq!(cache.get(&digest), None, "byte {index}");
        }
        for length in 0..good.len() {
            fs::write(&path, &good[..length]).unwrap();
            assert_eq!(cache.get(&digest), None, "length {length}");
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
        assert_eq!(cache.get(&two), None);
        fs::write(folder.path().join("key"), [7; KEY_BYTES]).unwrap();
        assert_eq!(super::tests::cache(folder.path()).get(&one), None);
    }

    #[test]
    fn links_and_files_that_others_may_write_are_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        cache.put(&one, b"artefact");
        let path = cache.path(&one);
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        assert_eq!(cache.get(&one), None);
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert!(cache.get(&one).is_some());
        let moved = folder.path().join("moved");
        fs::rename(&path, &moved).unwrap();
        std::os::unix::fs::symlink(&moved, &path).unwrap();
        assert_eq!(cache.get(&one), None);
        assert_eq!(cache.get(&two), None);
    }
}
