//! Default plug-ins beside confluent-kafka: partitioners of librdkafka, and Confluent's serializers both ways.

use libtest_mimic::Trial;
use millstream_tests::{Broker, Tool, millstream};

use crate::python::script;

const AVRO: &str = r#"{"type":"record","name":"Order","namespace":"shop","fields":[
    {"name":"id","type":"long"},
    {"name":"customer","type":["null","string"],"default":null},
    {"name":"total","type":"double"},
    {"name":"lines","type":{"type":"array","items":{"type":"record","name":"Line","fields":[
        {"name":"item","type":"string"},{"name":"count","type":"int"}]}}},
    {"name":"labels","type":{"type":"map","values":"string"}},
    {"name":"state","type":{"type":"enum","name":"State","symbols":["NEW","PAID"]}},
    {"name":"mark","type":["int","string",{"type":"fixed","name":"Two","size":2},"shop.Line"]}]}"#;

const PROTOBUF: &str = "syntax = 'proto3'; package shop; message Unused { bool x = 1; } message Order { \
    message Line { string item = 1; sint32 count = 2; } \
    int64 order_id = 1; string customer = 2; double total = 3; repeated Line lines = 4; bytes raw = 5; }";

pub(crate) fn trials() -> Vec<Trial> {
    let trial = |name, test: fn(&str)| {
        crate::trial(&format!("python::with_confluent_stages::{name}"), "MILLSTREAM_PYTHON", test)
    };
    vec![
        trial("partitioners", partitioners),
        trial("avro", |python| {
            let stage = format!("avro{{\"id\":1,\"schema\":{AVRO}}}");
            both_ways(python, "avro", &stage, |lines| {
                let first =
                    r#"{"id":1,"customer":null,"total":0.0,"lines":[],"labels":{"a":""},"state":"NEW","mark":0}"#;
                assert_eq!((lines.len(), lines[0].as_str()), (200, first));
            });
        }),
        trial("protobuf", |python| {
            let stage = format!("protobuf{{\"id\":1,\"message\":\"shop.Order\",\"schema\":\"{PROTOBUF}\"}}");
            both_ways(python, "protobuf", &stage, |lines| {
                // Other messages of the schema come before and after the orders.
                assert_eq!(lines.len(), 202);
                assert_eq!(lines.remove(0), r#"{"x":true}"#);
                assert_eq!(lines.pop().unwrap(), r#"{"item":"alone","count":-1}"#);
                assert_eq!(lines[0], r#"{"orderId":"1","raw":"AP8="}"#);
            });
        }),
    ]
}

fn command(broker: &Broker, args: &[&str]) -> Tool {
    Tool::new(millstream()).args(args).args(["-b", &broker.bootstrap()])
}

fn run(python: &str, name: &str, broker: &Broker) {
    let output = script(python, "with_confluent_stages", name).arg(broker.bootstrap()).succeed();
    assert!(output.ends_with(&format!("{name}: ok\n")), "{output}");
}

/// Sends 10,000 keys and an empty one with each partitioner. The script compares their partitions with librdkafka's.
fn partitioners(python: &str) {
    let broker = Broker::start();
    let mut lines: Vec<String> = (0..10_000).map(|key| format!("{}é-{key}:v", "k".repeat(key % 20))).collect();
    lines.push(":v".to_owned());
    for name in ["consistent_random", "murmur2_random", "fnv1a_random"] {
        let topic = format!("{name}-ours");
        command(&broker, &["topic", "create", &topic, "--partitions", "17"]).succeed();
        let produce = command(&broker, &["produce", &topic, "-K", ":", "--partitioner", name]);
        produce.input(lines.join("\n")).succeed();
    }
    run(python, "partitioners", &broker);
}

/// Reads what Confluent's serializer wrote, and writes it again, for Confluent's deserializer. `check` gets the JSON of
/// all records, and leaves what is to be written.
fn both_ways(python: &str, name: &str, stage: &str, check: impl FnOnce(&mut Vec<String>)) {
    let broker = Broker::start();
    run(python, &format!("{name}-theirs"), &broker);
    let read = command(&broker, &["consume", name, "--from-beginning", "--deserializer", stage]).succeed();
    let mut lines: Vec<String> = read.lines().map(str::to_owned).collect();
    check(&mut lines);
    let ours = format!("{name}-ours");
    command(&broker, &["produce", &ours, "--serializer", stage]).input(lines.join("\n")).succeed();
    run(python, &format!("{name}-ours"), &broker);
}
