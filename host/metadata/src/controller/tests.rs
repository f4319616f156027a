//! Tests each decision alone: the records, and each reason to reject a request.

use uuid::Uuid;

use super::*;
use crate::TopicNameError;

const ID: Uuid = Uuid::from_u128(77);

/// Rules with the defaults of an empty configuration; a config that is named `bad` is rejected.
struct TestRules;

impl TopicRules for TestRules {
    type Error = ClusterError;

    fn default_partitions(&self) -> i32 {
        3
    }

    fn default_replication_factor(&self) -> i32 {
        1
    }

    fn inherited(&self, _: &MetadataImage, config: &str) -> Option<String> {
        (config == "cleanup.policy").then(|| "delete".to_owned())
    }

    fn is_list(&self, config: &str) -> bool {
        config == "cleanup.policy"
    }

    fn check(&self, _: &MetadataImage, draft: &TopicDraft<'_>) -> Result<(), ClusterError> {
        match draft.configs.contains_key("bad") {
            true => Err(ControllerError::NotAList("bad".to_owned()).into()),
            false => Ok(()),
        }
    }

    fn check_broker(&self, _: Option<i32>, _: &BrokerConfigs) -> Result<(), ClusterError> {
        Ok(())
    }

    fn check_partitions(&self, name: &str, count: i32) -> Result<(), ClusterError> {
        match name == "single" && count > 1 {
            true => Err(ControllerError::TooManyPartitions(count.unsigned_abs() as usize).into()),
            false => Ok(()),
        }
    }

    fn check_deletion(&self, _: &MetadataImage, topic: &TopicImage) -> Result<(), ClusterError> {
        match topic.name == "kept" {
            true => Err(ControllerError::UnknownTopic.into()),
            false => Ok(()),
        }
    }
}

