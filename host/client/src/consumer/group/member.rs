//! The task that keeps the membership: joins when `poll` lets it, beats in between, leaves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_wire::ErrorCode;
use millstream_wire::messages::{HeartbeatRequest, LeaveGroupRequest, MemberIdentity};

use super::{Group, Membership, commit, join};
use crate::consumer::Inner;
use crate::consumer::record::TopicPartition;
use crate::consumer::state::{Mode, Wanted};
use crate::error::Error;

/// The first version of LeaveGroup that names several members.
const FIRST_WITH_MEMBERS: i16 = 3;

/// Runs until the consumer is closed.
pub(crate) async fn run(inner: Arc<Inner>, group: Arc<Group>) {
    let mut changes = inner.changes.subscribe();
    let mut failures = 0;
    // The last sign of life from the coordinator.
    let mut alive = Instant::now();
    let mut next_beat = Instant::now();
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
            (alive, next_beat) = (Instant::now(), Instant::now() + inner.config.heartbeat_interval);
            continue;
        }
        if group.membership().generation >= 0 && next_beat <= Instant::now() {
            next_beat = Instant::now() + beat(&inner, &group, &mut alive).await;
            continue;
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep_until(next_beat.into()), if group.membership().generation >= 0 => {}
        }
    }
}

async fn rebalance(inner: &Arc<Inner>, group: &Arc<Group>, topics: &[Arc<str>]) -> Result<(), Error> {
    give_up(inner, group).await;
    let assigned = join::join(inner, group, topics).await?;
    inner.cluster.follow(assigned.iter().map(|partition| partition.topic.clone()));
    {
        let mut state = inner.state.lock();
        // Subscribed to something else meanwhile: once more.
        if state.mode != Mode::Subscribed(topics.to_vec()) {
            return Ok(());
        }
        state.assign(assigned.iter().cloned(), Wanted::Committed, false);
        group.set_rebalancing(false);
    }
    tracing::debug!(group = &*group.id, partitions = assigned.len(), "joined");
    if let Some(listener) = inner.listener() {
        listener.assigned(&assigned).await;
    }
    inner.changed();
    Ok(())
}

/// Gives all partitions back: commits, tells the listener, stops fetching.
async fn give_up(inner: &Arc<Inner>, group: &Arc<Group>) {
    let (partitions, positions) = {
        let state = inner.state.lock();
        (state.partitions.keys().cloned().collect::<Vec<TopicPartition>>(), state.positions())
    };
    if partitions.is_empty() {
        return;
    }
    let member = group.membership().generation >= 0;
    if member && inner.config.enable_auto_commit {
        // A group that waits must not wait for a coordinator that is gone.
        let limit = inner.config.client.request_timeout;
        match tokio::time::timeout(limit, commit::commit(inner, group, &positions)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "offsets were not committed before a rebalance"),
            Err(_) => tracing::warn!("offsets were not committed before a rebalance: no answer"),
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
        tracing::debug!(%error, "the rebalance begins again");
        tokio::time::sleep(inner.config.client.backoff(failures - 1)).await;
        return;
    }
    *group.membership.lock() = Membership::NONE;
    inner.fail(error);
    // Until the application polls again.
    tokio::time::sleep(inner.config.client.retry_backoff_max).await;
}

/// One heartbeat; the answer is when the next one is due.
async fn beat(inner: &Inner, group: &Group, alive: &mut Instant) -> Duration {
    if !inner.in_poll() && group.last_poll.lock().elapsed() > inner.config.max_poll_interval {
        tracing::warn!(
            group = &*group.id,
            "no poll for longer than max.poll.interval.ms: the member leaves; poll more often, or take fewer records"
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
    let answer = match group.ask(&inner.cluster, &request).await {
        Ok(answer) => group.check(what, answer.error_code, None),
        Err(error) => Err(error),
    };
    match answer {
        Ok(()) => *alive = Instant::now(),
        Err(error) => match error.code() {
            Some(code) if commit::lost_membership(code) => {
                tracing::debug!(group = &*group.id, %code, "must join again");
                *alive = Instant::now();
                group.set_rebalancing(true);
                inner.changed();
            }
            Some(code) if !code.retriable() && code != ErrorCode::BROKER_NOT_AVAILABLE => inner.fail(error),
            _ => {
                tracing::debug!(%error, "a heartbeat failed");
                if alive.elapsed() > inner.config.session_timeout {
                    // The coordinator counts this member out by now.
                    group.membership.lock().generation = -1;
                    group.set_rebalancing(true);
                    inner.changed();
                }
                return inner.config.client.backoff(0);
            }
        },
    }
    inner.config.heartbeat_interval
}

/// Leaves the group, so that the others need not wait for the session to end. A static member stays:
/// it will be back.
pub(crate) async fn leave(inner: &Inner, group: &Group) {
    let membership = std::mem::replace(&mut *group.membership.lock(), Membership::NONE);
    if membership.member_id.is_empty() || group.instance_id.is_some() {
        return;
    }
    let left = async {
        let node = group.coordinator(&inner.cluster).await?;
        let connection = inner.cluster.broker(node, crate::net::Lane::Main).await?;
        let mut request = LeaveGroupRequest { group_id: group.id.clone(), ..LeaveGroupRequest::default() };
        if connection.version::<LeaveGroupRequest>()? >= FIRST_WITH_MEMBERS {
            request.members = vec![MemberIdentity { member_id: membership.member_id, ..MemberIdentity::default() }];
        } else {
            request.member_id = membership.member_id;
        }
        connection.send(&request)?.wait(inner.config.client.request_timeout).await
    };
    if let Err(error) = left.await {
        tracing::debug!(%error, "the group was not told that this member leaves");
    }
}
