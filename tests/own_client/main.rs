//! Tests our own client and its commands, against our broker and against Apache Kafka. Without Java and Kafka's
//! classpath the latter are reported as ignored.

mod admin;
mod command_line;
mod faults;
mod groups;
#[path = "../fixtures/guests/mod.rs"]
#[allow(dead_code, reason = "shared with the tests of the sandbox, which use all of it")]
mod guests;
mod plugins;
mod records;
mod reload;
mod stages;
#[path = "../e2e/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the tests in bytes, which use all of it")]
mod support;
mod transactions;
mod txn;

use std::future::Future;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use millstream_tests::{Broker, KafkaNode};

/// Long enough for a slow machine; reached only by a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A broker that a test may kill.
pub(crate) enum Server {
    Millstream(Box<Broker>),
    Kafka(KafkaNode),
}

impl Server {
    pub(crate) fn bootstrap(&self) -> String {
        match self {
            Server::Millstream(broker) => broker.bootstrap(),
            Server::Kafka(node) => node.bootstrap(),
        }
    }

    /// Kills the broker with SIGKILL and starts it on the same address and data.
    pub(crate) fn bounce(&mut self) {
        match self {
            Server::Millstream(broker) => {
                broker.kill();
                broker.restart();
            }
            Server::Kafka(node) => {
                node.kill();
                node.restart();
            }
        }
    }
}

/// The one Apache Kafka node for the tests that do not kill it.
static KAFKA: OnceLock<Mutex<Option<KafkaNode>>> = OnceLock::new();

fn shared_kafka() -> String {
    let node = KAFKA.get_or_init(|| Mutex::new(Some(KafkaNode::start())));
    let node = node.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    node.as_ref().expect("it is stopped at the end only").bootstrap()
}

/// Returns a test of the client against each of the two brokers. It gets `HOST:PORT`.
pub(crate) fn both<F>(name: &str, test: fn(String) -> F) -> Vec<Trial>
where
    F: Future<Output = ()> + Send + 'static,
{
    let ours = Trial::test(format!("{name} (millstream)"), move || {
        let broker = Broker::builder()
            .set("group.initial.rebalance.delay.ms", "100")
            // Tests of plug-ins write what the broker rejects.
            .allow("a write to __millstream_plugins")
            .start();
        run(test(broker.bootstrap()))
    });
    let theirs = Trial::test(format!("{name} (Apache Kafka)"), move || run(test(shared_kafka())));
    vec![ours, theirs.with_ignored_flag(!KafkaNode::available())]
}

/// Works like [`both`], with a separate broker that the test may kill.
pub(crate) fn both_mortal<F>(name: &str, test: fn(Arc<Mutex<Server>>) -> F) -> Vec<Trial>
where
    F: Future<Output = ()> + Send + 'static,
{
    let run_with = move |server| run(test(Arc::new(Mutex::new(server))));
    let ours =
        Trial::test(format!("{name} (millstream)"), move || run_with(Server::Millstream(Box::new(Broker::start()))));
    let theirs = Trial::test(format!("{name} (Apache Kafka)"), move || run_with(Server::Kafka(KafkaNode::start())));
    vec![ours, theirs.with_ignored_flag(!KafkaNode::available())]
}

fn run(test: impl Future<Output = ()>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(5 * PATIENCE, test).await.map_err(|_| "the test hangs".into()) })
}

/// Returns a topic name that no other test uses.
pub(crate) fn unique(name: &str) -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{name}-{:08x}", RandomState::new().hash_one(name) as u32)
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = [
        records::trials(),
        transactions::trials(),
        groups::trials(),
        admin::trials(),
        faults::trials(),
        command_line::trials(),
        txn::trials(),
        stages::trials(),
        reload::trials(),
        plugins::trials(),
    ];
    let conclusion = libtest_mimic::run(&arguments, trials.into_iter().flatten().collect());
    // Rust does not drop statics, so the node has to be stopped here.
    if let Some(node) = KAFKA.get() {
        node.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    }
    conclusion.exit_code()
}
