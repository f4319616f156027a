//! TopicCommand and ConfigCommand.

use millstream_tests::Broker;

use super::{CONFIG_COMMAND, TOPIC_COMMAND, Tools};

/// Creates, lists and describes topics, adds partitions, and deletes topics.
pub(super) fn topics(tools: &Tools) {
    let broker = Broker::start();
    tools
        .client(TOPIC_COMMAND, &broker)
        .args(["--create", "--topic", "orders", "--partitions", "3", "--config", "retention.ms=60000"])
        .succeed();
    let again = tools.client(TOPIC_COMMAND, &broker).args(["--create", "--topic", "orders"]).run();
    assert_ne!(again.code, Some(0), "a topic cannot be created twice");
    assert!(format!("{}{}", again.stdout, again.stderr).contains("already exists"), "{again:?}");
    assert_eq!(tools.client(TOPIC_COMMAND, &broker).arg("--list").succeed(), "orders\n");

    let described = tools.client(TOPIC_COMMAND, &broker).args(["--describe", "--topic", "orders"]).succeed();
    assert!(described.contains("PartitionCount: 3"), "{described}");
    assert!(described.contains("ReplicationFactor: 1"), "{described}");
    assert!(described.contains("retention.ms=60000"), "{described}");
    assert_eq!(described.matches("Partition: ").count(), 3, "{described}");

    tools.client(TOPIC_COMMAND, &broker).args(["--alter", "--topic", "orders", "--partitions", "5"]).succeed();
    let described = tools.client(TOPIC_COMMAND, &broker).args(["--describe", "--topic", "orders"]).succeed();
    assert!(described.contains("PartitionCount: 5"), "{described}");

    tools.client(TOPIC_COMMAND, &broker).args(["--delete", "--topic", "orders"]).succeed();
    assert_eq!(tools.client(TOPIC_COMMAND, &broker).arg("--list").succeed().trim(), "");
}

/// Sets, shows, rejects and deletes configs. A new limit applies to the next batch.
pub(super) fn configs(tools: &Tools) {
    let broker = Broker::start();
    tools.create_topic(&broker, "orders", 1);
    let orders = ["--entity-type", "topics", "--entity-name", "orders"];
    let alter =
        |change: &str| tools.client(CONFIG_COMMAND, &broker).arg("--alter").args(orders).args(["--add-config", change]);
    let describe = || tools.client(CONFIG_COMMAND, &broker).arg("--describe").args(orders).succeed();

    alter("max.message.bytes=1000,retention.ms=120000").succeed();
    let described = describe();
    let expected = "max.message.bytes=1000 sensitive=false \
                    synonyms={DYNAMIC_TOPIC_CONFIG:max.message.bytes=1000, DEFAULT_CONFIG:message.max.bytes=1048588}";
    assert!(described.contains(expected), "{described}");
    assert!(described.contains("retention.ms=120000"), "{described}");

    let refused = alter("max.message.bytes=many").run();
    assert_ne!(refused.code, Some(0));
    assert!(format!("{}{}", refused.stdout, refused.stderr).contains("max.message.bytes"), "{refused:?}");

    let produced = tools
        .client("org.apache.kafka.tools.ConsoleProducer", &broker)
        .args(["--topic", "orders"])
        .input("x".repeat(5000))
        .run();
    assert!(format!("{}{}", produced.stdout, produced.stderr).contains("RecordTooLargeException"), "{produced:?}");

    tools
        .client(CONFIG_COMMAND, &broker)
        .arg("--alter")
        .args(orders)
        .args(["--delete-config", "max.message.bytes"])
        .succeed();
    assert!(!describe().contains("max.message.bytes"), "back to the default");
}
