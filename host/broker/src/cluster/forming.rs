//! The first start of a node: it forms a cluster, or joins one.
//!
//! The first of the configured servers forms the cluster, once a majority of them is up and none is in a cluster. So a
//! node whose folder was lost does not form a second cluster while the others are alive: it joins theirs.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_quorum::{Peer, ProposeError, Quorum};
use millstream_record::KafkaUuid;
use millstream_wire::ErrorCode;
use tokio::time::sleep;
use uuid::Uuid;

use super::Cluster;
use super::call::{Call, Reply};
use super::peers::PeerError;
use crate::config::{HostPort, Server};
use crate::error::ApiError;
use millstream_metadata::MetadataImage;
use millstream_metadata::entry::first;

/// The pause between attempts.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The time for one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(35);

/// Why a node cannot take its place in a cluster.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FormError {
    /// The quorum's log cannot be used.
    #[error("{0}")]
    Quorum(String),
    /// The cluster rejects the node.
    #[error("the cluster does not take this node: {0}")]
    Rejected(String),
    /// The node was removed from the cluster.
    #[error(
        "node {node_id} with directory id {} was removed from the cluster: start it on an empty data folder to let it \
         join again, or leave it stopped",
        KafkaUuid(*directory_id)
    )]
    Removed {
        /// The node.
        node_id: i32,
        /// The id of its log.
        directory_id: Uuid,
    },
}

/// The place of a node that starts for the first time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It forms the cluster.
    First,
    /// It joins the cluster with this id.
    Joins(String),
}

/// What the node's own log says about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is a member.
    Member,
    /// It is a member, and no other one votes.
    OnlyVoter,
    /// The log has members, and the node is not one of them.
    Stranger,
    /// The log is empty.
    None,
}

/// What a server says of itself.
enum Found {
    Cluster(String),
    /// It is up, and in no cluster.
    Free,
    Down,
}

impl Cluster {
    /// Finds the place of a node that starts for the first time. Waits until it is clear.
    ///
    /// # Errors
    /// A server rejects the node.
    pub(crate) async fn find_place(&self) -> Result<Place, FormError> {
        let servers = &self.config.servers;
        let is_own = |server: &Server| match server.id {
            Some(id) => id == self.node_id,
            None => same_address(&server.address, &self.address),
        };
        let is_first = servers.first().is_some_and(is_own);
        let mut reported = false;
        loop {
            let mut up = servers.iter().filter(|server| is_own(server)).count();
            for server in servers.iter().filter(|server| !is_own(server)) {
                match self.look_at(&server.address).await? {
                    Found::Cluster(cluster_id) => return Ok(Place::Joins(cluster_id)),
                    Found::Free => up += 1,
                    Found::Down => {}
                }
            }
            if is_first && up * 2 > servers.len() {
                return Ok(Place::First);
            }
            if !reported {
                reported = true;
                let addresses: Vec<String> = servers.iter().map(|server| server.address.to_string()).collect();
                tracing::info!(servers = addresses.join(","), "waiting for nodes of the cluster");
            }
            sleep(RETRY_AFTER).await;
        }
    }

    /// Returns what the node's own log says about it.
    ///
    /// # Errors
    /// The quorum has stopped.
    pub(crate) async fn standing(&self) -> Result<Standing, FormError> {
        let quorum = self.quorum().ok_or_else(|| FormError::Quorum("its log is not open".to_owned()))?;
        let members = quorum.members().await.map_err(|error| FormError::Quorum(error.to_string()))?;
        let own = members.get(&self.node_id).filter(|(peer, _)| peer.directory_id == quorum.directory_id());
        let voters = members.values().filter(|(_, votes)| *votes).count();
        Ok(match own {
            Some((_, true)) if voters == 1 => Standing::OnlyVoter,
            Some(_) => Standing::Member,
            None if members.is_empty() => Standing::None,
            None => Standing::Stranger,
        })
    }

    async fn look_at(&self, address: &HostPort) -> Result<Found, FormError> {
        match self.peers.call(&address.to_string(), &Call::Describe, CALL_TIMEOUT).await {
            Ok(Reply::Described { cluster_id: Some(id), .. }) => Ok(Found::Cluster(id)),
            Ok(_) => Ok(Found::Free),
            Err(error @ PeerError::Rejected { .. }) => Err(FormError::Rejected(error.to_string())),
            Err(error) => {
                tracing::debug!("{error}");
                Ok(Found::Down)
            }
        }
    }

