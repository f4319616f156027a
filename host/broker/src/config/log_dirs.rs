//! The data folders: `log.dirs`, `metadata.log.dir` and `cordoned.log.dirs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use millstream_metadata::{CORDONED_LOG_DIRS, MetadataImage};

use super::broker_keys as keys;
use super::value::list;
use super::{BrokerConfig, ConfigError, Reader};

/// Returns the folders for partitions.
pub(super) fn from_values(read: &Reader<'_>) -> Result<Vec<PathBuf>, ConfigError> {
    let folders = read.get(keys::LOG_DIRS).unwrap_or_else(|| read.get(keys::LOG_DIR));
    if folders.is_empty() || folders.iter().any(|folder| folder.is_empty()) {
        let text = folders.join(",");
        return Err(ConfigError(format!("bad value `{text}` for log.dirs: a data folder has an empty name")));
    }
    Ok(folders.into_iter().map(PathBuf::from).collect())
}

/// Returns the folder of the metadata: the configured one, or the first of those for partitions.
pub(super) fn metadata(values: &BTreeMap<&'static str, String>, log_dirs: &[PathBuf]) -> PathBuf {
    let configured = Reader { values }.get(keys::METADATA_LOG_DIR).filter(|folder| !folder.is_empty());
    configured.map_or_else(|| log_dirs[0].clone(), PathBuf::from)
}

impl BrokerConfig {
    /// Replaces the folders for partitions by those of a flag.
    pub(super) fn set_log_dirs(&mut self, folders: Vec<PathBuf>) {
        let text: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
        self.values.insert(keys::LOG_DIRS.row.name, text.join(","));
        self.log_dirs = folders;
        self.metadata_dir = metadata(&self.values, &self.log_dirs);
    }

    /// Checks the cordoned folders of the file.
    pub(super) fn check_cordoned(&self) -> Result<(), ConfigError> {
        let folders = self.explicit(CORDONED_LOG_DIRS).unwrap_or_default();
        if list(folders).contains(&"*") {
            // The controller, which acts on it, does not read the files of other nodes.
            return Err(ConfigError(format!(
                "{CORDONED_LOG_DIRS}=* can be set only while the broker runs: start it, and run `millstream cluster \
                 drain`"
            )));
        }
        self.check_cordoned_folders(folders)
    }

    /// Checks that a list of cordoned folders names only folders of this node, and not all of them.
    ///
    /// # Errors
    /// A folder is not in `log.dirs`, or all are named.
    pub(crate) fn check_cordoned_folders(&self, folders: &str) -> Result<(), ConfigError> {
        let named = list(folders);
        if named.contains(&"*") {
            return Ok(());
        }
        let known: Vec<String> = self.log_dirs.iter().map(|folder| folder.display().to_string()).collect();
        if let Some(unknown) = named.iter().find(|folder| !self.log_dirs.iter().any(|dir| *dir == Path::new(folder))) {
            let known = known.join(", ");
            return Err(ConfigError(format!(
                "bad value `{unknown}` for {CORDONED_LOG_DIRS}: the folders in log.dirs of this broker are {known}"
            )));
        }
        if self.log_dirs.iter().all(|dir| named.iter().any(|folder| Path::new(folder) == dir)) {
            let message = format!("bad value `{folders}` for {CORDONED_LOG_DIRS}: to cordon all folders, set `*`");
            return Err(ConfigError(message));
        }
        Ok(())
    }

    /// Returns the folders of this node that get no new partitions, as a list; `*` for all.
    pub(crate) fn cordoned_log_dirs(&self, image: &MetadataImage) -> String {
        let set = image.broker_config(self.node_id, CORDONED_LOG_DIRS);
        set.or_else(|| self.explicit(CORDONED_LOG_DIRS)).unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Flags, RawConfig};
    use super::*;

    fn checked(pairs: &[&str], data_dirs: &[&str]) -> Result<BrokerConfig, ConfigError> {
        let mut raw = RawConfig::default();
        for pair in pairs {
            raw.set_pair(pair)?;
        }
        let data_dirs = data_dirs.iter().map(PathBuf::from).collect();
        raw.check()?.with_flags(Flags { data_dirs, ..Flags::default() })
    }

    #[test]
    fn several_folders_and_that_of_the_metadata() {
        let config = checked(&["log.dirs=/a, /b"], &[]).expect("good");
        assert_eq!((config.log_dirs, config.metadata_dir), (vec!["/a".into(), "/b".into()], "/a".into()));
        let config = checked(&["log.dirs=/a,/b", "metadata.log.dir=/b"], &["/c", "/d"]).expect("good");
        assert_eq!((config.log_dirs, config.metadata_dir), (vec!["/c".into(), "/d".into()], "/b".into()));
        assert_eq!(checked(&[], &["/c", "/d"]).expect("good").explicit("log.dirs"), Some("/c,/d"));
    }

    #[test]
    fn cordoned_folders_of_the_file_are_folders_of_the_node() {
        for (folders, wrong) in [("/c", "are /a, /b"), ("/a,/b", "set `*`"), ("*", "cluster drain")] {
            let pairs = ["log.dirs=/a,/b", &format!("cordoned.log.dirs={folders}")];
            let error = checked(&pairs, &[]).expect_err("rejected").to_string();
            assert!(error.contains(wrong), "{error}");
        }
        let config = checked(&["log.dirs=/a,/b", "cordoned.log.dirs=/b"], &[]).expect("good");
        assert_eq!(config.cordoned_log_dirs(&MetadataImage::new(0)), "/b");
    }
}
