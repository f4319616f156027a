//! Recovers a cluster that has lost the majority of its voters for good.

use std::path::Path;
use std::sync::Arc;

use millstream_log::{DataDir, MetaProperties};
use millstream_quorum::LastMember;
use millstream_quorum::storage::FileDisk;

use super::{StartError, data};
use crate::cluster::Cluster;

/// A stopped node that may become the only voter of its cluster. Its data folder is locked meanwhile.
#[derive(Debug)]
pub struct Recovery {
    cluster_id: String,
    node_id: i32,
    member: LastMember,
    _locked: DataDir,
}

impl Recovery {
    /// Reads the data folder of a stopped node. The node is not changed.
    ///
    /// # Errors
    /// A process uses the folder, or the folder has no data of a cluster, or its log cannot be read.
    pub fn open(folder: &Path) -> Result<Self, StartError> {
        let meta = MetaProperties::read(folder).map_err(data)?.filter(|_| Cluster::is_in(folder));
        let Some(MetaProperties { cluster_id, node_id, .. }) = meta else {
            return Err(StartError::Data(format!("{} has no data of a node of a cluster", folder.display())));
        };
        let locked = DataDir::open(folder, Some(&cluster_id), node_id).map_err(data)?;
        let disk = FileDisk::open(&Cluster::folder(folder)).map_err(data)?;
        let member = LastMember::open(node_id, Arc::new(disk)).map_err(data)?;
        Ok(Self { cluster_id, node_id, member, _locked: locked })
    }

    /// Returns the id of the cluster.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Returns the id of the node.
    pub fn node_id(&self) -> i32 {
        self.node_id
    }

    /// Returns the other voters and observers, which will be removed.
    pub fn others(&self) -> Vec<i32> {
        self.member.others()
    }

    /// Returns the end of the node's metadata log.
    pub fn log_end(&self) -> u64 {
        self.member.end()
    }

    /// Returns the newest leader epoch of the quorum that the node has seen.
    pub fn leader_epoch(&self) -> u64 {
        self.member.term()
    }

    /// Makes the node the only voter. What only the other voters had is gone.
    ///
    /// # Errors
    /// The log cannot be written.
    pub fn run(self) -> Result<(), StartError> {
        self.member.make_only_voter().map_err(data)
    }
}
