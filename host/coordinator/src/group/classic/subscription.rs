//! The topics that a group of consumers subscribes to.

use std::collections::BTreeSet;

use bytes::Bytes;
use millstream_wire::Str;
use millstream_wire::codec::{Versioned, from_bytes};
use millstream_wire::records::ConsumerProtocolSubscription;

use super::state::{ClassicGroup, ClassicState};

/// The protocol type of consumers, whose metadata is a subscription.
const CONSUMER: &str = "consumer";

impl ClassicGroup {
    /// Returns whether the members are consumers.
    pub(crate) fn is_of_consumers(&self) -> bool {
        self.protocol_type().is_some_and(|kind| &**kind == CONSUMER)
    }

    /// Returns the topics that the members subscribe to; `None` if the metadata of a member cannot be read.
    pub(crate) fn subscribed_topics(&self) -> Option<BTreeSet<Str>> {
        let mut topics = BTreeSet::new();
        if self.state() == ClassicState::Empty {
            return Some(topics);
        }
        if !self.is_of_consumers() {
            return None;
        }
        for member in self.members.values() {
            topics.extend(parse_subscription(&member.metadata(self.protocol.as_deref()))?);
        }
        Some(topics)
    }
}

/// Returns the topics of a subscription. Later versions only add fields, so a version newer than ours is read as our
/// newest.
fn parse_subscription(bytes: &Bytes) -> Option<Vec<Str>> {
    let newest = <ConsumerProtocolSubscription as Versioned>::VERSIONS.end();
    let (version, _) = bytes.split_first_chunk()?;
    let version = i16::from_be_bytes(*version).min(*newest);
    Some(from_bytes::<ConsumerProtocolSubscription>(bytes.slice(2..), version).ok()?.topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_is_parsed_and_a_broken_one_is_not() {
        let good = Bytes::from_static(&[0, 0, 0, 0, 0, 2, 0, 1, b'a', 0, 2, b'b', b'c', 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(parse_subscription(&good), Some(vec![Str::from("a"), Str::from("bc")]));
        assert_eq!(parse_subscription(&good.slice(..10)), None);
        assert_eq!(parse_subscription(&Bytes::new()), None);
        assert_eq!(parse_subscription(&Bytes::from_static(&[0, 1, 0x7f, 0xff, 0xff, 0xff, 0, 1, b'a'])), None);
    }
}
