//! The stages of a topic, used through Kafka's own tools and producer.

use std::path::Path;

use millstream_tests::{Broker, Finished};

use super::{CONFIG_COMMAND, Tools};

const CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";

/// Values that contain commas are in brackets.
const ADMIT: &str = r#"stage.admit=[json-compare{"path":"/n","op":">=","value":0}]"#;

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
