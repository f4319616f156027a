//! The broker's edge: where the stages of a topic process records, for clients that do not know of them.
//!
//! A produced batch of a topic with stages passes through [`admit`]. It is checked like any other, and the filters of
//! `stage.admit` decide which records to keep. [`rewrite`] rewrites it if records were dropped or the codec differs,
//! and dropped records may go to [`dead_letters`]. `stage.compressor` packs what is stored. A format that only its
//! plug-in reads is in [`private_format`], and [`decoders`] converts it back to one of Kafka's. [`view`] is what a view
//! shows of its source. Only [`stages`] calls plug-ins. [`crate::compute_permits`] limits how many of them run at a
//! time, and [`inline_policy`] decides where.
//!
//! Topics without stages never enter this module.

mod admit;
mod circles;
mod context;
mod dead_letter_topic;
mod dead_letters;
mod decoders;
mod inline_policy;
mod letters;
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
pub(crate) use context::{BoxFuture, Edge, MetadataChanges};
pub(crate) use dead_letters::{Written, write_of_views};
pub(crate) use decoders::TopicDecoders;
pub(crate) use pending::{Admitted, PendingAppend};
pub(crate) use topic::{EdgeTopic, Route, ServedTopic, ServedTopics};
