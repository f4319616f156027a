//! The broker's edge: where the stages of a topic process records, for clients that do not know of them.
//!
//! | File | Subject |
//! |---|---|
//! | `context.rs` | what all of the edge works with, and what it asks of the controller |
//! | `leaders.rs`, `calls.rs` | work at the broker that leads a partition, and the calls of other brokers |
//! | `topic.rs` | the edge's state of a topic and its partitions, and the route of produced batches |
//! | `topic_stages.rs`, `stage_repair.rs` | the stages that a topic's configs name, and retries if they do not start |
//! | `admit.rs`, `pending.rs` | a produced batch: filters and compressor, and what has to be committed before it |
//! | `rewrite.rs`, `rejected_producers.rs` | batches with fewer records, and producers that are rejected often |
//! | `dead_letters.rs`, `dead_letter_records.rs`, `dead_letter_topic.rs` | records that a stage does not keep |
//! | `dead_letter_transaction.rs` | dead letters in the transaction of their records |
//! | `dead_letter_rules.rs` | which topics can take dead letters |
//! | `private_format.rs`, `decoders.rs` | batches that only a plug-in reads, and the plug-ins that read them |
//! | `view/`, `circles.rs` | views of a topic, and configs by which records would flow in a circle |
//! | `plugins/` | the plug-ins of the broker |
//! | `stages.rs` | the one file that calls stages |
//! | `inline_policy.rs` | whether stages run where the socket is served |
//!
//! The edge knows the core ([`crate::topics`], [`crate::produce`]), but neither handlers nor the controller. Batches of
//! topics without stages never enter this module.

mod admit;
mod calls;
mod circles;
mod context;
mod dead_letter_records;
pub(crate) mod dead_letter_rules;
mod dead_letter_topic;
mod dead_letter_transaction;
mod dead_letters;
mod decoders;
mod inline_policy;
mod leaders;
mod pending;
pub(crate) mod plugins;
pub(crate) mod private_format;
mod rejected_producers;
mod rewrite;
mod stage_repair;
pub(crate) mod stages;
mod topic;
pub(crate) mod topic_stages;
pub(crate) mod view;

pub(crate) use admit::{Admission, admit};
pub(crate) use calls::EdgeService;
pub(crate) use context::{BoxFuture, Edge, MetadataChanges};
pub(crate) use dead_letters::{Written, write_of_views};
pub(crate) use decoders::TopicDecoders;
pub(crate) use pending::{Admitted, PendingAppend};
pub(crate) use topic::{EdgePartition, EdgeTopic, Route, ServedTopic, ServedTopics};
