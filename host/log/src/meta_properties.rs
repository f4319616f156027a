//! Reads and writes `meta.properties`, the file that ties a data folder to its cluster and its broker.

use std::io;
use std::path::Path;

use crc_fast::crc32_iscsi;
use millstream_record::KafkaUuid;
use uuid::Uuid;

use crate::fsutil::{read_small, write_atomic};

/// The name of the file in a data folder.
pub(crate) const META_PROPERTIES: &str = "meta.properties";

/// How the comment begins that has a checksum of the other lines. Kafka ignores comments.
const CHECKSUM: &str = "# crc32c=";

/// The content of `meta.properties` (version 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaProperties {
    /// Kafka's `cluster.id`.
    pub cluster_id: String,
    /// Kafka's `node.id`.
    pub node_id: i32,
    /// Kafka's `directory.id`.
    pub directory_id: Uuid,
}

impl MetaProperties {
    /// Reads the file; returns `None` if it does not exist. A malformed file is an `InvalidData` error with the reason.
    pub fn read(data_dir: &Path) -> io::Result<Option<Self>> {
        let text = match read_small(&data_dir.join(META_PROPERTIES)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let checksum = text.lines().find_map(|line| line.strip_prefix(CHECKSUM));
        if checksum.is_some_and(|checksum| checksum != crc_of(&text)) {
            let reason = "the lines have another checksum than the first one says";
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        let field = |name: &str| {
            let of_line = |line: &str| {
                let (key, value) = line.split_once('=')?;
                (key.trim() == name).then(|| value.trim().to_owned())
            };
            let found = text.lines().filter(|line| !line.starts_with('#')).find_map(of_line);
            found.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{name} is missing")))
        };
        let bad = |name: &str, value: &str| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{name}={value} is not valid"))
        };
        let version = field("version")?;
        if version != "1" {
            return Err(bad("version", &version));
        }
        let (node_id, directory_id) = (field("node.id")?, field("directory.id")?);
        Ok(Some(Self {
            cluster_id: field("cluster.id")?,
            node_id: node_id.parse().map_err(|_| bad("node.id", &node_id))?,
            directory_id: directory_id.parse::<KafkaUuid>().map_err(|_| bad("directory.id", &directory_id))?.0,
        }))
    }

    pub(crate) fn write(&self, data_dir: &Path) -> io::Result<()> {
        let Self { cluster_id, node_id, directory_id } = self;
        let directory_id = KafkaUuid(*directory_id);
        let text = format!("cluster.id={cluster_id}\ndirectory.id={directory_id}\nnode.id={node_id}\nversion=1\n");
        let text = format!("{CHECKSUM}{}\n{text}", crc_of(&text));
        write_atomic(&data_dir.join(META_PROPERTIES), text.as_bytes())
    }
}

/// Returns the checksum of all lines but comments.
fn crc_of(text: &str) -> String {
    let lines = text.split_inclusive('\n').filter(|line| !line.starts_with('#'));
    format!("{:08x}", crc32_iscsi(lines.collect::<String>().as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn meta_properties_make_a_round_trip_and_name_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(MetaProperties::read(dir.path()).unwrap(), None);
        let meta = MetaProperties { cluster_id: "c".to_owned(), node_id: 7, directory_id: Uuid::from_u128(99) };
        meta.write(dir.path()).unwrap();
        assert_eq!(MetaProperties::read(dir.path()).unwrap(), Some(meta.clone()));
        let path = dir.path().join(META_PROPERTIES);
        let bytes = fs::read(&path).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &damaged).unwrap();
            let read = MetaProperties::read(dir.path());
            let is_as_before = read.as_ref().is_ok_and(|read| read.as_ref() == Some(&meta));
            assert!(read.is_err() || is_as_before, "bit {bit}: {read:?}");
        }
        for (content, wrong) in [
            ("version=0\n", "version=0"),
            ("version=1\nnode.id=x\ndirectory.id=y\ncluster.id=c", "node.id=x"),
            ("version=1\nnode.id=1\ncluster.id=c", "directory.id is missing"),
        ] {
            fs::write(dir.path().join(META_PROPERTIES), content).unwrap();
            let error = MetaProperties::read(dir.path()).unwrap_err().to_string();
            assert!(error.contains(wrong), "{error}");
        }
    }
}
