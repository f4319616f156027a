//! Disks that a test can cut off, fill, and damage: ext4 on image files, one for each node.
//!
//! They need root, `mkfs.ext4` and loop devices. Without them a test has nothing to run on, and says so.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use millstream_tests::{BrokerBuilder, Cluster, wait_until};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use rustix::ioctl::{Setter, ioctl, opcode};
use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use crate::faults::PATIENCE;

/// What a test prints that has no disks to run on.
pub(crate) const NOT_RUN: &str = "not run: disks of a test need root, mkfs.ext4 and loop devices";

/// The size of each file system.
const BYTES: u64 = 192 << 20;

/// `FS_IOC_SHUTDOWN`: the file system forgets what is not on its device.
const SHUTDOWN: u32 = opcode::read::<u32>(b'X', 125);

/// The mode of a shutdown that does not write the journal first.
const NO_LOG_FLUSH: u32 = 2;

/// A file system in a file. Dropping it unmounts it.
pub(crate) struct Disk {
    folder: PathBuf,
    image: PathBuf,
    /// The name of the loop device, such as `loop0`.
    device: String,
}

impl Disk {
    /// Makes a disk of its own, and the folder that has it. `None` if this machine cannot mount disks.
    pub(crate) fn temporary() -> Option<(Self, TempDir)> {
        let temporary = TempDir::new().expect("a folder");
        Some((Self::new(temporary.path().join("disk"))?, temporary))
    }

    fn new(folder: PathBuf) -> Option<Self> {
        let image = folder.with_extension("img");
        File::create(&image).and_then(|file| file.set_len(BYTES)).expect("a sparse file");
        fs::create_dir(&folder).expect("a folder");
        let made = run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
        let mut disk = Self { folder, image, device: String::new() };
        (made && disk.mount()).then_some(disk)
    }

    fn mount(&mut self) -> bool {
        if !run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.folder)) {
            return false;
        }
        let mounts = fs::read_to_string("/proc/mounts").expect("a list of mounts");
        let folder = self.folder.to_str().expect("text");
        let found = mounts.lines().find(|line| line.split(' ').nth(1) == Some(folder)).expect("a mounted folder");
        self.device = found.split(' ').next().and_then(|path| path.rsplit('/').next()).expect("a device").to_owned();
        true
    }

    /// Unmounts the file system, and waits until the kernel has let go of it.
    fn unmount(&self) {
        let what = format!("{} to be unmounted", self.folder.display());
        wait_until(&what, PATIENCE, || run(Command::new("umount").arg(&self.folder)).then_some(()));
        let known = Path::new("/proc/fs/ext4").join(&self.device);
        wait_until(&what, PATIENCE, || (!known.exists()).then_some(()));
    }

    /// Mounts the file system again, as after a power cut.
    pub(crate) fn remount(&mut self) {
        self.unmount();
        assert!(self.mount(), "{} can be mounted again", self.image.display());
    }

    /// Returns the data folder on the disk.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Cuts the disk off: what is not on it now is gone, and every later access fails.
    #[expect(unsafe_code, reason = "rustix has no safe function for this call")]
    pub(crate) fn cut_off(&self) {
        let root = File::open(&self.folder).expect("a mounted folder");
        // SAFETY: the kernel reads one u32 from the pointer.
        let cut = unsafe { ioctl(&root, Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH)) };
        cut.expect("ext4 can be shut down");
    }

    /// Fills the disk to its last block.
    pub(crate) fn fill(&self) {
        let file = OpenOptions::new().create(true).append(true).open(self.ballast()).expect("a file");
        let mut step = BYTES;
        while step >= 1024 {
            let end = file.metadata().expect("a file").len();
            match fallocate(&file, FallocateFlags::empty(), end, step) {
                Ok(()) => {}
                Err(Errno::NOSPC) => step /= 2,
                Err(error) => panic!("cannot fill {}: {error}", self.folder.display()),
            }
        }
    }

    /// Frees the space that [`Self::fill`] took.
    pub(crate) fn free(&self) {
        fs::remove_file(self.ballast()).expect("removable");
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run(Command::new("umount").args(["-l"]).arg(&self.folder));
    }
}

fn run(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// A cluster whose nodes have a disk each. Fields are dropped in their order: processes end before disks are removed.
pub(crate) struct DiskCluster {
    pub(crate) cluster: Cluster,
    disks: Vec<Disk>,
    _temporary: TempDir,
}

impl DiskCluster {
    /// Starts three nodes with their data on the disks. `None` if this machine cannot mount disks.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Option<Self> {
        Self::start_with(settings, |node| node)
    }

    /// Starts nodes as [`Self::start`] does. `more` configures each of them further.
    pub(crate) fn start_with(settings: &[(&str, &str)], more: impl Fn(BrokerBuilder) -> BrokerBuilder) -> Option<Self> {
        Self::start_on(settings, |node, data| more(node.folder(data)))
    }

    /// Starts three nodes with a data folder on each disk beside the one with the metadata.
    pub(crate) fn start_with_second_folders(settings: &[(&str, &str)]) -> Option<Self> {
        Self::start_on(settings, |node, data| node.more_folder(data))
    }

    fn start_on(settings: &[(&str, &str)], on_disk: impl Fn(BrokerBuilder, PathBuf) -> BrokerBuilder) -> Option<Self> {
        let temporary = TempDir::new().expect("a folder");
        let disk = |id: usize| Disk::new(temporary.path().join(format!("disk-{id}")));
        let disks: Vec<Disk> = (1..=3).map(disk).collect::<Option<_>>()?;
        let cluster = Cluster::start_with(3, settings, |id, node| on_disk(node, disks[id - 1].data()));
        Some(Self { cluster, disks, _temporary: temporary })
    }

    /// Returns the disk of a node.
    pub(crate) fn disk(&mut self, id: i32) -> &mut Disk {
        &mut self.disks[usize::try_from(id).expect("an id") - 1]
    }

    /// Cuts the power of some nodes at once: their processors stop, and then their disks. Mounts the disks again.
    pub(crate) fn cut_power(&mut self, victims: &[i32]) {
        for id in victims {
            freeze(&mut self.cluster, *id);
        }
        for id in victims {
            self.disk(*id).cut_off();
        }
        for id in victims {
            self.cluster.kill(*id);
        }
        for id in victims {
            self.disk(*id).remount();
        }
    }
}

/// Stops a process between two instructions. A call of the kernel that is under way goes on.
fn freeze(cluster: &mut Cluster, id: i32) {
    let pid = cluster.node_of(id).pid();
    kill_process(pid, Signal::STOP).expect("the process runs");
    let tasks = PathBuf::from(format!("/proc/{}/task", pid.as_raw_nonzero()));
    wait_until("a process to stop", Duration::from_secs(10), || is_frozen(&tasks).expect("its threads").then_some(()));
}

/// Returns whether no thread runs code of the program.
fn is_frozen(tasks: &Path) -> io::Result<bool> {
    for task in fs::read_dir(tasks)? {
        let stat = fs::read_to_string(task?.path().join("stat"))?;
        // The state follows the name, which is in parentheses.
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if !matches!(state, Some('T' | 't' | 'D')) {
            return Ok(false);
        }
    }
    Ok(true)
}
