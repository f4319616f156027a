//! Small files of names: a partition's `partition.metadata`, a data folder's `meta.properties`, and Kafka's form of a UUID.

use std::fs;
use std::io;
use std::path::Path;

use uuid::Uuid;

use crate::fsutil::write_atomic;

/// Name of the file that ties a partition's folder to its topic id.
pub(crate) const PARTITION_METADATA: &str = "partition.metadata";
/// Name of the file that ties a data folder to its cluster and broker.
pub(crate) const META_PROPERTIES: &str = "meta.properties";
/// Largest of these files that is read, bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A UUID as Kafka writes it: URL-safe base64 of its 16 bytes without padding, 22 characters.
pub fn uuid_to_kafka(id: Uuid) -> String {
    let bits = id.as_u128();
    // 128 bits are 21 characters of 6 bits and one of 2 bits and 4 zeros.
    (0..22)
        .map(|at| {
            let shift = 122 - 6 * at;
            let six = if shift >= 0 { bits >> shift } else { bits << -shift };
            char::from(ALPHABET[(six & 63) as usize])
        })
        .collect()
}

/// Reads Kafka's form of a UUID; `None` when it is not one.
pub fn uuid_from_kafka(text: &str) -> Option<Uuid> {
    if text.len() != 22 {
        return None;
    }
    let mut bits = 0u128;
    for (at, byte) in text.bytes().enumerate() {
        let six = ALPHABET.iter().position(|c| *c == byte)? as u128;
        if at < 21 {
            bits = (bits << 6) | six;
        } else if six & 15 == 0 {
            bits = (bits << 2) | (six >> 4);
        } else {
            return None;
        }
    }
    Some(Uuid::from_u128(bits))
}

fn read_small(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too large"));
    }
    fs::read_to_string(path)
}

/// The topic id of a partition's folder; `None` when the file is missing or not readable as one.
pub(crate) fn read_topic_id(dir: &Path) -> io::Result<Option<Uuid>> {
    match read_small(&dir.join(PARTITION_METADATA)) {
        Ok(text) => {
            let mut lines = text.lines();
            let version = lines.next() == Some("version: 0");
            let id = lines.next().and_then(|line| line.strip_prefix("topic_id: ")).and_then(uuid_from_kafka);
            Ok(id.filter(|_| version))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes `partition.metadata`. Not synced here: creating 10,000 partitions would wait for the disk 10,000 times.
pub(crate) fn write_topic_id(dir: &Path, id: Uuid) -> io::Result<()> {
    fs::write(dir.join(PARTITION_METADATA), format!("version: 0\ntopic_id: {}", uuid_to_kafka(id)))
}

/// `meta.properties`, version 1: whose data folder this is.
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
    /// Reads the file; `None` when there is none. What is wrong with it is the text of an `InvalidData` error.
    pub(crate) fn read(data_dir: &Path) -> io::Result<Option<Self>> {
        let text = match read_small(&data_dir.join(META_PROPERTIES)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
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
            directory_id: uuid_from_kafka(&directory_id).ok_or_else(|| bad("directory.id", &directory_id))?,
        }))
    }

    pub(crate) fn write(&self, data_dir: &Path) -> io::Result<()> {
        let Self { cluster_id, node_id, directory_id } = self;
        let directory_id = uuid_to_kafka(*directory_id);
        let text = format!("#\ncluster.id={cluster_id}\ndirectory.id={directory_id}\nnode.id={node_id}\nversion=1\n");
        write_atomic(&data_dir.join(META_PROPERTIES), text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_written_as_kafka_does() {
        // Made by org.apache.kafka.common.Uuid: the first two are its reserved ids.
        for (id, text) in [
            (0, "AAAAAAAAAAAAAAAAAAAAAA"),
            (1, "AAAAAAAAAAAAAAAAAAAAAQ"),
            (u128::MAX, "_____________________w"),
            (0x0123_4567_89ab_cdef_0123_4567_89ab_cdef, "ASNFZ4mrze8BI0VniavN7w"),
        ] {
            assert_eq!(uuid_to_kafka(Uuid::from_u128(id)), text);
            assert_eq!(uuid_from_kafka(text), Some(Uuid::from_u128(id)));
        }
        for bad in ["", "AAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAB", "AAAAAAAAAAAAAAAAAAAA+A"] {
            assert_eq!(uuid_from_kafka(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn meta_properties_make_a_round_trip_and_name_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(MetaProperties::read(dir.path()).unwrap(), None);
        let meta = MetaProperties { cluster_id: "c".to_owned(), node_id: 7, directory_id: Uuid::from_u128(99) };
        meta.write(dir.path()).unwrap();
        assert_eq!(MetaProperties::read(dir.path()).unwrap(), Some(meta));
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
