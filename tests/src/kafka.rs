//! One KRaft node of Apache Kafka, to compare our broker and our client with.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::command::{Tool, wait_until};

/// Java's classpath with Apache Kafka on it; `cargo xtask test` sets it.
pub const KAFKA_CLASSPATH: &str = "MILLSTREAM_KAFKA_CLASSPATH";

/// Java starts slowly on a shared machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running node; dropping it kills the process and removes its folder.
pub struct KafkaNode {
    classpath: String,
    port: u16,
    folder: TempDir,
    child: Option<Child>,
}

impl KafkaNode {
    /// Returns whether a node can be started here.
    pub fn available() -> bool {
        env::var_os(KAFKA_CLASSPATH).is_some()
    }

    /// Formats a folder and starts a node in it.
    ///
    /// # Panics
    /// When there is no classpath, or the node does not respond in time.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Works like [`KafkaNode::start`], with levels of features such as `transaction.version=0`.
    ///
    /// # Panics
    /// When there is no classpath, or the node does not respond in time.
    pub fn start_with(features: &[&str]) -> Self {
        let classpath = env::var(KAFKA_CLASSPATH).expect("MILLSTREAM_KAFKA_CLASSPATH is set");
        Self::start_release(&classpath, features, &[])
    }

    /// Formats a folder and starts a node of the release on a classpath, with levels of features and more configs.
    ///
    /// # Panics
    /// When the node does not respond in time.
    pub fn start_release(classpath: &str, features: &[&str], configs: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().expect("a temporary folder can be made");
        // Kafka does not report which ports it took, so free ones are chosen first, both at once so that they differ.
        let free = [(); 2].map(|()| TcpListener::bind(("127.0.0.1", 0)).expect("a free port"));
        let [port, controller] = free.each_ref().map(|listener| listener.local_addr().expect("an address").port());
        drop(free);
        let node = Self { classpath: classpath.to_owned(), port, folder, child: None };
        let more: String = configs.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        fs::write(node.config(), node.properties(controller) + &more).expect("the configuration can be written");
        let formatted = Tool::new("java")
            .args(["-cp", &node.classpath, "kafka.tools.StorageTool", "format", "--standalone", "-t"])
            .arg("4L6g3nShT-eMCtK--X86sw")
            .arg("-c")
            .arg(node.config())
            .args(features.iter().flat_map(|feature| ["--feature", feature]))
            .limit(PATIENCE)
            .run();
        assert_eq!(formatted.code, Some(0), "{}", formatted.stderr);
        let mut node = node;
        node.launch();
        node
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("server.properties")
    }

    /// Returns the data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Returns all that the node has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn properties(&self, controller: u16) -> String {
        let (port, data) = (self.port, self.data());
        format!(
            "process.roles=broker,controller\nnode.id=0\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             controller.listener.names=CONTROLLER\ncontroller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
             log.dirs={}\noffsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=100\ngroup.min.session.timeout.ms=1000\n",
            data.display()
        )
    }

    /// Returns the address that the node listens on.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Returns `HOST:PORT`, as clients take it.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Ends the process with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Stops the process with SIGTERM, and waits for its end.
    ///
    /// # Panics
    /// When it does not run, or does not end in time.
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("the node runs");
        kill_process(Pid::from_child(&child), Signal::TERM).expect("the process can be signalled");
        wait_until("Apache Kafka to stop", PATIENCE, || child.try_wait().expect("the child can be waited for"));
    }

    /// Starts the node again on the same port and folder, after [`KafkaNode::kill`] or [`KafkaNode::stop`].
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "the node still runs");
        self.launch();
    }

    fn launch(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.log_file());
        let log = log.expect("the log can be opened");
        let child = Command::new("java")
            .args(["-Xmx512m", "-cp", &self.classpath, "kafka.Kafka"])
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("java starts");
        self.child = Some(child);
        let address = self.bootstrap();
        wait_until("Apache Kafka to listen", PATIENCE, || std::net::TcpStream::connect(&address).ok());
    }
}

impl Drop for KafkaNode {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("-- log of Apache Kafka\n{}", self.log());
        }
        self.kill();
    }
}
