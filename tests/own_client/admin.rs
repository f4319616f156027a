//! The admin client.

use std::collections::BTreeMap;
use std::time::Instant;

use libtest_mimic::Trial;
use millstream_client::{Admin, ClientConfig, NewTopic, TopicPartition};

use crate::{PATIENCE, both, unique};

pub(crate) fn trials() -> Vec<Trial> {
    both("topics are created, listed, described, configured and deleted", topics)
}

async fn topics(bootstrap: String) {
    let admin = Admin::new(ClientConfig::new(&bootstrap)).unwrap();
    let name = unique("admin");
    let configs = BTreeMap::from([("retention.ms".to_owned(), "86400000".to_owned())]);
    let topic = NewTopic { name: name.clone(), partitions: Some(3), configs, ..NewTopic::default() };
    let ids = admin.create_topics(std::slice::from_ref(&topic)).await.unwrap();
    let error = admin.create_topics(&[topic]).await.unwrap_err();
    assert!(error.to_string().contains("TOPIC_ALREADY_EXISTS") && !error.retriable(), "{error}");
    let bad = BTreeMap::from([("retention.ms".to_owned(), "soon".to_owned())]);
    let error = admin.create_topics(&[NewTopic { name: unique("bad"), configs: bad, ..NewTopic::default() }]).await;
    assert!(error.unwrap_err().to_string().contains("retention.ms"));

    let listed = admin.list_topics().await.unwrap();
    let listed = listed.iter().find(|topic| topic.name == name).expect("it is listed");
    assert_eq!((listed.partitions, listed.internal), (3, false));
    let described = admin.describe_topics(std::slice::from_ref(&name)).await.unwrap().remove(0);
    assert_eq!((described.id, described.partitions.len()), (ids[0], 3));
    let broker = admin.describe_cluster().await.unwrap().brokers.remove(0);
    assert_eq!(&*broker.address, bootstrap);
    assert!(described.partitions.iter().all(|one| one.leader == Some(broker.id) && one.in_sync == [broker.id]));

    let changes = BTreeMap::from([
        ("retention.ms".to_owned(), None),
        ("max.message.bytes".to_owned(), Some("2000000".to_owned())),
    ]);
    admin.alter_configs(&name, &changes).await.unwrap();
    // Kafka's brokers learn of a change a moment after the controller has accepted it.
    let expected = [("max.message.bytes".to_owned(), Some("2000000".to_owned()))];
    let end = Instant::now() + PATIENCE;
    loop {
        let configs = admin.describe_configs(&name).await.unwrap();
        let set = configs.into_iter().filter(|config| config.overridden);
        let set: Vec<_> = set.map(|config| (config.name, config.value)).collect();
        if set == expected {
            break;
        }
        assert!(Instant::now() < end, "{set:?}");
    }

    let ends = BTreeMap::from([(TopicPartition::new(name.as_str(), 2), -1)]);
    assert_eq!(admin.list_offsets(&ends).await.unwrap().into_values().next().unwrap().offset, 0);
    assert_eq!(admin.describe_group(&unique("nobody")).await.unwrap().state, "Dead");
    admin.delete_topics(std::slice::from_ref(&name)).await.unwrap();
    let end = Instant::now() + PATIENCE;
    let error = loop {
        match admin.describe_topics(std::slice::from_ref(&name)).await {
            Ok(found) => assert!(Instant::now() < end, "{found:?}"),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("UNKNOWN_TOPIC_OR_PARTITION"), "{error}");
    admin.close();
}
