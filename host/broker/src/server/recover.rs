//! Recovers a cluster that has lost the majority of its voters for good.

use std::path::Path;
use std::sync::Arc;

use millstream_log::{DataDir, MetaProperties};
use millstream_quorum::make_only_voter;
use millstream_quorum::storage::FileDisk;

use super::{StartError, data};
use crate::cluster::Cluster;

/// What a recovery has done.
#[derive(Debug)]
pub struct Recovered {
    /// The node whose folder it is, the only voter now.
    pub node_id: i32,
    /// The nodes that are not members any more.
    pub removed: Vec<i32>,
}

/// Makes the stopped node of a data folder the only voter of its cluster. What only the lost voters had is gone.
///
/// # Errors
/// A process uses the folder, or the folder has no data of a cluster, or its log cannot be read or written.
pub fn recover(folder: &Path) -> Result<Recovered, StartError> {
    let meta = MetaProperties::read(folder).map_err(data)?.filter(|_| Cluster::is_in(folder));
    let Some(MetaProperties { cluster_id, node_id, .. }) = meta else {
        return Err(StartError::Data(format!("{} has no data of a node of a cluster", folder.display())));
    };
    let _locked = DataDir::open(folder, Some(&cluster_id), node_id).map_err(data)?;
    let disk = FileDisk::open(&Cluster::folder(folder)).map_err(data)?;
    let before = make_only_voter(node_id, Arc::new(disk)).map_err(data)?;
    Ok(Recovered { node_id, removed: before.into_keys().filter(|id| *id != node_id).collect() })
}
