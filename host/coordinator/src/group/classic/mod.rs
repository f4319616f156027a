//! Groups of the classic protocol (JoinGroup, SyncGroup, Heartbeat, LeaveGroup), as a pure state machine.
//!
//! | File | Subject |
//! |---|---|
//! | `state.rs` | the group, its states and their transitions |
//! | `join.rs` | JoinGroup |
//! | `sync.rs` | SyncGroup |
//! | `session.rs` | Heartbeat, LeaveGroup, members that send no heartbeat |
//! | `member.rs` | one member |
//! | `subscription.rs` | the topics that consumers subscribe to |
//! | `model.rs` | requests, replies and effects |

mod join;
mod member;
pub(crate) mod model;
mod session;
#[cfg(test)]
mod simulator;
mod state;
#[cfg(test)]
mod state_tests;
mod subscription;
mod sync;

pub(crate) use state::{ClassicGroup, ClassicState};
