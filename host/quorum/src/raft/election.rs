//! When a voter starts an election.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::raft::{VoteRequest, VoteResponse};
use openraft::{Raft, RaftMetrics, ServerState};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::network::Farewell;
use super::types::Types;
use crate::config::QuorumConfig;
use crate::quorum::{ChangeError, Leadership, NodeId, Peer};

/// The time between the elections of a dead leader's voters, for each place in the order of their ids.
const PLACE_DELAY: Duration = Duration::from_millis(15);

/// The number of election timeouts that a leader waits for another one after it resigned.
const RESIGN_ELECTIONS: u32 = 10;

/// The most terms that a voter skips at once.
const OVERTAKEN_TERMS_MAX: u64 = 4;

type Metrics = RaftMetrics<NodeId, Peer>;

/// The elections of a node.
#[derive(Clone)]
pub(super) struct Elections {
    pub(super) raft: Raft<Types>,
    pub(super) config: Arc<QuorumConfig>,
    pub(super) leadership: watch::Sender<Leadership>,
    /// When the node last heard a leader or voted.
    heard: Arc<Mutex<Instant>>,
    is_resigning: Arc<AtomicBool>,
    farewell: Farewell,
}

/// The time in which a leader sends nothing, so that its voters elect another one.
struct Silence<'a>(&'a Elections);

impl<'a> Silence<'a> {
    fn begin(elections: &'a Elections) -> Self {
        elections.raft.runtime_config().heartbeat(false);
        elections.is_resigning.store(true, Ordering::Relaxed);
        Self(elections)
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        self.0.raft.runtime_config().heartbeat(true);
        self.0.is_resigning.store(false, Ordering::Relaxed);
    }
}

impl Elections {
    pub(super) fn new(raft: Raft<Types>, config: Arc<QuorumConfig>, farewell: Farewell) -> Self {
        let heard = Arc::new(Mutex::new(Instant::now()));
        let (leadership, is_resigning) = (watch::Sender::default(), Arc::default());
        Self { raft, config, leadership, heard, is_resigning, farewell }
    }

    /// Says whether the node waits for another leader.
    pub(super) fn is_resigning(&self) -> bool {
        self.is_resigning.load(Ordering::Relaxed)
    }

    /// Notes that the node heard a leader or voted.
    pub(super) fn hear(&self) {
        *self.heard.lock() = Instant::now();
    }

    /// Publishes the leader, and starts an election each time that none is heard for a random time.
    pub(super) async fn run(self) {
        let mut metrics = self.raft.metrics();
        let mut timeout = self.config.random_timeout();
        if is_only_voter(&metrics.borrow_and_update()) {
            self.elect().await;
        }
        loop {
            let deadline = *self.heard.lock() + timeout;
            tokio::select! {
                biased;
                changed = metrics.changed() => {
                    let has_stopped = changed.is_err() || metrics.borrow().running_state.is_err();
                    self.publish(&metrics.borrow_and_update());
                    if has_stopped {
                        return;
                    }
                }
                () = sleep_until(deadline) => {
                    if *self.heard.lock() + timeout > deadline {
                        continue;
                    }
                    self.hear();
                    timeout = self.config.random_timeout();
                    let (is_candidate, latest) = {
                        let latest = metrics.borrow();
                        (can_elect(&latest), latest.clone())
                    };
                    self.publish(&latest);
                    if is_candidate {
                        self.elect().await;
                    }
                }
            }
        }
    }

    /// Elects a new leader because the process of the old one has ended.
    ///
    /// Voters that heard the leader a moment ago reject candidates. One that is a candidate does not, so each voter
    /// becomes one. They then repeat the election at different times: the first of these has the highest term.
    pub(super) async fn replace(&self, dead: NodeId) {
        let (can_elect, mut voters) = {
            let metrics = self.raft.metrics();
            let latest = metrics.borrow();
            (can_elect(&latest), latest.membership_config.voter_ids().collect::<Vec<_>>())
        };
        if !can_elect || self.leadership.borrow().leader != Some(dead) {
            return;
        }
        voters.retain(|id| *id != dead);
        voters.sort_unstable();
        let place = voters.iter().position(|id| *id == self.config.node_id).unwrap_or(voters.len());
        let has_leader = |known: &Leadership| known.leader.is_some_and(|leader| leader != dead);
        let mut leadership = self.leadership.subscribe();
        self.hear();
        self.elect().await;
        let replaced = async { leadership.wait_for(has_leader).await.is_ok() };
        if timeout(PLACE_DELAY * (place as u32 + 1), replaced).await.is_err() {
            self.hear();
            self.elect().await;
        }
    }

