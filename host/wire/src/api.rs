//! The list of APIs that the codec can read and write. What a broker serves is its own list.

use std::fmt;

use crate::codec::Request;
use crate::error::{WireError, WireErrorKind};
use crate::messages;

macro_rules! apis {
    ($($name:ident = $key:literal, $request:ident;)*) => {
        /// An API by Kafka's number. Only APIs that the codec knows have a variant.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i16)]
        #[allow(missing_docs, reason = "the names are Kafka's and say it")]
        pub enum ApiKey {
            $($name = $key,)*
        }

        static APIS: &[ApiInfo] = &[$(ApiInfo::of::<messages::$request>(stringify!($name)),)*];

        impl ApiKey {
            /// Returns its versions and name.
            #[must_use]
            pub fn info(self) -> &'static ApiInfo {
                // The list has the order of the variants.
                #[repr(usize)]
                enum Index { $($name,)* }
                let index = match self { $(Self::$name => Index::$name,)* };
                &APIS[index as usize]
            }
        }

        impl TryFrom<i16> for ApiKey {
            type Error = WireError;

            fn try_from(key: i16) -> Result<Self, WireError> {
                match key {
                    $($key => Ok(Self::$name),)*
                    _ => Err(WireError::new(WireErrorKind::UnknownApi(key))),
                }
            }
        }
    };
}

apis! {
    Produce = 0, ProduceRequest;
    Fetch = 1, FetchRequest;
    ListOffsets = 2, ListOffsetsRequest;
    Metadata = 3, MetadataRequest;
    OffsetCommit = 8, OffsetCommitRequest;
    OffsetFetch = 9, OffsetFetchRequest;
    FindCoordinator = 10, FindCoordinatorRequest;
    JoinGroup = 11, JoinGroupRequest;
    Heartbeat = 12, HeartbeatRequest;
    LeaveGroup = 13, LeaveGroupRequest;
    SyncGroup = 14, SyncGroupRequest;
    DescribeGroups = 15, DescribeGroupsRequest;
    ListGroups = 16, ListGroupsRequest;
    ApiVersions = 18, ApiVersionsRequest;
    CreateTopics = 19, CreateTopicsRequest;
    DeleteTopics = 20, DeleteTopicsRequest;
    DeleteRecords = 21, DeleteRecordsRequest;
    InitProducerId = 22, InitProducerIdRequest;
    OffsetForLeaderEpoch = 23, OffsetForLeaderEpochRequest;
    AddPartitionsToTxn = 24, AddPartitionsToTxnRequest;
    AddOffsetsToTxn = 25, AddOffsetsToTxnRequest;
    EndTxn = 26, EndTxnRequest;
    WriteTxnMarkers = 27, WriteTxnMarkersRequest;
    TxnOffsetCommit = 28, TxnOffsetCommitRequest;
    DescribeAcls = 29, DescribeAclsRequest;
    DescribeConfigs = 32, DescribeConfigsRequest;
    AlterConfigs = 33, AlterConfigsRequest;
    AlterReplicaLogDirs = 34, AlterReplicaLogDirsRequest;
    DescribeLogDirs = 35, DescribeLogDirsRequest;
    CreatePartitions = 37, CreatePartitionsRequest;
    DeleteGroups = 42, DeleteGroupsRequest;
    ElectLeaders = 43, ElectLeadersRequest;
    IncrementalAlterConfigs = 44, IncrementalAlterConfigsRequest;
    AlterPartitionReassignments = 45, AlterPartitionReassignmentsRequest;
    ListPartitionReassignments = 46, ListPartitionReassignmentsRequest;
    OffsetDelete = 47, OffsetDeleteRequest;
    DescribeClientQuotas = 48, DescribeClientQuotasRequest;
    DescribeUserScramCredentials = 50, DescribeUserScramCredentialsRequest;
    DescribeQuorum = 55, DescribeQuorumRequest;
    AlterPartition = 56, AlterPartitionRequest;
    UpdateFeatures = 57, UpdateFeaturesRequest;
    DescribeCluster = 60, DescribeClusterRequest;
    DescribeProducers = 61, DescribeProducersRequest;
    BrokerRegistration = 62, BrokerRegistrationRequest;
    BrokerHeartbeat = 63, BrokerHeartbeatRequest;
    UnregisterBroker = 64, UnregisterBrokerRequest;
    DescribeTransactions = 65, DescribeTransactionsRequest;
    ListTransactions = 66, ListTransactionsRequest;
    AllocateProducerIds = 67, AllocateProducerIdsRequest;
    ConsumerGroupHeartbeat = 68, ConsumerGroupHeartbeatRequest;
    ConsumerGroupDescribe = 69, ConsumerGroupDescribeRequest;
    ListConfigResources = 74, ListConfigResourcesRequest;
    DescribeTopicPartitions = 75, DescribeTopicPartitionsRequest;
    AddRaftVoter = 80, AddRaftVoterRequest;
    RemoveRaftVoter = 81, RemoveRaftVoterRequest;
    UnregisterController = 94, UnregisterControllerRequest;
}

/// Describes an API: the versions that the codec can read and write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiInfo {
    /// The number that requests carry.
    pub key: ApiKey,
    /// Kafka's name.
    pub name: &'static str,
    /// The oldest version.
    pub min: i16,
    /// The newest version.
    pub max: i16,
    /// The first flexible version; `i16::MAX` when there is none.
    pub flexible: i16,
}

/// Returns every API that the codec knows, by ascending key.
#[must_use]
pub fn apis() -> &'static [ApiInfo] {
    APIS
}

impl ApiInfo {
    const fn of<R: Request>(name: &'static str) -> Self {
        Self { key: R::KEY, name, min: *R::VERSIONS.start(), max: *R::VERSIONS.end(), flexible: R::FLEXIBLE }
    }

    /// Returns whether the codec can read and write a version.
    #[must_use]
    pub fn supports(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }

    /// Returns the version of the header before a request: 2 has tagged fields, 1 has none.
    #[must_use]
    pub fn request_header_version(&self, version: i16) -> i16 {
        if version >= self.flexible { 2 } else { 1 }
    }

    /// Returns the version of the header before a response: 1 has tagged fields, 0 has none.
    ///
    /// ApiVersions always has 0: a client reads that response before it knows what the broker supports (KIP-511).
    #[must_use]
    pub fn response_header_version(&self, version: i16) -> i16 {
        if version >= self.flexible && self.key != ApiKey::ApiVersions { 1 } else { 0 }
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.info().name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_finds_itself() {
        assert!(apis().is_sorted_by(|a, b| (a.key as i16) < b.key as i16));
        for api in apis() {
            assert_eq!(api.key.info(), api);
            assert_eq!(ApiKey::try_from(api.key as i16), Ok(api.key));
            assert_eq!(format!("{:?}", api.key), api.name);
        }
        assert!(ApiKey::try_from(-1).is_err());
    }

    #[test]
    fn the_response_of_api_versions_has_the_oldest_header() {
        let info = ApiKey::ApiVersions.info();
        assert_eq!(info.request_header_version(3), 2);
        assert_eq!(info.response_header_version(3), 0);
    }
}
