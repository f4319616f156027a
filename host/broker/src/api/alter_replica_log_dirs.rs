//! AlterReplicaLogDirs: moves replicas of this broker to other data folders of it (KIP-113).

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use millstream_wire::ErrorCode;
use millstream_wire::messages::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult, AlterReplicaLogDirsRequest,
    AlterReplicaLogDirsResponse,
};

use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::log_dirs::LogDir;
use crate::security::{AclOperation, Permission, ResourceType};

pub(super) struct AlterReplicaLogDirs;

impl Handler for AlterReplicaLogDirs {
    type Request = AlterReplicaLogDirsRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=2;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Alter, ResourceType::Cluster));

    async fn handle(
        broker: &Arc<Broker>,
        _: &RequestContext,
        request: AlterReplicaLogDirsRequest,
    ) -> AlterReplicaLogDirsResponse {
        let mut results: Vec<AlterReplicaLogDirTopicResult> = Vec::new();
        for dir in request.dirs {
            let target = broker.dirs.iter().find(|known| known.is_named_in(&dir.path));
            for topic in dir.topics {
                let alter = |&partition_index: &i32| AlterReplicaLogDirPartitionResult {
                    partition_index,
                    error_code: target.map_or(ErrorCode::LOG_DIR_NOT_FOUND, |target| {
                        alter(broker, &topic.name, partition_index, target)
                    }),
                };
                let altered: Vec<_> = topic.partitions.iter().map(alter).collect();
                match results.iter_mut().find(|result| result.topic_name == topic.name) {
                    Some(result) => result.partitions.extend(altered),
                    None => results
                        .push(AlterReplicaLogDirTopicResult { topic_name: topic.name.clone(), partitions: altered }),
                }
            }
        }
        AlterReplicaLogDirsResponse { results, ..Default::default() }
    }
}

/// Starts the move of one replica. A replica that this broker does not have yet will be created in the folder.
fn alter(broker: &Broker, topic: &str, index: i32, target: &Arc<LogDir>) -> ErrorCode {
    if !target.is_online() {
        return ErrorCode::KAFKA_STORAGE_ERROR;
    }
    let topics = broker.topics.load();
    let found = topics.by_name(topic).and_then(|found| Some((found.id, found.partition(index)?)));
    let Some((id, partition)) = found.filter(|(_, partition)| partition.is_replica()) else {
        broker.controller.prefer_folder(topic, index, target);
        return ErrorCode::REPLICA_NOT_AVAILABLE;
    };
    match partition.data_dir().map(Path::new) {
        _ if !partition.is_online() => ErrorCode::KAFKA_STORAGE_ERROR,
        Some(here) if *here == **target.path() => {
            broker.controller.moves().cancel(id, index);
            ErrorCode::NONE
        }
        _ => {
            broker.controller.moves().add(id, index, target);
            ErrorCode::NONE
        }
    }
}
