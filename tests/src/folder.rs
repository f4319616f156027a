//! The folders of partitions, as a user moves them from one broker to another.

use std::fs;
use std::path::{Path, PathBuf};

/// The files of a folder that do not move: one ties it to a topic of its broker, one has checksums of other files.
const STAY: [&str; 2] = ["partition.metadata", "file-checksums"];

/// The checkpoints of a data folder that say something about the logs in it.
const CHECKPOINTS: [&str; 4] = [
    "recovery-point-offset-checkpoint",
    "log-start-offset-checkpoint",
    "replication-offset-checkpoint",
    "cleaner-offset-checkpoint",
];

/// Returns the files of a folder, sorted by name.
///
/// # Panics
/// When the folder cannot be read.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// Copies a folder with its content.
///
/// # Panics
/// When a file cannot be copied.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a new folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("a copy")),
        }
    }
}

/// Puts the files of a partition in the place of those of another one, which keeps its topic. Both brokers are stopped.
///
/// # Panics
/// When a file cannot be copied or removed.
pub fn move_partition(from: &Path, to: &Path) {
    let is_of_the_log = |path: &PathBuf| !STAY.iter().any(|name| path.ends_with(name));
    let is_old = |path: &PathBuf| !path.ends_with(STAY[0]);
    for file in files(to).into_iter().filter(is_old) {
        fs::remove_file(file).expect("removable");
    }
    for file in files(from).into_iter().filter(is_of_the_log) {
        fs::copy(&file, to.join(file.file_name().expect("a name"))).expect("copied");
    }
}

/// Moves partitions, and the lines of the checkpoints that are about them.
///
/// # Panics
/// When a file cannot be copied or removed.
pub fn move_partitions(from: &Path, to: &Path, partitions: &[String]) {
    for partition in partitions {
        move_partition(&from.join(partition), &to.join(partition));
    }
    let is_moved = |line: &&str| {
        let mut words = line.split(' ');
        words.next().zip(words.next()).is_some_and(|(topic, index)| partitions.contains(&format!("{topic}-{index}")))
    };
    for name in CHECKPOINTS {
        let lines = |data: &Path| fs::read_to_string(data.join(name)).unwrap_or_default();
        let (old, new) = (lines(from), lines(to));
        // Its checksum is that of other lines.
        let is_entry = |line: &&str| !line.starts_with('#');
        let kept = new.lines().skip(2).filter(is_entry).filter(|line| !is_moved(line));
        let all: Vec<&str> = kept.chain(old.lines().skip(2).filter(is_moved)).collect();
        let entries: String = all.iter().map(|line| format!("{line}\n")).collect();
        fs::write(to.join(name), format!("0\n{}\n{entries}", all.len())).expect("written");
    }
}
