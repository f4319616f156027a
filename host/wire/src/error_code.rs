//! Kafka's error codes.

use std::fmt;

/// An error code of a response. Unknown codes are kept.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorCode(pub i16);

macro_rules! error_codes {
    (retriable: { $($retriable:ident = $retriable_code:literal,)* } final: { $($name:ident = $code:literal,)* }) => {
        #[allow(missing_docs, reason = "the names are Kafka's and say it")]
        impl ErrorCode {
            $(pub const $retriable: Self = Self($retriable_code);)*
            $(pub const $name: Self = Self($code);)*
        }

        impl ErrorCode {
            /// Every known code, the retriable ones first.
            pub const ALL: &'static [Self] = &[$(Self::$retriable,)* $(Self::$name,)*];

            /// Returns Kafka's name; None for an unknown code.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$retriable => Some(stringify!($retriable)),)*
                    $(Self::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }

            /// Returns whether a retry may succeed, by the rules of Kafka's clients.
            #[must_use]
            pub const fn retriable(self) -> bool {
                matches!(self, $(Self::$retriable)|*)
            }
        }
    };
}

error_codes! {
    retriable: {
        CORRUPT_MESSAGE = 2,
        UNKNOWN_TOPIC_OR_PARTITION = 3,
        LEADER_NOT_AVAILABLE = 5,
        NOT_LEADER_OR_FOLLOWER = 6,
        REQUEST_TIMED_OUT = 7,
        REPLICA_NOT_AVAILABLE = 9,
        NETWORK_EXCEPTION = 13,
        COORDINATOR_LOAD_IN_PROGRESS = 14,
        COORDINATOR_NOT_AVAILABLE = 15,
        NOT_COORDINATOR = 16,
        NOT_ENOUGH_REPLICAS = 19,
        NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20,
        NOT_CONTROLLER = 41,
        CONCURRENT_TRANSACTIONS = 51,
        KAFKA_STORAGE_ERROR = 56,
        FETCH_SESSION_ID_NOT_FOUND = 70,
        INVALID_FETCH_SESSION_EPOCH = 71,
        LISTENER_NOT_FOUND = 72,
        FENCED_LEADER_EPOCH = 74,
        UNKNOWN_LEADER_EPOCH = 75,
        OFFSET_NOT_AVAILABLE = 78,
        PREFERRED_LEADER_NOT_AVAILABLE = 80,
        ELIGIBLE_LEADERS_NOT_AVAILABLE = 83,
        ELECTION_NOT_NEEDED = 84,
        UNSTABLE_OFFSET_COMMIT = 88,
        THROTTLING_QUOTA_EXCEEDED = 89,
        UNKNOWN_TOPIC_ID = 100,
        INCONSISTENT_TOPIC_ID = 103,
        FETCH_SESSION_TOPIC_ID_ERROR = 106,
        SHARE_SESSION_NOT_FOUND = 122,
        INVALID_SHARE_SESSION_EPOCH = 123,
        SHARE_SESSION_LIMIT_REACHED = 133,
    }
    final: {
        UNKNOWN_SERVER_ERROR = -1,
        NONE = 0,
        OFFSET_OUT_OF_RANGE = 1,
        INVALID_FETCH_SIZE = 4,
        BROKER_NOT_AVAILABLE = 8,
        MESSAGE_TOO_LARGE = 10,
        STALE_CONTROLLER_EPOCH = 11,
        OFFSET_METADATA_TOO_LARGE = 12,
        INVALID_TOPIC_EXCEPTION = 17,
        RECORD_LIST_TOO_LARGE = 18,
        INVALID_REQUIRED_ACKS = 21,
        ILLEGAL_GENERATION = 22,
        INCONSISTENT_GROUP_PROTOCOL = 23,
        INVALID_GROUP_ID = 24,
        UNKNOWN_MEMBER_ID = 25,
        INVALID_SESSION_TIMEOUT = 26,
        REBALANCE_IN_PROGRESS = 27,
        INVALID_COMMIT_OFFSET_SIZE = 28,
        TOPIC_AUTHORIZATION_FAILED = 29,
        GROUP_AUTHORIZATION_FAILED = 30,
        CLUSTER_AUTHORIZATION_FAILED = 31,
        INVALID_TIMESTAMP = 32,
        UNSUPPORTED_SASL_MECHANISM = 33,
        ILLEGAL_SASL_STATE = 34,
        UNSUPPORTED_VERSION = 35,
        TOPIC_ALREADY_EXISTS = 36,
        INVALID_PARTITIONS = 37,
        INVALID_REPLICATION_FACTOR = 38,
        INVALID_REPLICA_ASSIGNMENT = 39,
        INVALID_CONFIG = 40,
        INVALID_REQUEST = 42,
        UNSUPPORTED_FOR_MESSAGE_FORMAT = 43,
        POLICY_VIOLATION = 44,
        OUT_OF_ORDER_SEQUENCE_NUMBER = 45,
        DUPLICATE_SEQUENCE_NUMBER = 46,
        INVALID_PRODUCER_EPOCH = 47,
        INVALID_TXN_STATE = 48,
        INVALID_PRODUCER_ID_MAPPING = 49,
        INVALID_TRANSACTION_TIMEOUT = 50,
        TRANSACTION_COORDINATOR_FENCED = 52,
        TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53,
        SECURITY_DISABLED = 54,
        OPERATION_NOT_ATTEMPTED = 55,
        LOG_DIR_NOT_FOUND = 57,
        SASL_AUTHENTICATION_FAILED = 58,
        UNKNOWN_PRODUCER_ID = 59,
        REASSIGNMENT_IN_PROGRESS = 60,
        DELEGATION_TOKEN_AUTH_DISABLED = 61,
        DELEGATION_TOKEN_NOT_FOUND = 62,
        DELEGATION_TOKEN_OWNER_MISMATCH = 63,
        DELEGATION_TOKEN_REQUEST_NOT_ALLOWED = 64,
        DELEGATION_TOKEN_AUTHORIZATION_FAILED = 65,
        DELEGATION_TOKEN_EXPIRED = 66,
        INVALID_PRINCIPAL_TYPE = 67,
        NON_EMPTY_GROUP = 68,
        GROUP_ID_NOT_FOUND = 69,
        TOPIC_DELETION_DISABLED = 73,
        UNSUPPORTED_COMPRESSION_TYPE = 76,
        STALE_BROKER_EPOCH = 77,
        MEMBER_ID_REQUIRED = 79,
        GROUP_MAX_SIZE_REACHED = 81,
        FENCED_INSTANCE_ID = 82,
        NO_REASSIGNMENT_IN_PROGRESS = 85,
        GROUP_SUBSCRIBED_TO_TOPIC = 86,
        INVALID_RECORD = 87,
        PRODUCER_FENCED = 90,
        RESOURCE_NOT_FOUND = 91,
        DUPLICATE_RESOURCE = 92,
        UNACCEPTABLE_CREDENTIAL = 93,
        INCONSISTENT_VOTER_SET = 94,
        INVALID_UPDATE_VERSION = 95,
        FEATURE_UPDATE_FAILED = 96,
        PRINCIPAL_DESERIALIZATION_FAILURE = 97,
        SNAPSHOT_NOT_FOUND = 98,
        POSITION_OUT_OF_RANGE = 99,
        DUPLICATE_BROKER_REGISTRATION = 101,
        BROKER_ID_NOT_REGISTERED = 102,
        INCONSISTENT_CLUSTER_ID = 104,
        TRANSACTIONAL_ID_NOT_FOUND = 105,
        INELIGIBLE_REPLICA = 107,
        NEW_LEADER_ELECTED = 108,
        OFFSET_MOVED_TO_TIERED_STORAGE = 109,
        FENCED_MEMBER_EPOCH = 110,
        UNRELEASED_INSTANCE_ID = 111,
        UNSUPPORTED_ASSIGNOR = 112,
        STALE_MEMBER_EPOCH = 113,
        MISMATCHED_ENDPOINT_TYPE = 114,
        UNSUPPORTED_ENDPOINT_TYPE = 115,
        UNKNOWN_CONTROLLER_ID = 116,
        UNKNOWN_SUBSCRIPTION_ID = 117,
        TELEMETRY_TOO_LARGE = 118,
        INVALID_REGISTRATION = 119,
        TRANSACTION_ABORTABLE = 120,
        INVALID_RECORD_STATE = 121,
        FENCED_STATE_EPOCH = 124,
        INVALID_VOTER_KEY = 125,
        DUPLICATE_VOTER = 126,
        VOTER_NOT_FOUND = 127,
        INVALID_REGULAR_EXPRESSION = 128,
        REBOOTSTRAP_REQUIRED = 129,
        STREAMS_INVALID_TOPOLOGY = 130,
        STREAMS_INVALID_TOPOLOGY_EPOCH = 131,
        STREAMS_TOPOLOGY_FENCED = 132,
        GROUP_DELETION_FAILED = 134,
        STREAMS_TOPOLOGY_DESCRIPTION_UPDATE_FAILED = 135,
        CONTROLLER_ID_NOT_REGISTERED = 136,
    }
}

