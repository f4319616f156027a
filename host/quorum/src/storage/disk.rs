//! The folder that holds a voter's files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// The operations on a voter's folder. A simulator brings its own.
///
/// Bytes are durable after [`sync`](Disk::sync), names after [`sync_folder`](Disk::sync_folder).
pub trait Disk: Send + Sync + 'static {
    /// Returns the names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Reads a whole file. One that is longer than `bytes_max` is an error, before memory is allocated for it.
    fn read(&self, name: &str, bytes_max: u64) -> io::Result<Vec<u8>>;
    /// Appends bytes to a file, which is created if it is missing.
    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Takes space for the first `length` bytes of a file, so that appends work on a full disk. Its length stays.
    fn reserve(&self, _name: &str, _length: u64) -> io::Result<()> {
        Ok(())
    }
    /// Cuts a file to a length.
    fn truncate(&self, name: &str, length: u64) -> io::Result<()>;
    /// Makes the bytes of a file durable.
    fn sync(&self, name: &str) -> io::Result<()>;
    /// Renames a file over another one.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Deletes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes created, renamed and deleted names durable.
    fn sync_folder(&self) -> io::Result<()>;
    /// Returns the path of a file for messages.
    fn path(&self, name: &str) -> PathBuf;
    /// Says whether calls wait for hardware, and so belong on a thread of their own.
    fn blocks(&self) -> bool {
        true
    }
}

/// A folder of the operating system.
#[derive(Debug)]
pub struct FileDisk {
    folder: PathBuf,
    /// The file that was appended to last.
    open: Mutex<Option<(String, Arc<File>)>>,
}

impl FileDisk {
    /// Opens a folder, and creates it if it is missing.
    pub fn open(folder: &Path) -> io::Result<Self> {
        if !folder.exists() {
            fs::create_dir_all(folder)?;
            let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        Ok(Self { folder: folder.to_owned(), open: Mutex::new(None) })
    }

    fn file(&self, name: &str) -> io::Result<Arc<File>> {
        let mut open = self.open.lock();
        if let Some((_, file)) = open.as_ref().filter(|(opened, _)| opened == name) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(OpenOptions::new().read(true).append(true).create(true).open(self.path(name))?);
        *open = Some((name.to_owned(), Arc::clone(&file)));
        Ok(file)
    }
}

impl Disk for FileDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.folder)?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn read(&self, name: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
        let file = File::open(self.path(name))?;
        let length = file.metadata()?.len();
        check_length(length, bytes_max)?;
        let mut bytes = Vec::with_capacity(length as usize);
        file.take(bytes_max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.file(name)?.as_ref().write_all(bytes)
    }

    fn reserve(&self, name: &str, length: u64) -> io::Result<()> {
        match fallocate(&*self.file(name)?, FallocateFlags::KEEP_SIZE, 0, length) {
            // Some file systems cannot.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            reserved => Ok(reserved?),
        }
    }

    fn truncate(&self, name: &str, length: u64) -> io::Result<()> {
        self.file(name)?.set_len(length)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.file(name)?.sync_data()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        *self.open.lock() = None;
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.open.lock().take_if(|(opened, _)| opened == name);
        fs::remove_file(self.path(name))
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Returns an error if a file is longer than a reader accepts.
pub fn check_length(length: u64, bytes_max: u64) -> io::Result<()> {
    if length > bytes_max {
        let message = format!("the file has {length} bytes, which exceeds the limit of {bytes_max}");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(())
}
