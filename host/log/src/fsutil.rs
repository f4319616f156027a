//! File names, and the few file operations whose order matters after a power failure.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Returns a file name such as `00000000000000000000.log`: the base offset in twenty digits, then the suffix.
pub(crate) fn segment_file(dir: &Path, base_offset: i64, suffix: &str) -> PathBuf {
    dir.join(format!("{base_offset:020}.{suffix}"))
}

/// Parses such a name into base offset and suffix; `None` for any other name.
pub(crate) fn parse_segment_file(name: &str) -> Option<(i64, &str)> {
    let (digits, suffix) = name.split_once('.')?;
    if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((digits.parse().ok()?, suffix))
}

/// Makes the entries of a folder durable: creations, renames and removals.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Replaces `path` as a whole: after a crash it has the old content or the new, never a mixture.
pub(crate) fn write_atomic(path: &Path, content: &[u8]) -> io::Result<()> {
    replace(path, content, |file| file.sync_all())?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => sync_dir(Path::new(".")),
    }
}

/// Replaces `path` without waiting for the disk. After a power cut it may have the old content, none, or garbage. Use
/// it only for files that can be rebuilt.
pub(crate) fn write_cache(path: &Path, content: &[u8]) -> io::Result<()> {
    replace(path, content, |_| Ok(()))
}

fn replace(path: &Path, content: &[u8], sync: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let mut tmp = path.as_os_str().to_owned();
    tmp.push(".tmp");
    let tmp = PathBuf::from(tmp);
    let written = File::create(&tmp).and_then(|mut file| {
        file.write_all(content)?;
        sync(&file)
    });
    // A leftover file is harmless (it is never read), so the first error is the one to return.
    written.and_then(|()| fs::rename(&tmp, path)).inspect_err(|_| drop(fs::remove_file(&tmp)))
}

/// Removes a file, which may be missing.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The largest size in bytes of a file that [`read_small`] reads.
const SMALL_FILE_BYTES_MAX: u64 = 64 * 1024;

/// The bytes of a file of usual size, which is read at once.
const USUAL_BYTES: usize = 512;

/// Reads a small text file, as [`read_text`] does.
pub(crate) fn read_small(path: &Path) -> io::Result<String> {
    read_text(path, SMALL_FILE_BYTES_MAX)
}

/// Reads a text file. One larger than `bytes_max` is an `InvalidData` error, so that no file decides the size of an
/// allocation. It is not asked for its size first: a start reads such files for each partition.
pub(crate) fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    if bytes.len() as u64 > bytes_max {
        return Err(invalid(format!("more than {bytes_max} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| invalid("not text".to_owned()))
}
