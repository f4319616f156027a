//! One run: a cluster, its clients, and what happens to it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::Bytes;
use millstream_quorum::{NodeId, Peer, ProposeError, Quorum, QuorumConfig, RaftQuorum};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::check::{ChainMachine, Checker};
use crate::disk::{Bug, Platter, SimDisk};
use crate::network::{Link, Network};

/// How long things fail, in simulated time.
const FAILURES: Duration = Duration::from_secs(12);
/// How long the cluster may take to recover when nothing fails any more.
const RECOVERY: Duration = Duration::from_secs(60);

/// What happened in a run, or in many.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) violation: Option<String>,
    pub(crate) trace: u64,
    elections: usize,
    commits: usize,
    crashes: usize,
    disk_failures: usize,
    installs: usize,
    cuts: usize,
    changes: usize,
    wipes: usize,
    resignations: usize,
}

impl Outcome {
    /// Says whether too little happened for the run to prove anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.elections < 2 || self.commits < 20 || self.crashes < 2
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.elections += other.elections;
        self.commits += other.commits;
        self.crashes += other.crashes;
        self.disk_failures += other.disk_failures;
        self.installs += other.installs;
        self.cuts += other.cuts;
        self.changes += other.changes;
        self.wipes += other.wipes;
        self.resignations += other.resignations;
    }
}

struct Running {
    quorum: Arc<RaftQuorum>,
    disk: Arc<SimDisk>,
    chain: Arc<Mutex<u64>>,
}

struct Machine {
    platter: Platter,
    running: Option<Running>,
}

struct Cluster {
    machines: Mutex<BTreeMap<NodeId, Machine>>,
    network: Arc<Network>,
    checker: Arc<Checker>,
    bug: Bug,
    outcome: Mutex<Outcome>,
}

/// Runs one seed.
pub(crate) fn simulate(seed: u64, bug: Bug) -> Outcome {
    fastrand::seed(seed);
    note_panics();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let size = if seed.is_multiple_of(2) { 3 } else { 5 };
    let mut outcome = runtime.expect("a runtime").block_on(run(size, bug));
    let panic = PANIC.take();
    outcome.violation = outcome.violation.or_else(|| panic.filter(|_| bug == Bug::None));
    outcome
}

thread_local! {
    /// The first panic of a task in this run. The runtime catches it, and the node goes on without the task.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn note_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANIC.with_borrow_mut(|first| {
                first.get_or_insert_with(|| panic.to_string());
            });
            before(panic);
        }));
    });
    PANIC.take();
}

async fn run(size: NodeId, bug: Bug) -> Outcome {
    let machines = (1..=size).map(|id| (id, Machine { platter: Platter::new(bug), running: None })).collect();
    let cluster = Arc::new(Cluster {
        machines: Mutex::new(machines),
        network: Arc::default(),
        checker: Arc::default(),
        bug,
        outcome: Mutex::default(),
    });
    for id in 1..=size {
        cluster.start(id).await;
    }
    let voters = cluster.peers();
    let first = cluster.node(1).expect("node 1 runs");
    first.bootstrap(voters).await.expect("a new log");
    let clients: Vec<_> = (0..3).map(|client| tokio::spawn(Arc::clone(&cluster).propose(client))).collect();
    let operator = tokio::spawn(Arc::clone(&cluster).operate());
    cluster.fail_for(FAILURES).await;
    clients.iter().for_each(tokio::task::JoinHandle::abort);
    if cluster.checker.violation().is_none() {
        cluster.recover().await;
    }
    operator.abort();
    for id in 1..=size {
        cluster.stop(id).await;
        let machine = cluster.machines.lock()[&id].platter.clone();
        cluster.checker.inspect(id, &machine);
    }
    let mut outcome = std::mem::take(&mut *cluster.outcome.lock());
    outcome.violation = cluster.checker.violation();
    outcome.trace = cluster.checker.trace();
    outcome.elections = cluster.checker.elections();
    outcome.installs = cluster.checker.installs();
    outcome.commits = cluster.checker.commits();
    outcome
}

