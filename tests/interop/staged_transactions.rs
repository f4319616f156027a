//! Transactions with topics that have stages, of other projects' clients. The program of each client does the same
//! work: it commits and aborts dead letters, sends a batch that is recoded and one that is rejected, and reads a view
//! under both isolation levels.

use std::path::Path;
use std::time::Duration;

use libtest_mimic::Trial;
use millstream_tests::{Cluster, KAFKA_CLASSPATH, Tool, millstream};

use crate::java::{DUMP_LOG_SEGMENTS, KAFKA_42_CLASSPATH, Tools};

/// A cluster of one node. A broker that is alone has no level to lower.
const REPLICAS: [(&str, &str); 4] = [
    ("default.replication.factor", "1"),
    ("transaction.state.log.replication.factor", "1"),
    ("offsets.topic.replication.factor", "1"),
    ("group.initial.rebalance.delay.ms", "0"),
];

const ADMIT: &str = r#"stage.admit=json-compare{"path":"/n","op":">=","value":0}"#;

/// The dead letters of all transactions, in the log.
const LETTERS: usize = 5;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        crate::trial("staged_transactions::java", KAFKA_CLASSPATH, |classpath| java(&Tools::new(classpath))),
        crate::trial("staged_transactions::java_4_2", KAFKA_42_CLASSPATH, |classpath| java(&Tools::v4_2(classpath))),
        crate::trial("staged_transactions::confluent_kafka", "MILLSTREAM_PYTHON", |python| {
            drop(run(crate::python::script(python, "with_confluent_kafka", "staged-transactions")));
        }),
    ]
}

/// Runs the program of the Java client by both protocols. Kafka's own reader accepts the files.
fn java(tools: &Tools) {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/java/StagedTransactions.java");
    let program = program.to_str().expect("the path is text");
    for level in ["2", "0"] {
        let mut cluster = run(tools.tool(program).arg(level));
        cluster.stop_all();
        let dump = |partition: &str| {
            let file = cluster.folder(1).join(partition).join("00000000000000000000.log");
            let dumped = tools.tool(DUMP_LOG_SEGMENTS).arg("--deep-iteration").arg("--files").arg(&file).succeed();
            for word in ["isvalid: false", "Mismatches", "Found", "corrupt", "Exception"] {
                assert!(!dumped.contains(word), "{dumped}");
            }
            let batches = dumped.lines().filter(|line| line.contains("isTransactional: true isControl: false"));
            batches.map(str::to_owned).collect::<Vec<_>>()
        };
        let letters = dump("dead-0");
        let own = letters.iter().filter(|line| line.contains("baseSequence: -1 lastSequence: -1"));
        assert_eq!(own.count(), LETTERS, "{letters:?}");
        let recoded = dump("strict-0");
        assert!(recoded.iter().all(|line| line.contains("compresscodec: zstd")), "{recoded:?}");
        assert_eq!(recoded.len(), 2, "{recoded:?}");
    }
}

/// Runs the program of a client, with the address as its last argument. Returns the cluster.
fn run(client: Tool) -> Cluster {
    let cluster = Cluster::start(1, &REPLICAS);
    let bootstrap = cluster.bootstrap();
    let create = |name: &str, configs: &[&str]| {
        let create = Tool::new(millstream()).args(["topic", "create", name, "-b", &bootstrap]);
        create.args(configs.iter().flat_map(|config| ["--config", config])).succeed();
    };
    create("dead", &[]);
    create("orders", &[ADMIT, "stage.admit.failure.policy=dead-letter", "stage.dead.letter.topic=dead"]);
    create("strict", &[ADMIT, "stage.compressor=zstd"]);
    let view = ["view", "create", "ones", "--of", "orders", "--filter", r#"contains{"text":"1"}"#];
    Tool::new(millstream()).args(view).args(["-b", &bootstrap]).succeed();
    let output = client.arg(&bootstrap).limit(Duration::from_secs(240)).succeed();
    assert!(output.ends_with("staged-transactions: ok\n"), "{output}");
    cluster
}
