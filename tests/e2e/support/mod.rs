//! Helpers of the tests that work on bytes: a raw connection, sound and forged batches, common calls, and what can be
//! seen of the process from outside.

mod batches;
mod calls;
mod every;
mod host;
mod raw;
mod transactional;

pub(crate) use batches::{At, batch, batch_at, builder, compressed, forge, now_ms, producer_batch};
pub(crate) use calls::{
    DELETE, SET, TOPIC, Topic, alter, alter_by, alter_request, creatable, create, fetch_request, fetched, values,
};
pub(crate) use every::{Visitor, minimal, minimal_body};
pub(crate) use host::{Memory, Neighbour, open_files, refused};
pub(crate) use raw::{Raw, request};
pub(crate) use transactional::{Committed, Protocol, TransactionalProducer, read_committed, transaction_coordinator};