fn config(node_id: NodeId, bug: Bug) -> QuorumConfig {
    QuorumConfig {
        // A seeded bug would show at once as a torn tail before the last segment. What it leads to is to be found.
        snapshot_entries: 30,
        retained_entries: 5,
        segment_bytes: if bug == Bug::None { 1500 } else { 1 << 20 },
        propose_timeout: Duration::from_millis(800),
        change_timeout: Duration::from_secs(2),
        snapshot_timeout: Duration::from_secs(1),
        ..QuorumConfig::new(node_id)
    }
}

fn pick<T: Copy>(from: &[T]) -> Option<T> {
    (!from.is_empty()).then(|| from[fastrand::usize(..from.len())])
}

impl Cluster {
    fn node(&self, node_id: NodeId) -> Option<Arc<RaftQuorum>> {
        self.machines.lock()[&node_id].running.as_ref().map(|running| Arc::clone(&running.quorum))
    }

    fn running(&self) -> Vec<NodeId> {
        let machines = self.machines.lock();
        machines.iter().filter(|(_, machine)| machine.running.is_some()).map(|(id, _)| *id).collect()
    }

    fn ids(&self) -> Vec<NodeId> {
        self.machines.lock().keys().copied().collect()
    }

    fn peers(&self) -> BTreeMap<NodeId, Peer> {
        let machines = self.machines.lock();
        let running = machines.iter().filter_map(|(id, machine)| Some((*id, machine.running.as_ref()?)));
        let peer = |id, directory_id| Peer { directory_id, address: format!("node-{id}:9093") };
        running.map(|(id, running)| (id, peer(id, running.quorum.directory_id()))).collect()
    }

    /// Starts a node on its disk.
    async fn start(self: &Arc<Self>, node_id: NodeId) {
        self.checker.note(("start", node_id));
        let platter = self.machines.lock()[&node_id].platter.clone();
        self.checker.inspect(node_id, &platter);
        let (disk, chain) = (platter.mount(), Arc::new(Mutex::new(0)));
        let machine = ChainMachine {
            node_id,
            checker: Arc::clone(&self.checker),
            chain: Arc::clone(&chain),
            last: 0,
            is_running: false,
        };
        let link = Arc::new(Link { node_id, network: Arc::clone(&self.network) });
        let opened = RaftQuorum::open(config(node_id, self.bug), Arc::clone(&disk) as _, machine, link).await;
        let quorum = match opened {
            Ok(quorum) => Arc::new(quorum),
            Err(error) => return self.checker.fail(format!("node {node_id} does not start: {error}")),
        };
        self.network.attach(node_id, &quorum);
        let (checker, mut leadership) = (Arc::clone(&self.checker), quorum.leadership());
        tokio::spawn(async move {
            while leadership.changed().await.is_ok() {
                let known = *leadership.borrow_and_update();
                checker.lead(known);
            }
        });
        let running = Running { quorum, disk, chain };
        self.machines.lock().get_mut(&node_id).expect("a machine").running = Some(running);
    }

    /// Cuts the power of a node.
    async fn stop(&self, node_id: NodeId) {
        let stopped = self.machines.lock().get_mut(&node_id).and_then(|machine| machine.running.take());
        let Some(running) = stopped else { return };
        self.checker.note(("stop", node_id));
        running.disk.kill();
        self.network.detach(node_id);
        self.machines.lock()[&node_id].platter.cut_power();
        running.quorum.stop().await;
    }

