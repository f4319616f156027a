//! The one list of APIs.

use std::fmt;

use crate::codec::Request;
use crate::error::{WireError, WireErrorKind};
use crate::messages;

macro_rules! apis {
    ($($name:ident = $key:literal, $request:ident;)*) => {
        /// What a request asks for. Only what is supported has a variant.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i16)]
        #[allow(missing_docs, reason = "the names are Kafka's and say it")]
        pub enum ApiKey {
            $($name = $key,)*
        }

        static APIS: &[ApiInfo] = &[$(ApiInfo::of::<messages::$request>(stringify!($name)),)*];

        impl ApiKey {
            /// What is known of it.
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
    InitProducerId = 22, InitProducerIdRequest;
    OffsetForLeaderEpoch = 23, OffsetForLeaderEpochRequest;
    DescribeConfigs = 32, DescribeConfigsRequest;
    AlterConfigs = 33, AlterConfigsRequest;
    CreatePartitions = 37, CreatePartitionsRequest;
    IncrementalAlterConfigs = 44, IncrementalAlterConfigsRequest;
    DescribeCluster = 60, DescribeClusterRequest;
}

/// An API as this crate can speak it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiInfo {
    /// Its key.
    pub key: ApiKey,
    /// Kafka's name for it.
    pub name: &'static str,
    /// The oldest version.
    pub min: i16,
    /// The newest version.
    pub max: i16,
    /// The first flexible version; `i16::MAX` when there is none.
    pub flexible: i16,
}

/// Every API that this crate can speak, by ascending key.
#[must_use]
pub fn apis() -> &'static [ApiInfo] {
    APIS
}

impl ApiInfo {
    const fn of<R: Request>(name: &'static str) -> Self {
        Self { key: R::KEY, name, min: *R::VERSIONS.start(), max: *R::VERSIONS.end(), flexible: R::FLEXIBLE }
    }

    /// Whether a version can be read and written.
    #[must_use]
    pub fn supports(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }

    /// The version of the header before a request: 2 has tagged fields, 1 has none.
    #[must_use]
    pub fn request_header_version(&self, version: i16) -> i16 {
        if version >= self.flexible { 2 } else { 1 }
    }

    /// The version of the header before an answer: 1 has tagged fields, 0 has none.
    ///
    /// That of ApiVersions never has: a client has to read it before it knows what the broker speaks (KIP-511).
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
    fn api_versions_is_answered_under_the_oldest_header() {
        let info = ApiKey::ApiVersions.info();
        assert_eq!(info.request_header_version(3), 2);
        assert_eq!(info.response_header_version(3), 0);
    }
}