    /// Elects a new leader because that of a term stops.
    pub(super) async fn succeed(&self, leader: NodeId, term: u64) {
        if *self.leadership.borrow() == (Leadership { term, leader: Some(leader) }) {
            self.replace(leader).await;
        }
    }

    /// Asks the other voters to elect one of them, and stops the heartbeats until one is.
    pub(super) async fn resign(&self) -> Result<(), ChangeError> {
        let own_id = self.config.node_id;
        if self.raft.metrics().borrow().state != ServerState::Leader {
            return Ok(());
        }
        let _silence = Silence::begin(self);
        let mut leadership = self.leadership.subscribe();
        let is_replaced = |known: &Leadership| known.leader.is_some_and(|leader| leader != own_id);
        let replaced = async { leadership.wait_for(is_replaced).await.is_ok() };
        self.say_farewell();
        match timeout(self.config.election_timeout.end * RESIGN_ELECTIONS, replaced).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(ChangeError::Stopped("it was stopped while it resigned".to_owned())),
            Err(_) => Err(ChangeError::TimedOut),
        }
    }

    fn say_farewell(&self) {
        let metrics = self.raft.metrics().borrow().clone();
        let members = metrics.membership_config.membership();
        for id in members.voter_ids().filter(|id| *id != self.config.node_id) {
            if let Some(peer) = members.get_node(&id) {
                tokio::spawn((self.farewell)(id, peer.clone(), metrics.current_term));
            }
        }
    }

    /// Starts an election in a later term than that of a candidate whose log is too short to win.
    ///
    /// The library rejects the candidate without taking over its term, so each election here would be a term behind.
    pub(super) async fn overtake(&self, request: &VoteRequest<NodeId>, response: &VoteResponse<NodeId>) {
        let hears_leader = response.vote.committed && self.heard.lock().elapsed() <= self.config.election_timeout.start;
        let is_longer = response.last_log_id > request.last_log_id;
        if hears_leader || !is_longer || !can_elect(&self.raft.metrics().borrow()) {
            return;
        }
        self.hear();
        let (own, other) = (response.vote.leader_id.term, request.vote.leader_id.term);
        // Each election raises the term by one. A candidate that is far ahead is overtaken in several attempts.
        for _ in 0..=other.saturating_sub(own).min(OVERTAKEN_TERMS_MAX) {
            self.elect().await;
        }
    }

    async fn elect(&self) {
        if let Err(error) = self.raft.trigger().elect().await {
            tracing::debug!(%error, "no election: the quorum has stopped on this node");
        }
    }

    fn publish(&self, metrics: &Metrics) {
        let is_leader = metrics.state == ServerState::Leader;
        // A leader without a majority does not know whether there is another one.
        let is_cut_off = is_leader
            && metrics.membership_config.voter_ids().count() > 1
            && metrics
                .millis_since_quorum_ack
                .is_some_and(|age| u128::from(age) > self.config.election_timeout.end.as_millis());
        // A removed leader names itself until it hears another one.
        let has_left = !is_leader && metrics.current_leader == Some(metrics.id);
        let is_unknown = is_cut_off || has_left || metrics.running_state.is_err();
        let leader = metrics.current_leader.filter(|_| !is_unknown);
        let now = Leadership { term: metrics.current_term, leader };
        self.leadership.send_if_modified(|before| std::mem::replace(before, now) != now);
    }
}

fn can_elect(metrics: &Metrics) -> bool {
    metrics.state != ServerState::Leader && metrics.membership_config.voter_ids().any(|id| id == metrics.id)
}

fn is_only_voter(metrics: &Metrics) -> bool {
    let mut voters = metrics.membership_config.voter_ids();
    voters.next() == Some(metrics.id) && voters.next().is_none()
}