fn configs(pairs: &[(&str, &str)]) -> TopicConfigs {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Returns an image of broker 5 with these topics. Each has two partitions; their ids count from 1.
fn image(topics: &[(&str, &[(&str, &str)])]) -> MetadataImage {
    let mut image = MetadataImage::new(5);
    for (index, (name, pairs)) in topics.iter().enumerate() {
        let topic = NewTopic {
            id: Uuid::from_u128(1 + index as u128),
            partitions: Some(2),
            configs: configs(pairs),
            ..NewTopic::new(*name)
        };
        let records = decide(&image, &Request::CreateTopic(topic), &TestRules).expect("a good topic");
        records.iter().for_each(|record| image.apply(record).expect("it fits"));
    }
    image
}

fn new_topic(name: &str) -> NewTopic {
    NewTopic { id: ID, ..NewTopic::new(name) }
}

fn create(image: &MetadataImage, topic: NewTopic) -> Result<Vec<MetadataRecord>, ClusterError> {
    decide(image, &Request::CreateTopic(topic), &TestRules)
}

fn error(decision: Result<Vec<MetadataRecord>, ClusterError>) -> ControllerError {
    match decision.expect_err("a bad request") {
        ClusterError::Assignment(error) => error,
        other => panic!("{other}"),
    }
}

fn partitions_of(records: &[MetadataRecord]) -> i32 {
    match records {
        [MetadataRecord::TopicCreated { partitions, .. }] => *partitions,
        other => panic!("not one topic: {other:?}"),
    }
}

#[test]
fn a_new_topic_takes_the_defaults() {
    let records = create(&image(&[]), NewTopic { configs: configs(&[("a", "1")]), ..new_topic("t") }).expect("good");
    let [MetadataRecord::TopicCreated { name, id, partitions, configs, .. }] = &records[..] else {
        panic!("{records:?}")
    };
    assert_eq!((name.as_str(), *id, *partitions, configs["a"].as_str()), ("t", ID, 3, "1"));
}

#[test]
fn a_view_has_as_many_partitions_as_its_source() {
    let image = image(&[("source", &[])]);
    let view = NewTopic { configs: configs(&[("view.of", "source")]), ..new_topic("view") };
    assert_eq!(partitions_of(&create(&image, view).expect("good")), 2);
}

#[test]
fn names_are_checked() {
    let image = image(&[("taken", &[]), ("a.b", &[])]);
    assert_eq!(error(create(&image, new_topic("a b"))), TopicNameError::BadCharacter("a b".to_owned()).into());
    assert_eq!(error(create(&image, new_topic("taken"))).to_string(), "Topic 'taken' already exists.");
    assert_eq!(error(create(&image, new_topic("a_b"))).to_string(), "Topic 'a_b' collides with existing topic: a.b");
    assert!(create(&image, new_topic("ab")).is_ok());
}

#[test]
fn counts_are_checked() {
    let image = image(&[]);
    let with = |partitions| create(&image, NewTopic { partitions: Some(partitions), ..new_topic("t") });
    for bad in [0, -2] {
        let text = format!("Number of partitions was set to an invalid non-positive value {bad}.");
        assert_eq!(error(with(bad)).to_string(), text);
    }
    let most = i32::try_from(PARTITIONS_PER_REQUEST_MAX).expect("a small number");
    assert_eq!(partitions_of(&with(most).expect("as many as allowed")), most);
    assert_eq!(error(with(most + 1)).to_string(), "Excessively large number of partitions per request: 10001.");
    let single = NewTopic { partitions: Some(2), ..new_topic("single") };
    assert_eq!(error(create(&image, single)), ControllerError::TooManyPartitions(2), "the rules are asked");
}

#[test]
fn replication_factors_are_checked() {
    let image = image(&[]);
    let with = |replication| create(&image, NewTopic { replication, ..new_topic("t") });
    for good in [Replication::Default, Replication::Exactly(1), Replication::UpTo(3)] {
        assert!(with(good).is_ok(), "{good:?}");
    }
    for bad in [0, -2] {
        assert_eq!(error(with(Replication::Exactly(bad))), ControllerError::NonPositiveReplicationFactor);
    }
    assert_eq!(
        error(with(Replication::Exactly(3))).to_string(),
        "Unable to replicate the partition 3 time(s): \
         The target replication factor of 3 cannot be reached because only 1 \
         broker(s) are registered or some brokers have all their log directories cordoned."
    );
}

#[test]
fn assignments_are_checked() {
    let image = image(&[]);
    let with = |brokers: &[(i32, &[i32])]| {
        let assignment = |&(partition, replicas): &(i32, &[i32])| Assignment { partition, replicas: replicas.to_vec() };
        NewTopic { assignments: brokers.iter().map(assignment).collect(), ..new_topic("t") }
    };
    let rejected = |topic| error(create(&image, topic)).to_string();
    assert_eq!(partitions_of(&create(&image, with(&[(1, &[5]), (0, &[5])])).expect("good")), 2);
    assert!(rejected(with(&[(0, &[5]), (2, &[5])])).contains("consecutive 0-based integer sequence"));
    assert!(rejected(with(&[(0, &[5]), (0, &[5])])).contains("multiple manual partition assignments for partition 0"));
    assert!(rejected(with(&[(0, &[])])).contains("includes an empty replica list"));
    assert!(rejected(with(&[(0, &[6])])).contains("includes broker 6, but no such broker is registered"));
    assert!(rejected(with(&[(0, &[5, 5])])).contains("includes the broker 5 more than once"));
    for counted in [
        NewTopic { partitions: Some(1), ..with(&[(0, &[5])]) },
        NewTopic { replication: Replication::Exactly(1), ..with(&[(0, &[5])]) },
    ] {
        assert_eq!(error(create(&image, counted)), ControllerError::AssignmentWithCounts);
    }
}

#[test]
fn configs_of_a_new_topic_are_checked() {
    let bad = NewTopic { configs: configs(&[("bad", "1")]), ..new_topic("t") };
    assert_eq!(error(create(&image(&[]), bad)), ControllerError::NotAList("bad".to_owned()));
}

#[test]
fn deletions_are_checked() {
    let image = image(&[("a", &[]), ("kept", &[])]);
    let delete = |id: u128| decide(&image, &Request::DeleteTopic { id: Uuid::from_u128(id) }, &TestRules);
    assert_eq!(delete(1), Ok(vec![MetadataRecord::TopicDeleted { id: Uuid::from_u128(1) }]));
    assert_eq!(error(delete(2)), ControllerError::UnknownTopic, "the rules are asked");
    assert_eq!(error(delete(9)).to_string(), "This server does not host this topic-partition.");
}

#[test]
fn a_topic_grows_together_with_its_views() {
    let image = image(&[("a", &[]), ("v", &[("view.of", "a")]), ("b", &[])]);
    let add = |name: &str, count, assignments: Option<&[&[i32]]>| {
        let assignments = assignments.map(|all| all.iter().map(|replicas| replicas.to_vec()).collect());
        decide(&image, &Request::AddPartitions { name: name.to_owned(), count, assignments }, &TestRules)
    };
    let grown = add("a", 4, None).expect("good");
    let ids = grown.iter().map(|record| match record {
        MetadataRecord::PartitionsAdded { id, partitions: 4, .. } => id.as_u128(),
        other => panic!("{other:?}"),
    });
    assert_eq!(ids.collect::<Vec<_>>(), [2, 1]);
    let rejected = |name, count| error(add(name, count, None)).to_string();
    assert_eq!(rejected("none", 4), "This server does not host this topic-partition.");
    assert_eq!(rejected("v", 4), "v is a view: it gets its partitions from a, add them there.");
    assert_eq!(rejected("a", 2), "Topic already has 2 partition(s).");
    assert_eq!(rejected("a", 1), "The topic a currently has 2 partition(s); 1 would not be an increase.");
    assert_eq!(rejected("a", 10_003), "Excessively large number of partitions per request: 10001.");
    assert_eq!(
        error(add("a", 4, Some(&[&[5]]))).to_string(),
        "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified."
    );
    assert_eq!(error(add("a", 3, Some(&[&[6]]))), ControllerError::AssignmentUnknownBroker(6));
    assert!(add("a", 3, Some(&[&[5]])).is_ok());
}

fn edit(name: &str, operation: ConfigOperation) -> ConfigEdit {
    ConfigEdit { name: name.to_owned(), operation }
}

#[test]
fn configs_are_replaced_or_edited() {
    let image = image(&[("a", &[("x", "1"), ("y", "2")])]);
    let alter = |change| decide(&image, &Request::AlterTopic { name: "a".to_owned(), change }, &TestRules);
    let changed = |name: &str, value: Option<&str>| MetadataRecord::TopicConfigChanged {
        id: Uuid::from_u128(1),
        name: name.to_owned(),
        value: value.map(str::to_owned),
    };
    let replaced = alter(ConfigChange::Replace(configs(&[("y", "3"), ("z", "4")])));
    assert_eq!(replaced, Ok(vec![changed("x", None), changed("y", Some("3")), changed("z", Some("4"))]));
    assert_eq!(alter(ConfigChange::Replace(configs(&[("x", "1"), ("y", "2")]))), Ok(vec![]), "nothing changes");
    let edits = |edits: &[ConfigEdit]| alter(ConfigChange::Edit(edits.to_vec()));
    let one = edits(&[edit("x", ConfigOperation::Delete), edit("z", ConfigOperation::Set("4".to_owned()))]);
    assert_eq!(one, Ok(vec![changed("x", None), changed("z", Some("4"))]));
    assert_eq!(
        error(edits(&[edit("bad", ConfigOperation::Set(String::new()))])),
        ControllerError::NotAList("bad".to_owned())
    );
}

#[test]
fn lists_are_edited_from_the_value_in_force() {
    let image = image(&[("a", &[]), ("b", &[("cleanup.policy", "compact, delete")])]);
    let value = |topic: &str, operation| {
        let change = ConfigChange::Edit(vec![edit("cleanup.policy", operation)]);
        let records = decide(&image, &Request::AlterTopic { name: topic.to_owned(), change }, &TestRules);
        match &records.expect("a list")[..] {
            [MetadataRecord::TopicConfigChanged { value: Some(value), .. }] => value.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(value("a", ConfigOperation::Append("compact,delete".to_owned())), "delete,compact");
    assert_eq!(value("b", ConfigOperation::Subtract("delete".to_owned())), "compact");
    let change = ConfigChange::Edit(vec![edit("retention.ms", ConfigOperation::Append("1".to_owned()))]);
    let rejected = decide(&image, &Request::AlterTopic { name: "a".to_owned(), change }, &TestRules);
    let text = "Config value append/subtract is not allowed for config key: retention.ms";
    assert_eq!(error(rejected).to_string(), text);
}

#[test]
fn a_decoder_is_noted_once() {
    let mut image = image(&[("a", &[])]);
    let add = |image: &MetadataImage, id| {
        decide(image, &Request::AddDecoder { id: Uuid::from_u128(id), digest: "ab".to_owned() }, &TestRules)
    };
    let records = add(&image, 1).expect("good");
    records.iter().for_each(|record| image.apply(record).expect("it fits"));
    assert_eq!((records.len(), add(&image, 1)), (1, Ok(vec![])));
    assert_eq!(error(add(&image, 9)), ControllerError::UnknownTopic);
}

#[test]
fn blocks_of_producer_ids_do_not_overlap() {
    let mut image = image(&[]);
    for block in 1..4 {
        let records = decide(&image, &Request::AllocateProducerIds, &TestRules).expect("always");
        assert_eq!(records, [MetadataRecord::ProducerIdsAllocated { next: block * PRODUCER_ID_BLOCK }]);
        image.apply(&records[0]).expect("it fits");
    }
}
