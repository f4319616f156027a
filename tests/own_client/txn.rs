//! The command `txn`, as a shell runs it.

use libtest_mimic::Trial;
use millstream_client::{Producer, ProducerConfig, ProducerRecord, Remedy};
use serde_json::{Value, json};

use crate::command_line::{output, run};
use crate::records::create;
use crate::{PATIENCE, both, unique};

pub(crate) fn trials() -> Vec<Trial> {
    both("transactions are listed, described and aborted from the command line", commands)
}

/// Returns the JSON objects of a command.
fn lines(bootstrap: &str, args: &[&str]) -> Vec<Value> {
    output(bootstrap, args, "").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn commands(bootstrap: String) {
    let (topic, id) = (create(&bootstrap, "txn", 2).await, unique("txn"));
    let mut config = ProducerConfig::new(&bootstrap);
    config.set("transactional.id", &id).unwrap();
    config.set("transaction.timeout.ms", "50000").unwrap();
    let producer = Producer::builder(config).build().unwrap();
    producer.init_transactions().await.unwrap();
    producer.begin_transaction().await.unwrap();
    producer.send_and_forget(ProducerRecord::new(&topic).partition(1).value(b"open")).await.unwrap();
    producer.flush().await;

    let listed = lines(&bootstrap, &["txn", "list", "--state", "Ongoing", "--json"]);
    let row = listed.iter().find(|one| one["transactional_id"] == *id).expect("the transaction is listed");
    assert_eq!(row["state"], "Ongoing");
    let pattern = format!("{id}.*");
    let by_pattern = lines(&bootstrap, &["txn", "list", "--pattern", &pattern, "--json"]);
    assert_eq!(by_pattern, std::slice::from_ref(row));
    let table = output(&bootstrap, &["txn", "list"], "");
    assert!(table.lines().any(|line| line.starts_with(&id) && line.ends_with("Ongoing")), "{table}");
    let none = output(&bootstrap, &["txn", "list", "--pattern", &pattern, "--longer-than", "3600000"], "");
    assert_eq!(none, "TRANSACTIONAL-ID  COORDINATOR  PRODUCER-ID  STATE\n");

    let described = lines(&bootstrap, &["txn", "describe", &id, "--json"]).remove(0);
    assert_eq!(described["partitions"], json!([{ "topic": topic, "partition": 1 }]));
    assert_eq!((&described["timeout_ms"], &described["producer_id"]), (&json!(50_000), &row["producer_id"]));
    let text = output(&bootstrap, &["txn", "describe", &id], "");
    assert!(text.starts_with(&format!("TransactionalId: {id}\tState: Ongoing\t")), "{text}");
    assert_eq!(text.lines().last().unwrap().split_whitespace().collect::<Vec<_>>(), [&*topic, "1"], "{text}");
    // The coordinator knows it.
    assert!(lines(&bootstrap, &["txn", "list", "--hanging", "--topic", &topic, "--idle", "0", "--json"]).is_empty());
    let known = run(&bootstrap, &["txn", "abort", "--topic", &topic, "--partition", "1", "--start-offset", "0"], "");
    assert!(known.code == Some(1) && known.stderr.contains("abort it by its transactional id"), "{}", known.stderr);

    let aborted = output(&bootstrap, &["txn", "abort", &id], "");
    let expected = format!("aborted the transaction of {id}; its producer {} is fenced\n", row["producer_id"]);
    assert_eq!(aborted, expected);
    assert_eq!(producer.commit_transaction().await.unwrap_err().remedy(), Remedy::Stop);
    producer.close(PATIENCE).await.unwrap();
    let again = run(&bootstrap, &["txn", "abort", &id], "");
    assert!(again.code == Some(1) && again.stderr.contains("has no open transaction"), "{}", again.stderr);
    let read = ["consume", &topic, "--from-beginning", "-X", "isolation.level=read_committed"];
    assert_eq!(output(&bootstrap, &read, ""), "");

    let unknown = run(&bootstrap, &["txn", "describe", "no-such-id"], "");
    let expected = "error: describe transactional id no-such-id: TRANSACTIONAL_ID_NOT_FOUND\n";
    assert_eq!((unknown.code, unknown.stderr.as_str()), (Some(1), expected));
    let unknown = run(&bootstrap, &["txn", "list", "--state", "Opened"], "");
    assert!(unknown.code == Some(1) && unknown.stderr.contains("knows no state \"Opened\""), "{}", unknown.stderr);
    let arguments = ["txn", "abort", "--topic", &topic, "--partition", "1", "--start-offset", "7"];
    let absent = run(&bootstrap, &arguments, "");
    assert_eq!(absent.stderr, format!("error: {topic}-1 has no open transaction from offset 7\n"));
}
