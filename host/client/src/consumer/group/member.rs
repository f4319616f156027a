//! The task of the membership: joins inside a `poll`, sends heartbeats in between, leaves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_wire::ErrorCode;
use millstream_wire::messages::{HeartbeatRequest, LeaveGroupRequest, MemberIdentity};

use super::{Group, Membership, commit, join};
use crate::consumer::Inner;
use crate::consumer::record::TopicPartition;
use crate::consumer::state::{Mode, Wanted};
use crate::error::Error;
use crate::net::Lane;

/// The first version of LeaveGroup with several members.
const FIRST_WITH_MEMBERS: i16 = 3;

/// The heartbeats of a membership.
struct Heartbeats {
    last_success: Instant,
    /// The failures since then.
    failures: u32,
}

/// Runs until the consumer is closed.
pub(crate) async fn run(inner: Arc<Inner>, group: Arc<Group>) {
    let mut changes = inner.changes.subscribe();
    let mut failures = 0;
    let mut heartbeats = Heartbeats { last_success: Instant::now(), failures: 0 };
    let mut next_heartbeat = Instant::now();
    while !inner.is_closed() {
        changes.borrow_and_update();
        let Mode::Subscribed(topics) = inner.state.lock().mode.clone() else {
            let _ = changes.changed().await;
            continue;
        };
        if group.rebalancing() && inner.in_poll() {
            match rebalance(&inner, &group, &topics).await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    rebalance_failed(&inner, &group, error, failures).await;
                }
            }
            heartbeats = Heartbeats { last_success: Instant::now(), failures: 0 };
            next_heartbeat = Instant::now() + inner.config.heartbeat_interval;
            continue;
        }
        if group.membership().generation >= 0 && next_heartbeat <= Instant::now() {
            next_heartbeat = Instant::now() + heartbeat(&inner, &group, &mut heartbeats).await;
            continue;
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep_until(next_heartbeat.into()), if group.membership().generation >= 0 => {}
        }
    }
}

async fn rebalance(inner: &Arc<Inner>, group: &Arc<Group>, topics: &[Arc<str>]) -> Result<(), Error> {
    revoke(inner, group).await;
    let assigned = join::join(inner, group, topics).await?;
    inner.cluster.follow(assigned.iter().map(|partition| partition.topic.clone()));
    {
        let mut state = inner.state.lock();
        // The subscription changed meanwhile: join again.
        if state.mode != Mode::Subscribed(topics.to_vec()) {
            return Ok(());
        }
        state.assign(assigned.iter().cloned(), Wanted::Committed, false);
        group.set_rebalancing(false);
    }
    tracing::debug!(group = &*group.id, partitions = assigned.len(), "joined the group");
    if let Some(listener) = inner.listener() {
        listener.assigned(&assigned).await;
    }
    inner.changed();
    Ok(())
}

/// Revokes all partitions: commits, calls the listener, stops fetching.
async fn revoke(inner: &Arc<Inner>, group: &Arc<Group>) {
    let (partitions, positions) = {
        let state = inner.state.lock();
        (state.partitions.keys().cloned().collect::<Vec<TopicPartition>>(), state.positions())
    };
    if partitions.is_empty() {
        return;
    }
    let member = group.membership().generation >= 0;
    if member && inner.config.enable_auto_commit {
        // The rebalance must not wait for a coordinator that is gone.
        let limit = inner.config.client.request_timeout;
        match tokio::time::timeout(limit, commit::commit(inner, group, &positions)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "offsets were not committed before a rebalance"),
            Err(_) => tracing::warn!("offsets were not committed before a rebalance: timed out"),
        }
    }
    if let Some(listener) = inner.listener() {
        match member {
            true => listener.revoked(&partitions).await,
            false => listener.lost(&partitions).await,
        }
    }
    inner.state.lock().assign([], Wanted::Nothing, false);
}