    /// Forms a cluster with this node as its only voter, and this image as its first entry.
    ///
    /// # Errors
    /// The quorum's log cannot be written.
    pub(crate) async fn form(&self, image: &MetadataImage) -> Result<(), FormError> {
        let failed = |error: &dyn std::fmt::Display| FormError::Quorum(error.to_string());
        let quorum = self.quorum().ok_or_else(|| failed(&"its log is not open"))?;
        let voters = BTreeMap::from([(self.node_id, self.own_peer(quorum))]);
        quorum.bootstrap(voters).await.map_err(|error| failed(&error))?;
        let entry = first(image);
        loop {
            let mut leadership = quorum.leadership();
            let _ = leadership.wait_for(|leadership| leadership.leader == Some(self.node_id)).await;
            match quorum.propose(entry.clone()).await {
                Ok(_) => return Ok(()),
                Err(ProposeError::NotLeader { .. } | ProposeError::TimedOut) => sleep(RETRY_AFTER).await,
                Err(error) => return Err(failed(&error)),
            }
        }
    }

    /// Joins the quorum of the cluster as an observer, or makes the observer a voter.
    ///
    /// # Errors
    /// The cluster rejects the node.
    pub(crate) async fn join_quorum(&self, votes: bool) -> Result<(), FormError> {
        let quorum = self.quorum().ok_or_else(|| FormError::Quorum("its log is not open".to_owned()))?;
        let Peer { directory_id, address } = self.own_peer(quorum);
        let (node_id, incarnation) = (self.node_id, self.incarnation);
        let call = Call::Join { node_id, directory_id, address, votes, incarnation };
        self.ask_members(&call).await.map_err(|error| FormError::Rejected(error.message))
    }

    /// Returns the error of a node that was removed.
    pub(crate) fn removed(&self) -> FormError {
        let directory_id = self.quorum().map(|quorum| quorum.directory_id()).unwrap_or_default();
        FormError::Removed { node_id: self.node_id, directory_id }
    }

    /// Waits until the leader of the quorum confirms that this node is still a member, and knows its address.
    ///
    /// # Errors
    /// The node was removed.
    pub(crate) async fn confirm_member(&self) -> Result<(), FormError> {
        let quorum = self.quorum().ok_or_else(|| FormError::Quorum("its log is not open".to_owned()))?;
        let Peer { directory_id, address } = self.own_peer(quorum);
        let call = Call::Confirm { node_id: self.node_id, directory_id, address };
        self.ask_members(&call).await.map_err(|error| match error.code {
            ErrorCode::VOTER_NOT_FOUND => self.removed(),
            _ => FormError::Rejected(error.message),
        })
    }

    /// Sends a call to one node after the other, until the leader of the quorum has processed it.
    ///
    /// # Errors
    /// The leader rejects the call.
    async fn ask_members(&self, call: &Call) -> Result<(), ApiError> {
        let (mut hint, mut next, mut reported) = (None, 0, String::new());
        loop {
            let known = self.known_addresses();
            let address = hint.take().unwrap_or_else(|| known[next % known.len()].clone());
            next += 1;
            let reply = match address == self.address.to_string() {
                true => Ok(self.reply(call.clone()).await),
                false => self.peers.call(&address, call, CALL_TIMEOUT).await,
            };
            let error = match reply {
                Ok(Reply::Done) => return Ok(()),
                Ok(Reply::Rejected(error)) => ApiError::from(error),
                Err(PeerError::Rejected { error, .. }) => error,
                Ok(Reply::NotController { leader }) => {
                    hint = leader.filter(|leader| *leader != address);
                    ApiError::new(ErrorCode::NOT_CONTROLLER, "no node is known as the controller")
                }
                Ok(_) => ApiError::new(ErrorCode::UNKNOWN_SERVER_ERROR, "a node does not process the call"),
                Err(error) => ApiError::new(ErrorCode::REQUEST_TIMED_OUT, error.to_string()),
            };
            if is_final(&error) {
                return Err(error);
            }
            if error.message != reported {
                tracing::info!("the cluster has not confirmed this node yet: {error}");
                reported = error.message;
            }
            sleep(RETRY_AFTER).await;
        }
    }

    /// Returns the addresses of the configured servers and of the members that the log names.
    fn known_addresses(&self) -> Vec<String> {
        let mut known: Vec<String> = self.config.servers.iter().map(|server| server.address.to_string()).collect();
        let description = self.quorum().map(|quorum| quorum.describe());
        let members = description.into_iter().flat_map(|found| found.voters.into_iter().chain(found.observers));
        for address in members.map(|member| self.peers.address(&member.peer)) {
            if !known.contains(&address) {
                known.push(address);
            }
        }
        known
    }
}

/// Returns whether a node that is rejected like this would always be.
fn is_final(error: &ApiError) -> bool {
    let codes = [
        ErrorCode::DUPLICATE_VOTER,
        ErrorCode::INVALID_REQUEST,
        ErrorCode::VOTER_NOT_FOUND,
        // Another node rejects the connection, since it belongs to another cluster.
        ErrorCode::INCONSISTENT_CLUSTER_ID,
    ];
    codes.contains(&error.code)
}

/// Returns whether two addresses are the same node's. A name and its address do not compare as equal.
fn same_address(one: &HostPort, other: &HostPort) -> bool {
    let is_local = |host: &str| host == "localhost" || host == "127.0.0.1";
    one.port == other.port && (one.host == other.host || is_local(&one.host) && is_local(&other.host))
}
