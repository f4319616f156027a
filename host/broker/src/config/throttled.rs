//! The replicas whose replication is throttled: the value of two topic configs.

use super::value::list;

/// Replicas of one topic, each as partition and broker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum ThrottledReplicas {
    #[default]
    None,
    All,
    Some(Vec<(i32, i32)>),
}

impl ThrottledReplicas {
    /// Parses `*`, or a list such as `0:1,0:2`. Returns `None` if the text is neither.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.trim() == "*" {
            return Some(Self::All);
        }
        let number = |text: &str| text.parse::<i32>().ok().filter(|number| *number >= 0);
        let replica = |text: &str| {
            let (partition, broker) = text.split_once(':')?;
            Some((number(partition)?, number(broker)?))
        };
        let named = list(text).into_iter().filter(|element| !element.is_empty());
        let replicas = named.map(replica).collect::<Option<Vec<_>>>()?;
        Some(if replicas.is_empty() { Self::None } else { Self::Some(replicas) })
    }

    /// Returns whether the replica of a partition on a broker is one of them.
    pub(crate) fn contains(&self, partition: i32, broker: i32) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Some(replicas) => replicas.contains(&(partition, broker)),
        }
    }
}
