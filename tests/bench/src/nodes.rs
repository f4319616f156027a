//! The nodes of one system, each a process of its own: one broker, or a cluster.

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use millstream_client::{Admin, ClientConfig, NewTopic, PartitionDescription, TopicPartition};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::process::{Memory, memory, process};

/// How long nodes may take to start, to stop, and to agree. A JVM on a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// The configs that both systems get, besides those about replicas.
const CONFIGS: [(&str, &str); 2] = [("log.segment.delete.delay.ms", "0"), ("auto.create.topics.enable", "false")];

/// The options that Kafka's own start script gives to Java.
const JAVA: [&str; 7] = [
    "-Xms1g",
    "-Xmx1g",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
];

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    /// Millstream as it is by default: acks=all waits for stable storage on each replica of the in-sync set.
    Fsync,
    /// Millstream with `flush.mode=page-cache`, which promises what Kafka promises by default.
    PageCache,
    Kafka,
}

impl System {
    pub(crate) const ALL: [Self; 3] = [Self::Fsync, Self::PageCache, Self::Kafka];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fsync => "ours, fsync",
            Self::PageCache => "ours, page cache",
            Self::Kafka => "Kafka",
        }
    }
}

/// The programs to run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Programs {
    /// Our binary.
    pub(crate) millstream: PathBuf,
    /// The class path of Apache Kafka, if it is here.
    pub(crate) classpath: Option<String>,
}

/// The addresses of a node.
#[derive(Debug, Clone, Copy)]
struct Ports {
    clients: u16,
    nodes: u16,
}

/// Nodes; dropping them ends the processes and removes their folders.
pub(crate) struct Nodes {
    system: System,
    programs: Programs,
    configs: Vec<(String, String)>,
    ports: Vec<Ports>,
    folder: TempDir,
    running: Vec<Option<Child>>,
}

impl Nodes {
    /// Starts this number of nodes, and waits until all are alive. Node ids begin at 1. Topics have a replica on each
    /// node, and one of them may be missing.
    ///
    /// # Errors
    /// A node does not start.
    pub(crate) async fn start(
        system: System,
        programs: &Programs,
        count: usize,
        configs: &[(&str, &str)],
    ) -> Result<Self> {
        let ports = free_ports(2 * count)?;
        let ports = ports.chunks(2).map(|pair| Ports { clients: pair[0], nodes: pair[1] }).collect();
        let (replicas, in_sync) = (count.to_string(), count.saturating_sub(1).max(1).to_string());
        let replication = [
            ("default.replication.factor", &*replicas),
            ("offsets.topic.replication.factor", &replicas),
            ("transaction.state.log.replication.factor", &replicas),
            ("transaction.state.log.min.isr", &in_sync),
            ("min.insync.replicas", &in_sync),
        ];
        let configs = replication.iter().chain(&CONFIGS).chain(configs);
        let configs = configs.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let running = (0..count).map(|_| None).collect();
        let folder = tempfile::tempdir()?;
        let mut nodes = Self { system, programs: programs.clone(), configs, ports, folder, running };
        if system == System::Kafka {
            nodes.format()?;
        }
        (1..=count).try_for_each(|id| nodes.launch(id))?;
        nodes.all_alive().await?;
        Ok(nodes)
    }

    /// Returns how many nodes there are.
    pub(crate) fn count(&self) -> usize {
        self.ports.len()
    }

    /// Returns which system the nodes run.
    pub(crate) fn system(&self) -> System {
        self.system
    }

