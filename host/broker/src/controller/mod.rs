//! Changes of the metadata: decided, made durable, applied, in this order.
//!
//! A change is checked against the image ([`decide`]) and against this node ([`apply::prepare`]: do its stages start?). Its
//! records are committed, and only then acted on ([`apply::apply`]). A stop in between is repaired at the next start, which
//! applies the whole image. Changes that arrive while others are being committed wait, and are committed together with one
//! fsync.

mod auto_create;
mod rules;

use std::sync::Arc;

use millstream_wire::ErrorCode;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use uuid::Uuid;

pub(crate) use auto_create::{ensure_topic, ensure_topics};
pub(crate) use rules::BrokerRules;

use crate::apply::{self, Prepared};
use crate::blocking::blocking;
use crate::broker::Broker;
use crate::error::ApiError;
use millstream_metadata::controller::{NewTopic, Request, decide};
use millstream_metadata::{Draft, MetadataImage, MetadataRecord};
use millstream_partition::now_ms;

type Outcome = Result<Vec<MetadataRecord>, ApiError>;

/// The changes that wait, and the lock under which they are made.
#[derive(Debug, Default)]
pub(crate) struct Controller {
    waiting: Mutex<Vec<Waiting>>,
    /// Held from the look at the image until the change is in force.
    changes: Arc<tokio::sync::Mutex<()>>,
}

/// The requests of one client that belong together. Each succeeds or fails by itself, on top of those before it.
#[derive(Debug)]
struct Waiting {
    requests: Vec<Request>,
    validate_only: bool,
    outcomes: oneshot::Sender<Vec<Outcome>>,
}

impl Controller {
    /// Keeps the metadata as it is while the guard lives. Blocks: call it where that is allowed.
    pub(crate) fn hold(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.changes.blocking_lock()
    }
}

/// Makes changes. Each succeeds or fails by itself; with `validate_only` nothing changes.
pub(crate) async fn submit(broker: &Arc<Broker>, requests: Vec<Request>, validate_only: bool) -> Vec<Outcome> {
    let count = requests.len();
    if requests.iter().any(has_stages) {
        warm_up(broker, requests.clone()).await;
    }
    let (outcomes, done) = oneshot::channel();
    broker.controller.waiting.lock().push(Waiting { requests, validate_only, outcomes });
    // A task of its own: a client that disconnects drops its own wait, not the change.
    tokio::spawn(carry_out_waiting(Arc::clone(broker)));
    let failed = || ApiError::new(ErrorCode::UNKNOWN_SERVER_ERROR, "the broker failed to carry the change out");
    done.await.unwrap_or_else(|_| vec![Err(failed()); count])
}

/// Makes one change.
pub(crate) async fn submit_one(broker: &Arc<Broker>, request: Request, validate_only: bool) -> Outcome {
    let outcomes = submit(broker, vec![request], validate_only).await;
    outcomes.into_iter().next().unwrap_or_else(|| Ok(Vec::new()))
}

async fn carry_out_waiting(broker: Arc<Broker>) {
    let changes = Arc::clone(&broker.controller.changes).lock_owned().await;
    let waiting = std::mem::take(&mut *broker.controller.waiting.lock());
    if waiting.is_empty() {
        // Another task has taken them all.
        return;
    }
    // The guard moves to the thread that works: the lock is free when the work is done, not when this future is dropped.
    let done = blocking(move || {
        let _changes = changes;
        carry_out(&broker, waiting);
    });
    if let Err(error) = done.await {
        tracing::error!("a change of the metadata failed: {error}");
    }
}

fn carry_out(broker: &Arc<Broker>, waiting: Vec<Waiting>) {
    let mut draft = broker.metadata.draft(now_ms());
    let mut prepared = Prepared::default();
    let mut decided = Vec::with_capacity(waiting.len());
    for Waiting { requests, validate_only, outcomes } in waiting {
        if validate_only {
            let done = plan(broker, &mut draft.trial(), &mut Prepared::default(), requests);
            reply(outcomes, done);
        } else {
            decided.push((outcomes, plan(broker, &mut draft, &mut prepared, requests)));
        }
    }
    let committed = broker.metadata.commit(&draft).map_err(ApiError::from);
    match &committed {
        Ok(()) => apply::apply(broker, &draft.delta(), prepared),
        Err(error) => {
            tracing::error!("a change of the metadata cannot be committed: {error}");
            // Partitions that were sealed for the change take records again.
            drop(prepared);
        }
    }
    for (outcomes, done) in decided {
        let done = done.into_iter().map(|outcome| outcome.and_then(|records| committed.clone().map(|()| records)));
        reply(outcomes, done.collect());
    }
}

fn plan(broker: &Arc<Broker>, draft: &mut Draft, prepared: &mut Prepared, requests: Vec<Request>) -> Vec<Outcome> {
    let plan_one = |request: Request| {
        let records = decide(draft.image(), &request, &BrokerRules { config: &broker.config })?;
        let about = altered(draft.image(), &request);
        prepared.extend(draft.add_if(&records, about, |delta| apply::prepare(broker, delta))?);
        Ok(records)
    };
    requests.into_iter().map(plan_one).collect()
}

/// Starts the stages of a topic that could not be started before, if they can be started now.
pub(crate) async fn restart_stages(broker: &Arc<Broker>, id: Uuid) {
    let changes = Arc::clone(&broker.controller.changes).lock_owned().await;
    let broker = Arc::clone(broker);
    let done = blocking(move || {
        let _changes = changes;
        apply::restart_stages(&broker, id);
    });
    if let Err(error) = done.await {
        tracing::error!("cannot start the stages of a topic: {error}");
    }
}

/// Returns the topic of an alteration. It is applied even if its configs stay the same: stages that failed are tried again.
fn altered(image: &MetadataImage, request: &Request) -> Option<Uuid> {
    match request {
        Request::AlterTopic { name, .. } => image.topic(name).map(|topic| topic.id),
        _ => None,
    }
}

fn reply(outcomes: oneshot::Sender<Vec<Outcome>>, done: Vec<Outcome>) {
    // The client may have disconnected.
    let _ = outcomes.send(done);
}

fn has_stages(request: &Request) -> bool {
    use millstream_metadata::controller::{ConfigChange, ConfigEdit};
    let is_stage = |name: &String| name.starts_with("stage.");
    match request {
        Request::CreateTopic(NewTopic { configs, .. })
        | Request::AlterTopic { change: ConfigChange::Replace(configs), .. } => configs.keys().any(is_stage),
        Request::AlterTopic { change: ConfigChange::Edit(edits), .. } => {
            edits.iter().any(|ConfigEdit { name, .. }| is_stage(name))
        }
        _ => false,
    }
}

/// Starts the stages that requests ask for and drops them again, without the lock. What has to be compiled is compiled now,
/// so that it does not hold up other changes.
async fn warm_up(broker: &Arc<Broker>, requests: Vec<Request>) {
    let broker = Arc::clone(broker);
    let work = move || {
        let mut draft = broker.metadata.draft(now_ms());
        for request in requests {
            let Ok(records) = decide(draft.image(), &request, &BrokerRules { config: &broker.config }) else {
                continue;
            };
            let about = altered(draft.image(), &request);
            // Errors show again under the lock.
            let _ = draft.add_if(&records, about, |delta| apply::prepare_stages(&broker, delta));
        }
    };
    if let Err(error) = blocking(work).await {
        tracing::error!("cannot start the stages of a change: {error}");
    }
}
