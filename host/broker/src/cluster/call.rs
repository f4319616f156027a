//! What nodes ask each other, besides the quorum's own requests.

use millstream_metadata::MetadataRecord;
use millstream_metadata::controller::{BrokerState, Heartbeat, Request};
use millstream_quorum::Replica;
use millstream_wire::ErrorCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::ApiError;

/// A call from one node to another.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Call {
    /// Asks whether the node is in a cluster.
    Describe,
    /// Asks the leader of the quorum to add a member.
    Join {
        /// The new member.
        node_id: i32,
        /// The id of its log.
        directory_id: Uuid,
        /// The address at which other nodes reach it.
        address: String,
        /// Whether it votes.
        votes: bool,
        /// The process of the new member; nil if another node asks for it.
        incarnation: Uuid,
    },
    /// Asks the leader of the quorum whether a node is still a member. Its address may have changed.
    Confirm {
        /// The member.
        node_id: i32,
        /// The id of its log.
        directory_id: Uuid,
        /// The address at which other nodes reach it now.
        address: String,
    },
    /// Asks the leader of the quorum to remove a member.
    Leave {
        /// The member.
        node_id: i32,
        /// The id of its log.
        directory_id: Uuid,
    },
    /// Asks the controller for changes of the metadata.
    Change {
        /// The changes.
        requests: Vec<Request>,
        /// Whether they are only checked.
        validate_only: bool,
    },
    /// Tells the controller that a broker is alive.
    Heartbeat(Heartbeat),
    /// Asks the leader of the quorum for the state of its members.
    DescribeQuorum,
    /// Asks a broker for something at its edge.
    Edge(EdgeCall),
}

/// A call to the edge of a broker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum EdgeCall {
    /// Asks a broker to prepare what a batch of the topic of plug-ins activates. The batch comes with the call.
    Prepare {
        /// The offset at which the batch will be appended.
        begin: i64,
    },
    /// Asks a broker to apply the topic of plug-ins up to an offset.
    Follow {
        /// The offset.
        end: i64,
    },
    /// Asks the leader of the topic of plug-ins to roll back a version.
    RollBack {
        /// The plug-in.
        plugin: String,
        /// The version.
        number: u32,
        /// The reason for the history.
        reason: String,
    },
    /// Asks the leader of the topic of plug-ins to store a component, which comes with the call.
    Push {
        /// The name of its file.
        file: String,
        /// Whether the caller sees the file for the first time since its start.
        is_first_look: bool,
    },
    /// Asks the leader of a partition to append a batch, which comes with the call.
    Append {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Whether the reply waits until the batch is committed.
        waits: bool,
        /// The transaction that the batch is part of.
        #[serde(default)]
        transaction: Option<BatchTransaction>,
    },
    /// Asks the leader of the topic of plug-ins to add up the failures of a version on all brokers. The leader rolls
    /// the version back if they are too many.
    CheckFailures {
        /// The plug-in.
        plugin: String,
        /// The version.
        number: u32,
    },
    /// Asks a broker for the recent failures of a version.
    Failures {
        /// The plug-in.
        plugin: String,
        /// The version.
        number: u32,
    },
}

/// The transaction of a batch that a broker has built from records of a producer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BatchTransaction {
    /// The transactional id.
    pub(crate) id: String,
    /// The version of Produce by which the records came.
    pub(crate) produce_version: i16,
    /// The topic and partition that they were sent to.
    pub(crate) source: (String, i32),
    /// The epoch in which the broker leads that partition.
    pub(crate) leader_epoch: i32,
}

/// The reply to a call.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// To [`Call::Describe`].
    Described {
        /// The cluster, if the node is in one.
        cluster_id: Option<String>,
        /// The address of the leader of the quorum, if it is known.
        leader: Option<String>,
    },
    /// The members are as the call wants them.
    Done,
    /// To [`Call::Change`].
    Changed(Changed),
    /// To [`Call::Heartbeat`].
    State(Result<BrokerState, CallError>),
    /// To [`Call::DescribeQuorum`].
    Quorum(QuorumState),
    /// To [`Call::Edge`].
    Edge(Result<EdgeReply, CallError>),
    /// Another node is the leader of the quorum and the controller.
    NotController {
        /// Its address, if it is known.
        leader: Option<String>,
    },
    /// The call is rejected.
    Rejected(CallError),
}

/// The reply to a call to the edge.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum EdgeReply {
    /// To [`EdgeCall::Append`] and [`EdgeCall::CheckFailures`].
    Done,
    /// To [`EdgeCall::Prepare`].
    Prepared(Result<(), NotPrepared>),
    /// To [`EdgeCall::Follow`].
    Follows {
        /// The offset up to which the broker has applied the topic.
        end: i64,
    },
    /// To [`EdgeCall::RollBack`].
    RolledBack {
        /// The version that is active now; `None` if the other one was not active.
        active: Option<u32>,
    },
    /// To [`EdgeCall::Push`].
    Pushed {
        /// Whether the store did not have the component.
        is_new: bool,
    },
    /// To [`EdgeCall::Failures`].
    Failures {
        /// The number of traps.
        traps: u64,
        /// The records that failed.
        bad: u64,
        /// All records.
        records: u64,
    },
}

/// Why a broker cannot prepare a batch of the topic of plug-ins.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NotPrepared {
    /// The index of the record.
    pub(crate) index: usize,
    pub(crate) message: String,
}

/// The state of the quorum as its leader knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct QuorumState {
    pub(crate) leader: i32,
    pub(crate) term: u64,
    /// The index after the last entry that a majority has.
    pub(crate) committed_end: u64,
    pub(crate) voters: Vec<Member>,
    pub(crate) observers: Vec<Member>,
}

/// A member of the quorum.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) node_id: i32,
    pub(crate) directory_id: Uuid,
    /// The address of its listener for nodes.
    pub(crate) address: String,
    /// The index after its last entry, if it was heard.
    pub(crate) log_end: Option<u64>,
}

impl From<Replica> for Member {
    fn from(replica: Replica) -> Self {
        let Replica { node_id, peer, log_end, .. } = replica;
        Self { node_id, directory_id: peer.directory_id, address: peer.address, log_end }
    }
}

/// The outcome of one change.
pub(crate) type Outcome = Result<Vec<MetadataRecord>, CallError>;

/// The outcomes of changes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Changed {
    /// One for each change.
    pub(crate) outcomes: Vec<Outcome>,
    /// The version of the image that has them.
    pub(crate) version: u64,
}

/// An error that crosses a connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CallError {
    code: i16,
    message: String,
}

impl From<ApiError> for CallError {
    fn from(error: ApiError) -> Self {
        Self { code: error.code.0, message: error.message }
    }
}

impl From<CallError> for ApiError {
    fn from(error: CallError) -> Self {
        Self::new(ErrorCode(error.code), error.message)
    }
}