    /// Proposes entries at random nodes, or at the leader that they name.
    async fn propose(self: Arc<Self>, client: u64) {
        let mut target = None;
        for number in 0_u64.. {
            sleep(Duration::from_millis(fastrand::u64(1..40))).await;
            let Some(id) = target.take().or_else(|| pick(&self.running())) else { continue };
            let Some(node) = self.node(id) else { continue };
            // Now and then an entry is larger than a heartbeat can carry, or than a segment.
            let size = if fastrand::u8(..40) == 0 { 70_000 } else { fastrand::usize(..60) };
            let bytes = Bytes::from(format!("{client}/{number} {}", "x".repeat(size)));
            match node.propose(bytes.clone()).await {
                Ok(index) => {
                    self.checker.acknowledge(index, bytes);
                    target = Some(id);
                }
                Err(ProposeError::NotLeader { leader }) => target = leader.map(|(id, _)| id),
                Err(_) => {}
            }
        }
    }

    /// Keeps the members as the machines are: removes members whose disk was lost, and adds nodes that are not members.
    async fn operate(self: Arc<Self>) {
        loop {
            sleep(Duration::from_millis(fastrand::u64(50..400))).await;
            let Some(leader) = self.leader() else { continue };
            let described = leader.describe();
            let members: BTreeMap<NodeId, Uuid> =
                described.voters.iter().map(|voter| (voter.node_id, voter.peer.directory_id)).collect();
            for (id, peer) in self.peers() {
                match members.get(&id) {
                    Some(directory_id) if *directory_id == peer.directory_id => {}
                    Some(_) => drop(leader.remove(id).await),
                    None => {
                        let other = described.observers.iter().find(|observer| observer.node_id == id);
                        if other.is_some_and(|observer| observer.peer.directory_id != peer.directory_id) {
                            drop(leader.remove(id).await);
                        }
                        if leader.add_voter(id, peer).await.is_ok() {
                            self.outcome.lock().changes += 1;
                        }
                    }
                }
            }
        }
    }

    fn leader(&self) -> Option<Arc<RaftQuorum>> {
        let nodes: Vec<_> = self.running().into_iter().filter_map(|id| Some((id, self.node(id)?))).collect();
        nodes.into_iter().find(|(id, node)| node.describe().leadership.leader == Some(*id)).map(|(_, node)| node)
    }

    /// Says whether all nodes run, and all know themselves as the voters, each with its own disk.
    fn is_complete(&self) -> bool {
        let peers = self.peers();
        let is_whole = |id: &NodeId| {
            let Some(described) = self.node(*id).map(|node| node.describe()) else { return false };
            let voters: BTreeMap<_, _> = described.voters.into_iter().map(|one| (one.node_id, one.peer)).collect();
            voters == peers && !described.is_changing
        };
        peers.len() == self.ids().len() && self.ids().iter().all(is_whole)
    }

    async fn fail_for(self: &Arc<Self>, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end && self.checker.violation().is_none() {
            sleep(Duration::from_millis(fastrand::u64(20..600))).await;
            match fastrand::u8(..20) {
                0..6 => self.crash().await,
                6..9 => self.restart_all().await,
                9..12 => self.partition(),
                12..15 => self.network.heal(),
                15 => *self.network.loss.lock() = (fastrand::u16(..150), fastrand::u16(..200)),
                16 => *self.network.loss.lock() = (0, 0),
                17 if fastrand::bool() => self.remove().await,
                17 => drop(timeout(Duration::from_secs(1), self.resign()).await),
                18 => self.wipe().await,
                _ => {
                    if let Some(node) = pick(&self.running()).and_then(|id| self.node(id)) {
                        node.write_snapshot().await;
                    }
                }
            }
        }
    }

    async fn crash(self: &Arc<Self>) {
        let leader = self.leader().and_then(|leader| leader.describe().leadership.leader);
        let victim = leader.filter(|_| fastrand::bool()).or_else(|| pick(&self.running()));
        let Some(victim) = victim else { return };
        if fastrand::u8(..5) == 0 {
            // The disk fails a moment before the power does.
            if let Some(running) = &self.machines.lock()[&victim].running {
                running.disk.kill();
            }
            self.outcome.lock().disk_failures += 1;
            sleep(Duration::from_millis(fastrand::u64(1..500))).await;
        }
        self.stop(victim).await;
        self.outcome.lock().crashes += 1;
        if fastrand::bool() {
            for node in self.running().into_iter().filter_map(|id| self.node(id)) {
                tokio::spawn(async move { node.declare_dead(victim).await });
            }
        }
        let cluster = Arc::clone(self);
        tokio::spawn(async move {
            sleep(Duration::from_millis(fastrand::u64(10..3000))).await;
            if cluster.node(victim).is_none() {
                cluster.start(victim).await;
            }
        });
    }

