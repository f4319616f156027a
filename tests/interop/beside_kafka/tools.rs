//! The APIs that tools call on a cluster without security, quotas and reassignments.

use millstream_wire::Str;
use millstream_wire::messages::*;

use super::{Seen, create};
use crate::support::Raw;

pub(super) fn elect_leaders(raw: &mut Raw, seen: &mut Seen) {
    let topic = create(raw, "elected", 2, &[]);
    let of = |topic: &str, partitions: &[i32]| ElectLeadersTopicPartitions {
        topic: topic.into(),
        partitions: partitions.into(),
    };
    let some = vec![of(&topic.name, &[0, 1, 9]), of("no-such-topic", &[0])];
    for version in 0..=2 {
        for election_type in if version == 0 { 0..=0 } else { 0..=1 } {
            for topic_partitions in [Some(some.clone()), Some(Vec::new()), None] {
                let what = format!(
                    "v{version} {election_type} {}",
                    topic_partitions.as_ref().map_or(-1, |of| of.len() as i32)
                );
                let mut response =
                    raw.call(version, &ElectLeadersRequest { election_type, topic_partitions, timeout_ms: 30_000 });
                // Asked for all topics, Kafka lists every topic without partitions.
                response.replica_election_results.retain(|result| !result.partition_result.is_empty());
                seen.add(&what, &response);
            }
        }
    }
    let unknown = ElectLeadersRequest { election_type: 7, topic_partitions: Some(some), timeout_ms: 30_000 };
    seen.add("an unknown type", &raw.call(2, &unknown));
}

pub(super) fn list_partition_reassignments(raw: &mut Raw, seen: &mut Seen) {
    let topic = create(raw, "reassigned", 1, &[]);
    let of = |name: &str, partition| ListPartitionReassignmentsTopics {
        name: name.into(),
        partition_indexes: vec![partition],
    };
    for topics in [None, Some(Vec::new()), Some(vec![of(&topic.name, 0), of(&topic.name, 9), of("no-such-topic", 0)])] {
        let request = ListPartitionReassignmentsRequest { timeout_ms: 30_000, topics };
        seen.add("reassignments", &raw.call(0, &request));
    }
}

pub(super) fn describe_acls(raw: &mut Raw, seen: &mut Seen) {
    for version in 1..=3 {
        // Any resource, pattern, operation and permission.
        let any = DescribeAclsRequest {
            resource_type_filter: 1,
            pattern_type_filter: 1,
            operation: 1,
            permission_type: 1,
            ..Default::default()
        };
        seen.add(&format!("v{version}"), &raw.call(version, &any));
    }
}

pub(super) fn describe_client_quotas(raw: &mut Raw, seen: &mut Seen) {
    let component = |entity_type: &str, match_type, name: Option<&str>| ClientQuotaComponent {
        entity_type: entity_type.into(),
        match_type,
        r#match: name.map(Str::from),
    };
    for version in 0..=1 {
        for components in [
            vec![],
            vec![component("user", 0, Some("alice"))],
            vec![component("user", 1, None), component("client-id", 2, None)],
            vec![component("ip", 0, Some("127.0.0.1"))],
            vec![component("ip", 2, None), component("user", 2, None)],
            vec![component("", 2, None)],
            vec![component("group", 2, None)],
            vec![component("user", 2, None), component("user", 1, None)],
            vec![component("user", 0, None)],
            vec![component("user", 1, Some("alice"))],
            vec![component("user", 2, Some("alice"))],
            vec![component("user", 9, None)],
        ] {
            for strict in [false, true] {
                let what = format!("v{version} {strict} {components:?}");
                let request = DescribeClientQuotasRequest { components: components.clone(), strict };
                seen.add(&what, &raw.call(version, &request));
            }
        }
    }
}

pub(super) fn describe_user_scram_credentials(raw: &mut Raw, seen: &mut Seen) {
    let users = |names: &[&str]| Some(names.iter().map(|name| ScramUserName { name: Str::from(*name) }).collect());
    for users in [None, users(&[]), users(&["alice"]), users(&["alice", "alice"]), users(&["alice", "bob", ""])] {
        let mut response = raw.call(0, &DescribeUserScramCredentialsRequest { users });
        response.results.sort_by(|one, other| one.user.cmp(&other.user));
        seen.add("credentials", &response);
    }
}

pub(super) fn list_config_resources(raw: &mut Raw, seen: &mut Seen) {
    create(raw, "listed", 1, &[]);
    let mut list = |version, what: &str, types: &[i8]| {
        let request = ListConfigResourcesRequest { resource_types: types.into() };
        let mut response = raw.call(version, &request);
        // Topics that the other probes and the broker itself have created.
        response.config_resources.retain(|found| found.resource_type != 2 || found.resource_name == "listed");
        response.config_resources.sort_by(|one, other| {
            (one.resource_type, &one.resource_name).cmp(&(other.resource_type, &other.resource_name))
        });
        seen.add(what, &response);
    };
    list(0, "v0", &[]);
    for types in [&[][..], &[2], &[4], &[8], &[16], &[32], &[2, 4], &[3], &[0], &[2, 77]] {
        list(1, &format!("v1 {types:?}"), types);
    }
}
