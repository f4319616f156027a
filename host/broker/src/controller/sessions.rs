//! In a cluster: which brokers are alive, while this node is the controller.
//!
//! A broker whose process has ended is fenced at once. One whose heartbeats stop is fenced when its session expires. It
//! knows that too, and takes no records from that moment on: its session began when it sent its last heartbeat, so it
//! ends earlier for the broker than for the controller.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use millstream_wire::ErrorCode;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Controller;
use crate::cluster::{Changed, Cluster, ControllerCalls};
use crate::edge::{BoxFuture, plugins};
use crate::error::ApiError;
use millstream_coordinator::group::CONSUMER_OFFSETS;
use millstream_coordinator::transaction::TRANSACTION_STATE;
use millstream_metadata::BrokerImage;
use millstream_metadata::controller::{BrokerState, Heartbeat, Reassignment, Request, heartbeat};
use millstream_registry::LOGS_TOPIC;

/// When each broker was heard last.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    heard: Mutex<HashMap<i32, Instant>>,
    /// The term of the leadership that the times belong to.
    term: Mutex<Option<u64>>,
}

impl Sessions {
    fn hear(&self, broker: i32) {
        self.heard.lock().insert(broker, Instant::now());
    }

    /// Returns whether a broker was heard within this time.
    fn has_heard(&self, broker: i32, within: Duration) -> bool {
        self.heard.lock().get(&broker).is_some_and(|heard| heard.elapsed() < within)
    }

    /// Returns whether a broker was not heard for this long. The time of one that was never heard starts now.
    fn has_expired(&self, broker: i32, timeout: Duration) -> bool {
        self.heard.lock().entry(broker).or_insert_with(Instant::now).elapsed() >= timeout
    }

    /// Forgets all times at the start of a term: this node heard nothing before.
    fn begin(&self, term: u64) {
        if self.term.lock().replace(term) != Some(term) {
            self.restart();
        }
    }

    /// Lets all sessions begin now.
    fn restart(&self) {
        self.heard.lock().clear();
    }
}

impl Controller {
    /// Processes the heartbeat of a broker, as the controller of its cluster.
    pub(crate) async fn heartbeat_here(self: &Arc<Self>, sent: Heartbeat) -> Result<BrokerState, ApiError> {
        let decided = heartbeat(&self.metadata.image(), &self.rules(), sent).map_err(ApiError::from)?;
        // The broker counts on its session from now on. A controller that was replaced cannot promise that.
        if let Some(cluster) = &self.cluster
            && let Err(error) = cluster.confirm_controller().await
        {
            return Err(ApiError::new(ErrorCode::NOT_CONTROLLER, error.to_string()));
        }
        self.sessions.hear(sent.id);
        let (state, records) = decided;
        if records.is_empty() {
            return Ok(state);
        }
        self.submit_one(Request::Heartbeat(sent), false).await?;
        let (state, _) = heartbeat(&self.metadata.image(), &self.rules(), sent).map_err(ApiError::from)?;
        Ok(state)
    }

