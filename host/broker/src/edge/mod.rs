//! The broker's edge: where the stages of a topic see records, for clients that know nothing of them.
//!
//! A produced batch of a topic with stages walks [`admit`]: it is checked like any other, shown to the filters of
//! `stage.admit`, written anew by [`rewrite`] where records were dropped or the codec is another one, and what was dropped
//! may go to [`dead_letter`]. `stage.compressor` packs what is stored; a format that only its plug-in reads is in
//! [`private`], and [`decoders`] gives it back in one of Kafka's. [`view`] is what a view shows of its source. [`stages`] is
//! the one file that calls plug-ins, and [`crate::turns`] says how many of them run at a time, [`pace`] where.
//!
//! A topic without stages comes by none of it.

mod admit;
mod dead_letter;
mod decoders;
mod pace;
pub(crate) mod private;
mod rewrite;
pub(crate) mod stages;
pub(crate) mod view;

pub(crate) use admit::admit;
pub(crate) use dead_letter::{Written, check_topic as check_dead_letter_topic};
pub(crate) use decoders::{Decoders, Leaving, TopicDecoders};
pub(crate) use pace::Pace;
pub(crate) use rewrite::recode;
