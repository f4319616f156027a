//! The choice of the replica that a consumer reads from (KIP-392): one in the rack of the consumer.

use millstream_metadata::MetadataImage;
use millstream_partition::Partition;
use millstream_partition::replica::ReadableFollower;

use crate::api::handler::RequestContext;
use crate::broker::Broker;

/// The first version in which a consumer names its rack, and may read from followers.
pub(super) const SINCE: i16 = 11;

/// The rack of a consumer, if its reads go to replicas in it.
pub(super) struct Reader<'a> {
    broker: &'a Broker,
    context: &'a RequestContext,
    image: std::sync::Arc<MetadataImage>,
    rack: &'a str,
}

impl<'a> Reader<'a> {
    /// Returns `None` for a consumer that reads from leaders: it names no rack or that of this broker, or
    /// `replica.selector.class` does not choose by rack.
    pub(super) fn new(broker: &'a Broker, context: &'a RequestContext, rack: &'a str) -> Option<Self> {
        let is_near = broker.config.rack.as_deref() == Some(rack);
        if !broker.config.selects_by_rack || context.version < SINCE || rack.is_empty() || is_near {
            return None;
        }
        Some(Self { broker, context, image: broker.metadata.image(), rack })
    }

    /// Returns the follower in the consumer's rack to read from, for a partition that this broker leads. It is in sync
    /// and has the offset. Of several ones it is the most recent.
    pub(super) fn preferred(&self, partition: &Partition, offset: i64) -> Option<i32> {
        let in_rack = |follower: &ReadableFollower| {
            let broker = self.image.broker(follower.id);
            broker.is_some_and(|broker| broker.is_active() && broker.registration.rack.as_deref() == Some(self.rack))
        };
        let near = partition.readable_followers(offset).into_iter().filter(in_rack);
        let near = near.filter(|follower| self.broker.endpoint(&self.context.connection, follower.id).is_some());
        near.max_by_key(|follower| (follower.end, follower.caught_up_at, follower.id)).map(|follower| follower.id)
    }
}
