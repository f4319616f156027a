//! Kafka's own tools: kafka-configs makes a topic a view, groups read it, offsets are looked up by time, and invalid
//! changes are rejected.

use libtest_mimic::Trial;
use millstream_tests::{Broker, Finished, KAFKA_CLASSPATH};

use super::{BEFORE, LIMIT, MATCH, MAX_WAIT, MIN_BYTES, gap};
use crate::java::console::{CONSUMER, GROUPS, PRODUCER};
use crate::java::{CONFIG_COMMAND, TOPIC_COMMAND, Tools};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        crate::trial("views::java::view_gap", KAFKA_CLASSPATH, |classpath| {
            gap(|bootstrap| by_console_consumer(&Tools::new(classpath), bootstrap));
        }),
        crate::trial("views::java::made_by_kafka_configs", KAFKA_CLASSPATH, |classpath| {
            made_by_kafka_configs(&Tools::new(classpath));
        }),
    ]
}

/// Reads with ConsoleConsumer until nothing has arrived for a while, so that it also waits at the end.
fn by_console_consumer(tools: &Tools, bootstrap: &str) {
    let read = tools
        .client_of(CONSUMER, bootstrap)
        .args(["--topic", "view", "--from-beginning", "--timeout-ms", "10000"])
        .args(["--formatter-property", "print.offset=true"])
        .args(["--command-property", &format!("fetch.min.bytes={MIN_BYTES}")])
        .args(["--command-property", &format!("fetch.max.wait.ms={}", MAX_WAIT.as_millis())])
        .limit(LIMIT)
        .run();
    assert_eq!(read.stdout, format!("Offset:{BEFORE}\t{MATCH}\n"), "{}", read.stderr);
}

fn said(finished: &Finished) -> String {
    format!("{}{}", finished.stdout, finished.stderr)
}

fn made_by_kafka_configs(tools: &Tools) {
    let broker = Broker::builder().set("group.initial.rebalance.delay.ms", "0").start();
    for topic in ["orders", "big-orders", "other"] {
        tools.create_topic(&broker, topic, 2);
    }
    let configs = |topic: &str, change: [&str; 2]| {
        tools
            .client(CONFIG_COMMAND, &broker)
            .args(["--alter", "--entity-type", "topics", "--entity-name", topic])
            .args(change)
            .run()
    };
    let filter = r#"view.of=orders,stage.filter=[json-compare{"path":"/amount","op":">=","value":100}]"#;
    let made = configs("big-orders", ["--add-config", filter]);
    assert_eq!(made.code, Some(0), "{}", said(&made));
    let described = tools.client(CONFIG_COMMAND, &broker).args(["--describe", "--topic", "big-orders"]).succeed();
    assert!(described.contains("view.of=orders") && described.contains("stage.filter=json-compare"), "{described}");
    let described = tools.client(TOPIC_COMMAND, &broker).args(["--describe", "--topic", "big-orders"]).succeed();
    assert!(described.contains("PartitionCount: 2") && described.contains("view.of=orders"), "{described}");

    // Produced to the source and read from the view by a group, whose offsets reach the ends of the source.
    let produce = |topic: &str, values: &str| {
        tools
            .client(PRODUCER, &broker)
            .args(["--topic", topic, "--reader-property", "parse.key=true"])
            .input(values.to_owned())
            .run()
    };
    let lines: Vec<String> = (0..200).map(|n| format!("key-{n}\t{{\"amount\":{n}}}")).collect();
    let produced = produce("orders", &lines.join("\n"));
    assert_eq!(produced.code, Some(0), "{}", said(&produced));
    let read = |until: [&str; 2]| {
        let read = tools
            .client(CONSUMER, &broker)
            .args(["--topic", "big-orders", "--group", "readers", "--from-beginning"])
            .args(until)
            .run();
        let mut amounts: Vec<String> = read.stdout.lines().map(str::to_owned).collect();
        amounts.sort();
        amounts
    };
    let mut wanted: Vec<String> = (100..200).map(|n| format!("{{\"amount\":{n}}}")).collect();
    wanted.sort();
    assert_eq!(read(["--timeout-ms", "8000"]), wanted);
    let groups = |args: &[&str]| tools.client(GROUPS, &broker).args(["--group", "readers"]).args(args).succeed();
    let described = groups(&["--describe"]);
    let rows: Vec<Vec<&str>> = described
        .lines()
        .filter(|line| line.starts_with("readers"))
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows.len(), 2, "{described}");
    for row in rows {
        assert_eq!((row[1], row[3], row[5]), ("big-orders", row[4], "0"), "{described}");
    }

    // A lookup by time resets the group to before the first record, and it reads everything once more.
    groups(&["--topic", "big-orders", "--reset-offsets", "--to-datetime", "2020-01-01T00:00:00.000", "--execute"]);
    assert_eq!(read(["--max-messages", "100"]), wanted);

    // Rejected changes, with the messages that the tools show.
    let refused = produce("big-orders", "key\t{}");
    assert!(said(&refused).contains("InvalidTopicException"), "{}", said(&refused));
    assert!(said(&refused).contains("big-orders is a view of orders and takes no records"), "{}", said(&refused));
    let refused = tools.client(TOPIC_COMMAND, &broker).args(["--delete", "--topic", "orders"]).run();
    assert!(said(&refused).contains("orders is the source of the view big-orders"), "{}", said(&refused));
    for (topic, change, words) in [
        ("big-orders", ["--delete-config", "view.of"], "it is a view of orders"),
        ("big-orders", ["--add-config", "view.of=other"], "it is a view of orders"),
        ("big-orders", ["--add-config", "retention.ms=1000"], "retention.ms has no meaning for a view"),
        ("orders", ["--add-config", "view.of=big-orders"], "a view cannot show itself"),
        ("other", ["--add-config", "view.of=none"], "there is no such topic"),
        ("other", ["--add-config", "view.of=orders,stage.filter=none"], "stage.filter"),
        ("other", ["--add-config", r#"stage.filter=[contains{"text":"x"}]"#], "set view.of as well"),
    ] {
        let refused = configs(topic, change);
        assert_ne!(refused.code, Some(0), "{topic} {change:?}");
        assert!(said(&refused).contains(words), "{topic} {change:?}: {}", said(&refused));
    }
    let grown =
        tools.client(TOPIC_COMMAND, &broker).args(["--alter", "--topic", "big-orders", "--partitions", "3"]).run();
    assert!(said(&grown).contains("it gets its partitions from orders"), "{}", said(&grown));
}