impl ErrorCode {
    /// Returns whether the code means success.
    #[must_use]
    pub const fn is_ok(self) -> bool {
        self.0 == Self::NONE.0
    }

    /// Returns whether the code means an error.
    #[must_use]
    pub const fn is_err(self) -> bool {
        !self.is_ok()
    }

    /// Returns whether a client should update its metadata before it retries.
    #[must_use]
    pub const fn invalid_metadata(self) -> bool {
        matches!(
            self,
            Self::UNKNOWN_TOPIC_OR_PARTITION
                | Self::LEADER_NOT_AVAILABLE
                | Self::NOT_LEADER_OR_FOLLOWER
                | Self::REPLICA_NOT_AVAILABLE
                | Self::NETWORK_EXCEPTION
                | Self::KAFKA_STORAGE_ERROR
                | Self::LISTENER_NOT_FOUND
                | Self::FENCED_LEADER_EPOCH
                | Self::PREFERRED_LEADER_NOT_AVAILABLE
                | Self::ELIGIBLE_LEADERS_NOT_AVAILABLE
                | Self::ELECTION_NOT_NEEDED
                | Self::UNKNOWN_TOPIC_ID
                | Self::INCONSISTENT_TOPIC_ID
        )
    }

    /// Returns the code as a result, in which every code but [`ErrorCode::NONE`] is the error.
    ///
    /// # Errors
    /// Every code but [`ErrorCode::NONE`].
    pub const fn ok(self) -> Result<(), Self> {
        if self.is_ok() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error code {}", self.0),
        }
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ErrorCode {}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_without_gaps() {
        let codes: HashSet<i16> = ErrorCode::ALL.iter().map(|code| code.0).collect();
        assert_eq!(codes.len(), ErrorCode::ALL.len());
        assert!((-1..=136).all(|code| codes.contains(&code)));
    }

    #[test]
    fn names_and_retries() {
        assert_eq!(ErrorCode(3).to_string(), "UNKNOWN_TOPIC_OR_PARTITION");
        assert!(ErrorCode::NOT_LEADER_OR_FOLLOWER.retriable());
        assert!(!ErrorCode::INVALID_RECORD.retriable());
        assert_eq!(ErrorCode(900).to_string(), "error code 900");
    }
}