    /// Fences brokers that are gone and balances leaders, while this node is the controller, until `stop` says so.
    pub(crate) async fn supervise(self: Arc<Self>, cluster: Arc<Cluster>, mut stop: watch::Receiver<bool>) {
        let config = &cluster.config;
        let period = (config.session_timeout / 10).max(Duration::from_millis(10));
        let mut tick = interval(period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut balanced = Instant::now();
        let (mut leaderships, mut ended) = (cluster.leaderships(), cluster.processes.subscribe());
        loop {
            let idle_since = Instant::now();
            tokio::select! {
                _ = tick.tick() => {}
                changed = leaderships.changed() => if changed.is_err() { return },
                changed = ended.changed() => if changed.is_err() { return },
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let leadership = cluster.leadership();
            if leadership.leader != Some(cluster.node_id) || self.metadata.version() == 0 {
                continue;
            }
            self.sessions.begin(leadership.term);
            if idle_since.elapsed() > period + config.session_timeout / 2 {
                // This process was stopped, and so were the heartbeats that wait in its sockets.
                self.sessions.restart();
            }
            self.fence_the_gone(&cluster, leadership.term).await;
            self.grow_internal_topics(&cluster, leadership.term).await;
            if config.balance_interval.is_some_and(|interval| balanced.elapsed() >= interval) {
                balanced = Instant::now();
                self.decide_quietly(&cluster, leadership.term, Request::BalanceLeaders { percentage: 0 }).await;
            }
        }
    }

    async fn fence_the_gone(self: &Arc<Self>, cluster: &Cluster, term: u64) {
        let image = self.metadata.image();
        let own = cluster.incarnation;
        let others = image.brokers().filter(|broker| !broker.fenced && broker.registration.incarnation != own);
        let gone = others.filter_map(|broker| {
            if has_ended(cluster, broker) {
                Some((broker, "its process has ended"))
            } else {
                let has_expired = self.sessions.has_expired(broker.registration.id, cluster.config.session_timeout);
                has_expired.then_some((broker, "its session has expired"))
            }
        });
        // All are decided before a change is awaited, which takes time that counts against sessions.
        for (broker, reason) in gone.collect::<Vec<_>>() {
            let id = broker.registration.id;
            if self.decide_quietly(cluster, term, Request::FenceBroker { id, epoch: broker.epoch }).await {
                tracing::info!(broker = id, "the broker is fenced: {reason}");
            }
        }
    }

    /// Adds brokers that came later as replicas of the internal topics, up to the replication factor of each. A broker
    /// that is cordoned is not added, so that it can be drained.
    async fn grow_internal_topics(self: &Arc<Self>, cluster: &Cluster, term: u64) {
        let image = self.metadata.image();
        let open = || image.brokers().filter(|one| !image.is_cordoned(one.registration.id));
        let active: Vec<i32> = open().filter(|one| one.is_active()).map(|one| one.registration.id).collect();
        // A broker that starts is not unfenced before it has the plug-ins.
        let session = cluster.config.session_timeout;
        let is_starting = |one: &&BrokerImage| {
            one.fenced && !has_ended(cluster, one) && self.sessions.has_heard(one.registration.id, session)
        };
        let starting: Vec<i32> = open().filter(is_starting).map(|one| one.registration.id).collect();
        for (name, factor) in self.internal_factors() {
            let Some(topic) = image.topic(name) else { continue };
            let is_on_all = factor == i32::MAX;
            let starting = starting.iter().filter(|_| is_on_all);
            let candidates: Vec<i32> = active.iter().chain(starting).copied().collect();
            for (index, partition) in (0..).zip(&topic.partitions) {
                let mut others: Vec<i32> =
                    candidates.iter().filter(|id| !partition.replicas.contains(id)).copied().collect();
                let wanted = match is_on_all {
                    true => partition.replicas.len() + others.len(),
                    false => usize::try_from(factor).unwrap_or(1).min(candidates.len()),
                };
                // A replica that is being added may never come. It does not keep others away.
                let is_moving = !partition.removing.is_empty() || (!is_on_all && !partition.adding.is_empty());
                if partition.replicas.len() >= wanted || is_moving {
                    continue;
                }
                // Each partition begins with another broker, so that all get their share.
                let turn = usize::try_from(index).unwrap_or(0) % others.len().max(1);
                others.rotate_left(turn);
                let target = partition.replicas.iter().copied().chain(others).take(wanted).collect();
                tracing::info!(topic = name, partition = index, replicas = ?target, "an internal topic grows");
                let growth = Reassignment {
                    topic: topic.id,
                    partition: index,
                    target: Some(target),
                    allow_replication_factor_change: true,
                };
                self.decide_quietly(cluster, term, Request::Reassign(growth)).await;
            }
        }
    }

    /// Returns the replication factor of each internal topic.
    fn internal_factors(&self) -> [(&'static str, i32); 4] {
        let offsets = self.node.config.group.offsets_topic_replication_factor;
        let transactions = self.node.config.transactions.topic_replication_factor;
        [(CONSUMER_OFFSETS, offsets), (TRANSACTION_STATE, transactions), (plugins::TOPIC, i32::MAX), (LOGS_TOPIC, 3)]
    }

    /// Makes a change that follows from what this node has seen as the controller of a term. It never goes to another
    /// controller, which has seen something else: brokers that this one missed while it was stopped are alive there.
    /// Returns whether the change is made.
    async fn decide_quietly(self: &Arc<Self>, cluster: &Cluster, term: u64, request: Request) -> bool {
        if cluster.leadership().term != term {
            return false;
        }
        let outcomes = self.submit_here(vec![request], false).await;
        for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            tracing::info!("the controller cannot make a change: {error}");
        }
        outcomes.iter().all(Result::is_ok)
    }
}

fn has_ended(cluster: &Cluster, broker: &BrokerImage) -> bool {
    let (id, incarnation) = (broker.registration.id, broker.registration.incarnation);
    match id == cluster.node_id {
        // Only one process can have the folder and the address of this node.
        true => incarnation != cluster.incarnation,
        false => cluster.processes.borrow().has_ended(id, incarnation),
    }
}

/// The calls of other nodes.
impl ControllerCalls for Arc<Controller> {
    fn change(&self, requests: Vec<Request>, validate_only: bool) -> BoxFuture<'_, Option<Changed>> {
        Box::pin(self.change_for_node(requests, validate_only))
    }

    fn heartbeat(&self, sent: Heartbeat) -> BoxFuture<'_, Option<Result<BrokerState, ApiError>>> {
        Box::pin(async move {
            let is_controller = self.cluster.as_ref().is_some_and(|cluster| cluster.is_controller());
            if !is_controller || self.metadata.version() == 0 {
                return None;
            }
            Some(self.heartbeat_here(sent).await)
        })
    }

    fn is_alive(&self, id: i32) -> bool {
        let image = self.metadata.image();
        let Some(cluster) = &self.cluster else { return false };
        image.broker(id).is_some_and(|broker| !broker.fenced && !has_ended(cluster, broker))
    }
}
