//! The replicated log of a cluster's metadata. It knows bytes and node ids, not topics.
//!
//! [`Quorum`] is what a controller uses, [`RaftQuorum`] its implementation on openraft. The caller brings a [`Machine`]
//! for the committed entries, a [`Transport`] for requests to other voters, and a [`storage::Disk`].

mod config;
mod quorum;
mod raft;
pub mod storage;

pub use config::{ConfigError, QuorumConfig};
pub use quorum::{
    ChangeError, Description, Leadership, Machine, NodeId, Peer, ProposeError, Quorum, Replica, RestoreError,
};
pub use raft::{LastMember, OpenError, RaftQuorum, Request, RequestError, Response, Transport, TransportError};