    async fn restart_all(self: &Arc<Self>) {
        if fastrand::u8(..4) == 0 {
            for id in self.ids() {
                self.stop(id).await;
            }
            self.outcome.lock().crashes += 1;
        }
        for id in self.ids() {
            if self.node(id).is_none() {
                self.start(id).await;
            }
        }
    }

    fn partition(&self) {
        self.outcome.lock().cuts += 1;
        let ids = self.ids();
        let side: Vec<NodeId> = ids.iter().copied().filter(|_| fastrand::bool()).collect();
        let is_one_way = fastrand::bool();
        for from in &side {
            for to in ids.iter().filter(|id| !side.contains(id)) {
                self.network.cut([(*from, *to)]);
                if !is_one_way {
                    self.network.cut([(*to, *from)]);
                }
            }
        }
    }

    async fn resign(&self) {
        let Some(leader) = self.leader() else { return };
        if leader.resign().await.is_ok() {
            self.outcome.lock().resignations += 1;
        }
    }

    /// Removes a member, which the operator adds again.
    async fn remove(&self) {
        let Some(leader) = self.leader().filter(|_| self.is_complete()) else { return };
        let Some(id) = pick(&self.ids()) else { return };
        if let Ok(Ok(())) = timeout(Duration::from_secs(1), leader.remove(id)).await {
            self.outcome.lock().changes += 1;
        }
    }

    /// Replaces the disk of a node. Only one disk is missing at a time, so a majority keeps its log.
    async fn wipe(self: &Arc<Self>) {
        let Some(id) = pick(&self.running()).filter(|_| self.is_complete()) else { return };
        self.stop(id).await;
        self.machines.lock().get_mut(&id).expect("a machine").platter = Platter::new(self.bug);
        self.outcome.lock().wipes += 1;
        self.start(id).await;
    }

    /// Ends all failures, and waits until all nodes have all entries.
    async fn recover(self: &Arc<Self>) {
        self.network.heal();
        *self.network.loss.lock() = (0, 0);
        let converged = async {
            loop {
                self.restart_all_stopped().await;
                if self.is_complete() && self.is_equal().await {
                    return;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        if timeout(RECOVERY, converged).await.is_err() {
            let states: Vec<_> =
                self.ids().into_iter().map(|id| (id, self.node(id).map(|node| node.describe()))).collect();
            return self.checker.fail(format!("the cluster does not recover: {states:?}"));
        }
        let machines = self.machines.lock();
        for (id, running) in machines.iter().filter_map(|(id, machine)| Some((id, machine.running.as_ref()?))) {
            self.checker.finish(*id, *running.chain.lock());
        }
    }

    async fn restart_all_stopped(self: &Arc<Self>) {
        for id in self.ids() {
            if self.node(id).is_none() && self.checker.violation().is_none() {
                self.start(id).await;
            }
        }
    }

    /// Proposes an entry, and says whether all nodes have applied the same entries up to it.
    async fn is_equal(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let Ok(index) = leader.propose(Bytes::from_static(b"the last")).await else { return false };
        self.checker.acknowledge(index, Bytes::from_static(b"the last"));
        sleep(Duration::from_millis(500)).await;
        let nodes: Vec<_> = self.ids().into_iter().filter_map(|id| self.node(id)).collect();
        nodes.iter().all(|node| *node.applied_end().borrow() > self.checker.last_acknowledged())
    }
}
