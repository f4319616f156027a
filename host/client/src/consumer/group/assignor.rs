//! How the leader of a group assigns the partitions: Kafka's range and round-robin assignors.

use std::collections::BTreeMap;

use crate::consumer::config::Assignor;

/// A member of the group, with its subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: String,
    /// Static members come first, in the order of this name, so that a restart moves no partition.
    pub(crate) instance_id: Option<String>,
    pub(crate) topics: Vec<String>,
}

/// Partitions by topic.
pub(crate) type Assignment = BTreeMap<String, Vec<i32>>;

/// Assigns the partitions. Every member has an entry, which may be empty. `counts` holds the number of partitions of
/// each existing topic.
pub(crate) fn assign(
    assignor: Assignor,
    mut members: Vec<Member>,
    counts: &BTreeMap<String, i32>,
) -> BTreeMap<String, Assignment> {
    members.sort_by(|a, b| {
        let key = |member: &Member| (member.instance_id.is_none(), member.instance_id.clone(), member.id.clone());
        key(a).cmp(&key(b))
    });
    let mut assignments = members.iter().map(|member| (member.id.clone(), Assignment::new())).collect();
    match assignor {
        Assignor::Range => range(&members, counts, &mut assignments),
        Assignor::RoundRobin => round_robin(&members, counts, &mut assignments),
    }
    assignments
}

fn range(members: &[Member], counts: &BTreeMap<String, i32>, assignments: &mut BTreeMap<String, Assignment>) {
    for (topic, count) in counts {
        let subscribed: Vec<_> = members.iter().filter(|member| member.topics.contains(topic)).collect();
        let Ok(size) = i32::try_from(subscribed.len()) else { continue };
        let mut first = 0;
        for (index, member) in (0..).zip(subscribed) {
            let share = count / size + i32::from(index < count % size);
            if share > 0 {
                give(assignments, member, topic, first..first + share);
            }
            first += share;
        }
    }
}

fn round_robin(members: &[Member], counts: &BTreeMap<String, i32>, assignments: &mut BTreeMap<String, Assignment>) {
    let mut turn = members.iter().cycle();
    for (topic, count) in counts {
        if !members.iter().any(|member| member.topics.contains(topic)) {
            continue;
        }
        for partition in 0..*count {
            let member = turn.find(|member| member.topics.contains(topic));
            give(
                assignments,
                member.expect("at least one member has subscribed to the topic"),
                topic,
                partition..partition + 1,
            );
        }
    }
}

fn give(
    assignments: &mut BTreeMap<String, Assignment>,
    member: &Member,
    topic: &str,
    partitions: std::ops::Range<i32>,
) {
    let assignment = assignments.get_mut(&member.id).expect("every member has an entry");
    assignment.entry(topic.to_owned()).or_default().extend(partitions);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, topics: &[&str]) -> Member {
        Member { id: id.into(), instance_id: None, topics: topics.iter().map(|t| t.to_string()).collect() }
    }

    fn counts(counts: &[(&str, i32)]) -> BTreeMap<String, i32> {
        counts.iter().map(|(topic, count)| (topic.to_string(), *count)).collect()
    }

    fn shown(assignments: &BTreeMap<String, Assignment>) -> Vec<String> {
        assignments.iter().map(|(id, assignment)| format!("{id}: {assignment:?}")).collect()
    }

    #[test]
    fn range_assigns_consecutive_partitions_of_each_topic() {
        let members = vec![member("b", &["x", "y"]), member("a", &["x"])];
        let assignments = assign(Assignor::Range, members, &counts(&[("x", 3), ("y", 2), ("z", 9)]));
        assert_eq!(shown(&assignments), [r#"a: {"x": [0, 1]}"#, r#"b: {"x": [2], "y": [0, 1]}"#]);
    }

    #[test]
    fn members_without_partitions_have_an_empty_entry() {
        let members = vec![member("a", &["x"]), member("b", &["x"]), member("c", &["gone"])];
        for assignor in [Assignor::Range, Assignor::RoundRobin] {
            let assignments = assign(assignor, members.clone(), &counts(&[("x", 1)]));
            assert_eq!(shown(&assignments), [r#"a: {"x": [0]}"#, "b: {}", "c: {}"]);
        }
    }

    #[test]
    fn static_members_come_first() {
        let mut last = member("z", &["x"]);
        last.instance_id = Some("i".into());
        let assignments = assign(Assignor::Range, vec![member("a", &["x"]), last], &counts(&[("x", 3)]));
        assert_eq!(shown(&assignments), [r#"a: {"x": [2]}"#, r#"z: {"x": [0, 1]}"#]);
    }

    #[test]
    fn round_robin_continues_across_topics() {
        let members = vec![member("a", &["x", "y"]), member("b", &["x", "y"])];
        let assignments = assign(Assignor::RoundRobin, members, &counts(&[("x", 3), ("y", 3)]));
        assert_eq!(shown(&assignments), [r#"a: {"x": [0, 2], "y": [1]}"#, r#"b: {"x": [1], "y": [0, 2]}"#]);
    }
}
