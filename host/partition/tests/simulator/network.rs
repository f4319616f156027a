//! The network between brokers.

use std::collections::BTreeSet;

use millstream_partition::replica::{FetchPosition, LogEnds, ReplicaResponse};

use crate::broker::Record;

/// A message between two brokers.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    Fetch { position: FetchPosition, ends: LogEnds, broker_epoch: i64 },
    Response { response: ReplicaResponse, records: Vec<Record> },
}

/// Messages on their way, and the links that are broken.
#[derive(Debug, Default)]
pub(crate) struct Network {
    messages: Vec<(u64, i32, i32, Message)>,
    broken: BTreeSet<(i32, i32)>,
    /// Nothing goes wrong any more.
    pub(crate) healed: bool,
}

impl Network {
    /// Sends a message. It may get lost, doubled or late, so that messages overtake each other.
    pub(crate) fn send(&mut self, random: &mut fastrand::Rng, now: u64, from: i32, to: i32, message: Message) {
        if self.healed {
            self.messages.push((now + 1, from, to, message));
            return;
        }
        if self.broken.contains(&(from, to)) || random.u32(0..100) < 5 {
            return;
        }
        if random.u32(0..100) < 4 {
            self.messages.push((now + random.u64(1..200), from, to, message.clone()));
        }
        let late = if random.u32(0..20) == 0 { 120 } else { 8 };
        self.messages.push((now + random.u64(1..late), from, to, message));
    }

    /// Returns a message that has arrived.
    pub(crate) fn receive(&mut self, now: u64) -> Option<(i32, i32, Message)> {
        let arrived = self.messages.iter().position(|(at, ..)| *at <= now)?;
        let (_, from, to, message) = self.messages.remove(arrived);
        Some((from, to, message))
    }

    /// Breaks or mends links: one direction, or both.
    pub(crate) fn change_links(&mut self, random: &mut fastrand::Rng, brokers: &[i32]) {
        let mut any = || *random.choice(brokers).expect("there are brokers");
        let (one, other) = (any(), any());
        if random.bool() {
            self.broken.clear();
        } else {
            self.broken.insert((one, other));
            if random.bool() {
                self.broken.insert((other, one));
            }
        }
    }

    /// Drops the messages to and from a broker that has crashed.
    pub(crate) fn forget(&mut self, broker: i32) {
        self.messages.retain(|(_, _, to, _)| *to != broker);
    }
}