async fn rebalance_failed(inner: &Inner, group: &Group, error: Error, failures: u32) {
    let again = matches!(
        error.code(),
        Some(
            ErrorCode::UNKNOWN_MEMBER_ID
                | ErrorCode::ILLEGAL_GENERATION
                | ErrorCode::REBALANCE_IN_PROGRESS
                | ErrorCode::MEMBER_ID_REQUIRED
        )
    );
    if again || error.retriable() || error.code() == Some(ErrorCode::BROKER_NOT_AVAILABLE) {
        tracing::debug!(%error, "retrying the rebalance");
        tokio::time::sleep(inner.config.client.backoff(failures - 1)).await;
        return;
    }
    *group.membership.lock() = Membership::NONE;
    inner.fail(error);
    // Leaves the application time to poll again.
    tokio::time::sleep(inner.config.client.retry_backoff_max).await;
}

/// Sends one heartbeat. Returns the time until the next one.
///
/// If the coordinator is gone or has moved, the next heartbeat looks it up again. The new coordinator has loaded the
/// membership, so the member stays in the group as long as its session has not timed out.
async fn heartbeat(inner: &Inner, group: &Group, heartbeats: &mut Heartbeats) -> Duration {
    if !inner.in_poll() && group.last_poll.lock().elapsed() > inner.config.max_poll_interval {
        tracing::warn!(
            group = &*group.id,
            "no poll for longer than max.poll.interval.ms: the member leaves the group; poll more often, or \
             lower max.poll.records"
        );
        leave(inner, group).await;
        group.set_rebalancing(true);
        return inner.config.heartbeat_interval;
    }
    let membership = group.membership();
    let request = HeartbeatRequest {
        group_id: group.id.clone(),
        generation_id: membership.generation,
        member_id: membership.member_id,
        group_instance_id: group.instance_id.clone(),
    };
    let what = || format!("stay in group {}", &*group.id);
    let response = match group.ask(&inner.cluster, &request).await {
        Ok(response) => group.check(what, response.error_code, None),
        Err(error) => Err(error),
    };
    match response {
        Ok(()) => *heartbeats = Heartbeats { last_success: Instant::now(), failures: 0 },
        Err(error) => match error.code() {
            Some(code) if commit::lost_membership(code) => {
                tracing::debug!(group = &*group.id, %code, "must rejoin the group");
                heartbeats.last_success = Instant::now();
                group.set_rebalancing(true);
                inner.changed();
            }
            Some(code) if !code.retriable() && code != ErrorCode::BROKER_NOT_AVAILABLE => inner.fail(error),
            _ => {
                tracing::debug!(%error, "a heartbeat failed");
                let wait = inner.config.client.backoff(heartbeats.failures);
                heartbeats.failures = heartbeats.failures.saturating_add(1);
                if heartbeats.last_success.elapsed() > inner.config.session_timeout {
                    // The coordinator has removed this member by now.
                    group.membership.lock().generation = -1;
                    group.set_rebalancing(true);
                    inner.changed();
                }
                return wait.min(inner.config.heartbeat_interval);
            }
        },
    }
    inner.config.heartbeat_interval
}

/// Leaves the group, so that the other members need not wait for the session timeout. A static member stays, because
/// it is expected to return.
pub(crate) async fn leave(inner: &Inner, group: &Group) {
    let membership = std::mem::replace(&mut *group.membership.lock(), Membership::NONE);
    if membership.member_id.is_empty() || group.instance_id.is_some() {
        return;
    }
    let left = async {
        let connection = group.coordinator.connect(&inner.cluster, Lane::Main).await?;
        let mut request = LeaveGroupRequest { group_id: group.id.clone(), ..LeaveGroupRequest::default() };
        if connection.version::<LeaveGroupRequest>()? >= FIRST_WITH_MEMBERS {
            request.members = vec![MemberIdentity { member_id: membership.member_id, ..MemberIdentity::default() }];
        } else {
            request.member_id = membership.member_id;
        }
        connection.send(&request)?.wait(inner.config.client.request_timeout).await
    };
    if let Err(error) = left.await {
        tracing::debug!(%error, "the group did not get the request to leave");
    }
}
