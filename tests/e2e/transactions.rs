//! Transactions that hang: open in a partition, and unknown to every coordinator.

use std::time::Duration;

use millstream_record::Codec;
use millstream_tests::{Broker, Finished, Tool, millstream};
use millstream_wire::messages::ProduceRequest;
use millstream_wire::{ErrorCode, Str};
use serde_json::{Value, json};

use crate::support::{Raw, Topic, batch, builder};

/// The last version of Produce whose transactional batches are stored without the coordinator, if they are not
/// verified.
const VERSION: i16 = 9;

fn txn(broker: &Broker, args: &[&str]) -> Finished {
    Tool::new(millstream()).arg("txn").args(args).args(["-b", &broker.bootstrap()]).limit(Duration::from_secs(60)).run()
}

/// Leaves a transaction open after two committed records.
fn leave_open(broker: &Broker) -> Topic {
    let mut raw = Raw::connect(broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[]);
    topic.produce(&mut raw, batch(&["a", "b"]));
    let mut open = builder(Codec::None, &["open"]);
    open.producer(4711, 3, 0).transactional(true);
    let open = open.build().expect("a batch");
    let request = topic.produce_request(VERSION, -1, 0, open);
    let request = ProduceRequest { transactional_id: Some(Str::from("gone")), ..request };
    let produced = raw.call(VERSION, &request).responses.remove(0).partition_responses.remove(0);
    assert_eq!(produced.error_code, ErrorCode::NONE);
    topic
}

#[test]
fn a_hanging_transaction_is_found_and_aborted() {
    let broker = Broker::builder()
        .set("transaction.partition.verification.enable", "false")
        .set("listeners", "PLAINTEXT://127.0.0.1:0")
        .set("inter.broker.listener.name", "PLAINTEXT")
        .start();
    let topic = leave_open(&broker);
    let consume = || {
        let read = Tool::new(millstream()).args(["consume", "topic", "--from-beginning", "-b", &broker.bootstrap()]);
        read.args(["-X", "isolation.level=read_committed"]).succeed()
    };
    assert_eq!(consume(), "a\nb\n");
    let found = txn(&broker, &["list", "--hanging", "--idle", "0", "--json"]);
    let found: Vec<Value> = found.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    let shown = ["topic", "partition", "start_offset", "producer_id", "producer_epoch"].map(|key| &found[0][key]);
    assert_eq!(shown, [&json!("topic"), &json!(0), &json!(2), &json!(4711), &json!(3)]);
    // It has got a batch just now.
    assert_eq!(txn(&broker, &["list", "--hanging", "--json"]).stdout, "");

    let abort = ["abort", "--topic", "topic", "--partition", "0", "--start-offset", "2"];
    let aborted = txn(&broker, &abort);
    assert_eq!(aborted.stdout, "aborted the transaction of producer 4711 in topic-0\n", "{}", aborted.stderr);
    assert_eq!(txn(&broker, &["list", "--hanging", "--idle", "0", "--json"]).stdout, "");
    let again = txn(&broker, &abort);
    assert_eq!(again.stderr, "error: topic-0 has no open transaction from offset 2\n");
    // Readers go on behind it.
    topic.produce(&mut Raw::connect(&broker), batch(&["c"]));
    assert_eq!(consume(), "a\nb\nc\n");
}

#[test]
fn markers_of_clients_are_rejected_on_other_listeners() {
    let broker = Broker::builder().set("transaction.partition.verification.enable", "false").start();
    leave_open(&broker);
    let rejected = txn(&broker, &["abort", "--topic", "topic", "--partition", "0", "--start-offset", "2"]);
    assert_eq!(rejected.code, Some(1));
    for part in ["connect to that of inter.broker.listener.name", "CLUSTER_AUTHORIZATION_FAILED"] {
        assert!(rejected.stderr.contains(part), "{}", rejected.stderr);
    }
}
