//! The stages of a topic, used through Kafka's own tools and producer.

use std::path::Path;

use millstream_tests::{Broker, Cluster, Finished, Tool, millstream};

use super::{CONFIG_COMMAND, DUMP_LOG_SEGMENTS, Tools};

const CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";

/// Values that contain commas are in brackets.
const ADMIT: &str = r#"stage.admit=[json-compare{"path":"/n","op":">=","value":0}]"#;

/// A cluster of one node.
const REPLICAS: [(&str, &str); 3] = [
    ("default.replication.factor", "1"),
    ("transaction.state.log.replication.factor", "1"),
    ("offsets.topic.replication.factor", "1"),
];

const MIXED: [&str; 4] = [r#"{"n":1}"#, "no json", r#"{"n":2}"#, r#"{"n":-1}"#];

fn alter(tools: &Tools, broker: &Broker, change: &str) -> Finished {
    tools
        .client(CONFIG_COMMAND, broker)
        .args(["--alter", "--entity-type", "topics", "--entity-name", "orders", "--add-config", change])
        .run()
}

/// Sends values as one batch with Kafka's producer, and returns the result of each.
fn send(tools: &Tools, broker: &Broker, codec: &str, values: &[&str]) -> Vec<String> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/java/Refusals.java");
    let program = program.to_str().expect("the path is text");
    let told = tools.tool(program).args([&broker.bootstrap(), "orders", codec]).args(values).succeed();
    told.lines().map(str::to_owned).collect()
}

/// Sets a stage with kafka-configs, shows it with `--describe`, and checks that errors name the config.
pub(super) fn options(tools: &Tools) {
    let broker = Broker::start();
    tools.create_topic(&broker, "orders", 1);
    let set = alter(tools, &broker, &format!("{ADMIT},stage.admit.failure.policy=skip"));
    assert_eq!(set.code, Some(0), "{set:?}");
    let described = tools
        .client(CONFIG_COMMAND, &broker)
        .args(["--describe", "--entity-type", "topics", "--entity-name", "orders"])
        .succeed();
    assert!(described.contains(r#"stage.admit=json-compare{"path":"/n","op":">=","value":0}"#), "{described}");
    assert!(described.contains("stage.admit.failure.policy=skip"), "{described}");
    for (change, words) in [
        ("stage.admit=no-such-filter", ["stage.admit", "no-such-filter"]),
        ("stage.admit=lz4", ["stage.admit", "compressor"]),
        (r#"stage.admit=[contains{"text":""}]"#, ["stage.admit", "/text"]),
        ("stage.compressor=contains", ["stage.compressor", "filter"]),
    ] {
        let refused = alter(tools, &broker, change);
        assert_ne!(refused.code, Some(0), "{change}");
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert!(words.iter().all(|word| said.contains(word)), "{change}: {said}");
    }
}

/// Checks that every record rejected by a filter gets the reason, and the rest of its batch another error. A skipped
/// record gets an offset.
pub(super) fn refusals(tools: &Tools) {
    let broker = Broker::start();
    tools.create_topic(&broker, "orders", 1);
    assert_eq!(alter(tools, &broker, ADMIT).code, Some(0));
    for codec in ["none", "zstd"] {
        let told = send(tools, &broker, codec, &MIXED);
        assert!(told[1].starts_with("InvalidRecordException") && told[1].contains("not JSON"), "{told:?}");
        assert!(told[3].starts_with("InvalidRecordException") && told[3].contains("json-compare"), "{told:?}");
        for neighbour in [&told[0], &told[2]] {
            assert!(neighbour.contains("part of a batch"), "{told:?}");
        }
    }
    assert_eq!(send(tools, &broker, "none", &MIXED[..1]), ["0"]);
    assert_eq!(alter(tools, &broker, "stage.admit.failure.policy=skip").code, Some(0));
    assert_eq!(send(tools, &broker, "lz4", &MIXED), ["1", "2", "3", "4"]);
    assert_eq!(send(tools, &broker, "none", &["no json", "nor this"]), ["5", "6"]);
    assert_eq!(send(tools, &broker, "none", &MIXED[..1]), ["7"]);
    let read = tools
        .client(CONSUMER, &broker)
        .args(["--topic", "orders", "--from-beginning", "--max-messages", "4", "--timeout-ms", "60000"])
        .succeed();
    assert_eq!(read.lines().collect::<Vec<_>>(), [MIXED[0], MIXED[0], MIXED[2], MIXED[0]]);
}

/// Runs transactions with dead letters, rejected records and a view, by both protocols. Kafka's own reader accepts the
/// files.
pub(super) fn transactions(tools: &Tools) {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/java/StagedTransactions.java");
    let program = program.to_str().expect("the path is text");
    for level in ["2", "0"] {
        // A broker that is alone has no level to lower.
        let mut cluster = Cluster::start(1, &REPLICAS);
        let bootstrap = cluster.bootstrap();
        let create = |name: &str, configs: &[&str]| {
            let create = Tool::new(millstream()).args(["topic", "create", name, "-b", &bootstrap]);
            create.args(configs.iter().flat_map(|config| ["--config", config])).succeed();
        };
        let admit = r#"stage.admit=json-compare{"path":"/n","op":">=","value":0}"#;
        create("dead", &[]);
        create("orders", &[admit, "stage.admit.failure.policy=dead-letter", "stage.dead.letter.topic=dead"]);
        create("strict", &[admit]);
        let view = ["view", "create", "ones", "--of", "orders", "--filter", r#"contains{"text":"1"}"#];
        Tool::new(millstream()).args(view).args(["-b", &bootstrap]).succeed();
        let told = tools.tool(program).args([&bootstrap, level]).succeed();
        assert!(told.ends_with("staged transactions: ok\n"), "{told}");
        cluster.stop_all();
        let file = cluster.folder(1).join("dead-0/00000000000000000000.log");
        let dumped = tools.tool(DUMP_LOG_SEGMENTS).arg("--deep-iteration").arg("--files").arg(&file).succeed();
        for word in ["isvalid: false", "Mismatches", "Found", "corrupt", "Exception"] {
            assert!(!dumped.contains(word), "{dumped}");
        }
        let own = dumped.lines().filter(|line| line.contains("baseSequence: -1 lastSequence: -1"));
        let letters = own.filter(|line| line.contains("isTransactional: true isControl: false"));
        assert_eq!(letters.count(), 5, "{dumped}");
    }
}
