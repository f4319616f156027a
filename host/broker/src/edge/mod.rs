//! The broker's edge: where the stages of a topic see records, for clients that know nothing of them.
//!
//! A produced batch of a topic with stages walks [`admit`]: it is checked like any other, shown to the filters of
//! `stage.admit`, written anew by [`rewrite`] where records were dropped or the codec is another one, and what was dropped
//! may go to [`dead_letters`]. `stage.compressor` packs what is stored; a format that only its plug-in reads is in
//! [`private_format`], and [`decoders`] gives it back in one of Kafka's. [`view`] is what a view shows of its source. [`stages`] is
//! the one file that calls plug-ins, and [`crate::compute_permits`] says how many of them run at a time, [`inline_policy`] where.
//!
//! Topics without stages never enter this module.

mod admit;
mod circles;
mod dead_letters;
mod decoders;
mod inline_policy;
pub(crate) mod plugins;
pub(crate) mod private_format;
mod rejected_producers;
mod rewrite;
mod stage_repair;
pub(crate) mod stages;
mod topic;
pub(crate) mod topic_stages;
pub(crate) mod view;

pub(crate) use admit::admit;
pub(crate) use dead_letters::{Written, check_size as check_dead_letter_size, check_topic as check_dead_letter_topic};
pub(crate) use decoders::{Decoders, Leaving, TopicDecoders};
pub(crate) use inline_policy::Pace;
pub(crate) use topic::{EdgePartition, EdgeTopic, Route, ServedTopic, ServedTopics};
