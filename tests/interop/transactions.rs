//! Transactions of other projects' clients: one that is committed, one that is aborted, one with offsets of a group,
//! and a producer that is fenced by its successor. The scripts check each outcome. Each runs on our broker and, as a
//! proof of the script, on Apache Kafka.

use std::path::{Path, PathBuf};
use std::time::Duration;

use libtest_mimic::Trial;
use millstream_tests::{Broker, KAFKA_CLASSPATH, KafkaNode, Tool};

use crate::java::KAFKA_42_CLASSPATH;

const COMMAND: &str = "transactions";

/// A client: its name, the variable that names what it needs, and the command that runs it.
type Client = (&'static str, &'static str, fn(&str) -> Tool);

const CLIENTS: [Client; 10] = [
    ("java", KAFKA_CLASSPATH, java),
    ("java_4_2", KAFKA_42_CLASSPATH, java),
    ("confluent_kafka", "MILLSTREAM_PYTHON", |python| script(python, "with_confluent_kafka")),
    ("kafka_python", "MILLSTREAM_PYTHON", |python| script(python, "with_kafka_python")),
    ("aiokafka", "MILLSTREAM_PYTHON", |python| script(python, "with_aiokafka")),
    ("kafkajs", "MILLSTREAM_KAFKAJS", |packages| kafkajs(packages).arg(COMMAND)),
    ("platformatic", "MILLSTREAM_PLATFORMATIC", platformatic),
    ("franz_go", "MILLSTREAM_GO_CLIENTS", |folder| Tool::new(Path::new(folder).join("franz"))),
    ("rdkafka", "MILLSTREAM_RDKAFKA", |program| Tool::new(program)),
    ("sarama", "MILLSTREAM_GO_CLIENTS", |folder| Tool::new(Path::new(folder).join("sarama"))),
];

pub(crate) fn trials() -> Vec<Trial> {
    let ours = CLIENTS.iter().map(|&(name, variable, client)| {
        crate::trial(&format!("transactions::{name}"), variable, move |value| run(client(value), &broker().bootstrap()))
    });
    let interleaved = crate::trial("transactions::kafkajs::interleaved", "MILLSTREAM_KAFKAJS", |packages| {
        let output = kafkajs(packages).args(["interleaved", &broker().bootstrap()]).succeed();
        assert!(output.ends_with("interleaved: ok\n"), "{output}");
    });
    let theirs = crate::trial("transactions::beside_kafka", KAFKA_CLASSPATH, |_| {
        let kafka = KafkaNode::start();
        for (_, variable, client) in CLIENTS {
            // Both versions of the Java client use the same topic.
            if let Ok(value) = std::env::var(variable)
                && variable != KAFKA_42_CLASSPATH
            {
                run(client(&value), &kafka.bootstrap());
            }
        }
    });
    ours.chain([interleaved, theirs]).collect()
}

fn broker() -> Broker {
    Broker::builder().set("group.initial.rebalance.delay.ms", "0").start()
}

fn run(client: Tool, bootstrap: &str) {
    let output = client.arg(bootstrap).limit(Duration::from_secs(240)).succeed();
    assert!(output.ends_with("transactions: ok\n"), "{output}");
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop").join(name)
}

fn java(classpath: &str) -> Tool {
    // Java compiles the file itself.
    let options = ["-Xmx256m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"];
    Tool::new("java").args(options).args(["-cp", classpath]).arg(file("java/Transactions.java"))
}

fn script(python: &str, name: &str) -> Tool {
    let script = file("python").join(name).with_extension("py");
    Tool::new(python).env("PYTHONDONTWRITEBYTECODE", "1").arg(script).arg(COMMAND)
}

fn kafkajs(packages: &str) -> Tool {
    Tool::new("node").env("NODE_PATH", packages).arg(file("node/with_kafkajs.js"))
}

fn platformatic(packages: &str) -> Tool {
    // The client needs a newer Node than most systems have; its packages include one.
    let node = Path::new(packages).join(".bin/node");
    Tool::new(node).env("NODE_PATH", packages).arg(file("node/with_platformatic.js")).arg(COMMAND)
}