    /// Starts a node that was killed or stopped. Does not wait for it.
    ///
    /// # Errors
    /// The process cannot be started.
    pub(crate) fn launch(&mut self, id: usize) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.folder.path().join(format!("log-{id}")))?;
        let mut command = match self.system {
            System::Kafka => self.kafka(id)?,
            _ => self.millstream(id),
        };
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.running[id - 1] = Some(child.context("cannot start a node")?);
        Ok(())
    }

    fn millstream(&self, id: usize) -> Command {
        let ports = self.ports[id - 1];
        let mut command = Command::new(&self.programs.millstream);
        command.args(["serve", "--node-id", &id.to_string(), "--data-dir"]).arg(self.data(id));
        command.args(["--listen", &format!("127.0.0.1:{}", ports.clients)]);
        if self.count() > 1 {
            command.args(["--cluster-listen", &format!("127.0.0.1:{}", ports.nodes)]);
            // The first node forms the cluster, and joins it when it comes back.
            let other = if id > 1 { 1 } else { 2 };
            if id > 1 || self.data(id).exists() {
                command.args(["--join", &format!("127.0.0.1:{}", self.ports[other - 1].nodes)]);
            }
        }
        let mode = if self.system == System::PageCache { "page-cache" } else { "fsync" };
        command.args(["--set", &format!("flush.mode={mode}")]);
        for (key, value) in &self.configs {
            command.args(["--set", &format!("{key}={value}")]);
        }
        command
    }

    fn kafka(&self, id: usize) -> Result<Command> {
        let mut command = self.java()?;
        command.args(JAVA).arg("kafka.Kafka").arg(self.properties(id));
        Ok(command)
    }

    /// Returns a command for Java with Kafka's classes, without the class to run.
    ///
    /// # Errors
    /// Kafka is not here.
    pub(crate) fn java(&self) -> Result<Command> {
        let mut command = Command::new("java");
        command.args(["-cp", self.programs.classpath.as_deref().context("Apache Kafka is not here")?]);
        Ok(command)
    }

    /// Returns whether Kafka and its tools are here.
    pub(crate) fn has_java(&self) -> bool {
        self.programs.classpath.is_some()
    }

    /// Writes the configuration of Kafka's nodes, and formats their folders.
    fn format(&self) -> Result<()> {
        let voters = (1..).zip(&self.ports).map(|(id, ports)| format!("{id}@127.0.0.1:{}", ports.nodes));
        let voters = voters.collect::<Vec<_>>().join(",");
        for (id, ports) in (1..).zip(&self.ports) {
            let mut text = format!(
                "process.roles=broker,controller\nnode.id={id}\ncontroller.quorum.voters={voters}\n\
                 listeners=PLAINTEXT://127.0.0.1:{},CONTROLLER://127.0.0.1:{}\ncontroller.listener.names=CONTROLLER\n\
                 listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\nlog.dirs={}\n",
                ports.clients,
                ports.nodes,
                self.data(id).display()
            );
            self.configs.iter().for_each(|(key, value)| text.push_str(&format!("{key}={value}\n")));
            std::fs::write(self.properties(id), text)?;
            let mut tool = self.java()?;
            tool.args(["kafka.tools.StorageTool", "format", "-t", "4L6g3nShT-eMCtK--X86sw", "-c"]);
            let output = tool.arg(self.properties(id)).output().context("cannot run java")?;
            ensure!(output.status.success(), "Kafka's folder: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Returns the folder with the data of a node.
    pub(crate) fn data(&self, id: usize) -> PathBuf {
        self.folder.path().join(format!("node-{id}"))
    }

    fn properties(&self, id: usize) -> PathBuf {
        self.folder.path().join(format!("node-{id}.properties"))
    }

    /// Returns the address of a node for clients.
    pub(crate) fn address(&self, id: usize) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports[id - 1].clients).into()
    }

    /// Returns the addresses of all nodes, as clients take them.
    pub(crate) fn bootstrap(&self) -> String {
        (1..=self.count()).map(|id| self.address(id).to_string()).collect::<Vec<_>>().join(",")
    }

    pub(crate) fn admin(&self) -> Result<Admin> {
        Ok(Admin::new(ClientConfig::new(&self.bootstrap()))?)
    }

    /// Ends a node with SIGKILL.
    ///
    /// # Errors
    /// The node does not run.
    pub(crate) fn kill(&mut self, id: usize) -> Result<()> {
        let mut child = self.running[id - 1].take().context("the node runs")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Sends SIGTERM to a node.
    ///
    /// # Errors
    /// The node does not run.
    pub(crate) fn terminate(&self, id: usize) -> Result<()> {
        let child = self.running[id - 1].as_ref().context("the node runs")?;
        kill_process(Pid::from_child(child), Signal::TERM)?;
        Ok(())
    }

    /// Waits until a node has stopped.
    ///
    /// # Errors
    /// It does not stop in time.
    pub(crate) async fn stopped(&mut self, id: usize) -> Result<()> {
        let mut child = self.running[id - 1].take().context("the node runs")?;
        until("a node to stop", async || Ok(child.try_wait()?)).await?;
        Ok(())
    }

    /// Starts a node, and waits until the replicas of all topics are in sync.
    ///
    /// # Errors
    /// It does not come back in time.
    pub(crate) async fn bring_back(&mut self, id: usize, topic: &str) -> Result<()> {
        self.launch(id)?;
        self.all_alive().await?;
        let admin = self.admin()?;
        until("all replicas in sync", async || {
            Ok(partitions(&admin, topic).await?.iter().all(|one| one.in_sync.len() == self.count()).then_some(()))
        })
        .await
    }

    async fn all_alive(&self) -> Result<()> {
        let listens = |id: usize| TcpStream::connect(self.address(id)).is_ok();
        until("all nodes to listen", async || Ok((1..=self.count()).all(listens).then_some(()))).await?;
        let admin = self.admin()?;
        until("all nodes to be alive", async || {
            let Ok(cluster) = admin.describe_cluster().await else { return Ok(None) };
            Ok((cluster.brokers.iter().filter(|broker| !broker.fenced).count() == self.count()).then_some(()))
        })
        .await
    }

    /// Creates a topic with a replica on each node, and waits until all its partitions have leaders.
    ///
    /// # Errors
    /// The topic cannot be created.
    pub(crate) async fn create(&self, topic: &str, partitions: i32) -> Result<Vec<PartitionDescription>> {
        self.create_with(topic, partitions, &[]).await
    }

    /// Creates a topic with these configs, as [`Nodes::create`] does.
    ///
    /// # Errors
    /// The topic cannot be created.
    pub(crate) async fn create_with(
        &self,
        topic: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Result<Vec<PartitionDescription>> {
        let admin = self.admin()?;
        let configs = [("file.delete.delay.ms", "0")].iter().chain(configs);
        let configs = configs.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let replication_factor = Some(i16::try_from(self.count())?);
        let new = NewTopic { name: topic.to_owned(), partitions: Some(partitions), replication_factor, configs };
        admin.create_topics(&[new]).await?;
        let found = until("leaders", async || {
            // A node hears of a new topic a moment later.
            let Ok(found) = self::partitions(&admin, topic).await else { return Ok(None) };
            let is_ready = |one: &PartitionDescription| one.leader.is_some() && one.in_sync.len() == self.count();
            let are_ready = usize::try_from(partitions)? == found.len() && found.iter().all(is_ready);
            Ok(are_ready.then_some(found))
        })
        .await?;
        served(&admin, topic, partitions).await?;
        Ok(found)
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// The topic cannot be deleted.
    pub(crate) async fn delete(&self, topic: &str) -> Result<()> {
        self.admin()?.delete_topics(&[topic.to_owned()]).await?;
        Ok(())
    }

    /// Returns the process of a node.
    ///
    /// # Errors
    /// The node does not run.
    pub(crate) fn process_id(&self, id: usize) -> Result<u32> {
        Ok(self.running[id - 1].as_ref().context("the node runs")?.id())
    }

    /// Returns the seconds of processor time that all nodes have used.
    ///
    /// # Errors
    /// A node has ended.
    pub(crate) fn computed(&self) -> Result<f64> {
        self.running.iter().flatten().map(|child| Ok(process(child.id())?.computed)).sum()
    }

    /// Returns the resident memory of the node that has the most, in bytes.
    ///
    /// # Errors
    /// A node has ended.
    pub(crate) fn resident(&self) -> Result<u64> {
        let all = self
            .running
            .iter()
            .flatten()
            .map(|child| memory(child.id(), Memory::Resident))
            .collect::<Result<Vec<_>>>()?;
        all.into_iter().max().context("a node runs")
    }

    /// Prints the last lines of the log of each node.
    pub(crate) fn print_logs(&self) {
        for id in 1..=self.count() {
            let log = std::fs::read_to_string(self.folder.path().join(format!("log-{id}"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the end of the log of node {id} ({}):", self.system.name());
            lines[lines.len().saturating_sub(15)..].iter().for_each(|line| eprintln!("  {line}"));
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for child in self.running.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Returns ports that nothing listens on.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let sockets = (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<Vec<_>, _>>()?;
    sockets.iter().map(|socket| Ok(socket.local_addr()?.port())).collect()
}

/// Returns the partitions of a topic.
///
/// # Errors
/// The topic does not exist.
pub(crate) async fn partitions(admin: &Admin, topic: &str) -> Result<Vec<PartitionDescription>> {
    let topics = admin.describe_topics(&[topic.to_owned()]).await?;
    Ok(topics.into_iter().next().context("a topic")?.partitions)
}

/// Waits until the leaders of all partitions serve them, which is a moment after the metadata names them.
///
/// # Errors
/// That takes too long.
pub(crate) async fn served(admin: &Admin, topic: &str, partitions: i32) -> Result<()> {
    let ends = (0..partitions).map(|partition| (TopicPartition::new(topic, partition), -1)).collect();
    until("leaders that serve their partitions", async || Ok(admin.list_offsets(&ends).await.ok().map(drop))).await
}

/// Looks again and again until there is a result.
///
/// # Errors
/// A look fails, or none has a result in time.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bail!("no {what} after {} s", PATIENCE.as_secs())
}
