//! Transactions of Kafka's own tools: ProducerPerformance, kafka-transactions, and TransactionalMessageCopier with
//! random aborts.

use millstream_tests::{Broker, Tool, millstream};

use super::Tools;
use super::performance::PRODUCER;
use crate::plugins;

const TRANSACTIONS_COMMAND: &str = "org.apache.kafka.tools.TransactionsCommand";
const COPIER: &str = "org.apache.kafka.tools.TransactionalMessageCopier";

/// The records that a copier copies, and those of one of its transactions.
const RECORDS: usize = 2000;
const TRANSACTION: usize = 50;

/// Returns the lines of all committed records.
fn committed(broker: &Broker, topic: &str) -> Vec<String> {
    let options = ["--from-beginning", "-X", "isolation.level=read_committed"];
    let output = plugins::output(&broker.bootstrap(), &[&["consume", topic][..], &options].concat());
    output.lines().map(str::to_owned).collect()
}

pub(super) fn performance_and_tools(tools: &Tools) {
    let broker = Broker::start();
    let report = tools
        .client(PRODUCER, &broker)
        .args(["--topic", "load", "--num-records", "20000", "--record-size", "100", "--throughput", "20000"])
        .args(["--transactional-id", "performance", "--transaction-duration-ms", "50"])
        .succeed();
    assert!(report.contains("20000 records sent"), "{report}");
    assert_eq!(committed(&broker, "load").len(), 20_000);

    let command = |arguments: &[&str]| tools.client(TRANSACTIONS_COMMAND, &broker).args(arguments).succeed();
    let listed = command(&["list"]);
    let row = listed.lines().find(|line| line.starts_with("performance")).expect("the transactional id is listed");
    assert!(row.split_whitespace().any(|cell| cell == "CompleteCommit"), "{listed}");
    let described = command(&["describe", "--transactional-id", "performance"]);
    assert!(described.contains("CompleteCommit"), "{described}");
    let producers = command(&["describe-producers", "--topic", "load", "--partition", "0"]);
    let row = producers.lines().nth(1).expect("the producer is known").split_whitespace();
    assert_eq!(row.last(), Some("None"), "no transaction is open: {producers}");
    // The columns have one line of names.
    let hanging = command(&["find-hanging", "--topic", "load", "--partition", "0"]);
    assert!(hanging.lines().count() <= 1, "{hanging}");
}

/// Copies records with transactions of which every third is aborted.
pub(super) fn copiers(tools: &Tools) {
    let broker = Broker::builder().set("group.initial.rebalance.delay.ms", "0").start();
    for topic in ["source", "sink"] {
        tools.create_topic(&broker, topic, 1);
    }
    let lines: String = (0..RECORDS).map(|number| format!("{number}\n")).collect();
    let produce = Tool::new(millstream()).args(["produce", "source", "-b", &broker.bootstrap()]);
    produce.input(lines).succeed();
    let report = tools
        .tool(COPIER)
        .args(["--broker-list", &broker.bootstrap(), "--consumer-group", "copiers", "--transactional-id", "copier"])
        .args(["--input-topic", "source", "--input-partition", "0", "--output-topic", "sink"])
        .args(["--max-messages", &RECORDS.to_string(), "--transaction-size", &TRANSACTION.to_string()])
        .arg("--enable-random-aborts")
        .succeed();
    let copied = committed(&broker, "sink");
    let wanted: Vec<String> = (0..RECORDS).map(|number| number.to_string()).collect();
    assert_eq!(copied, wanted, "{report}");
}
