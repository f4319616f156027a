//! The broker's edge: where the stages of a topic see records, for clients that know nothing of them.
//!
//! A produced batch of a topic with stages walks [`admit`]: it is checked like any other, shown to the filters of
//! `stage.admit`, written anew by [`rewrite`] where records were dropped or the codec is another one, and what was
//! dropped may go to [`dead_letters`]. `stage.compressor` packs what is stored; a format that only its plug-in reads is
//! in [`private_format`], and [`decoders`] gives it back in one of Kafka's. [`view`] is what a view shows of its
//! source. [`stages`] is the one file that calls plug-ins, and [`crate::compute_permits`] says how many of them run at
//! a time, [`inline_policy`] where.
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
