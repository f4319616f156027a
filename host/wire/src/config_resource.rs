//! The types of resources that have configs, as Kafka numbers them.

/// A type of resource with configs: Kafka's `ConfigResource.Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i8)]
#[allow(missing_docs, reason = "the names are Kafka's and say it")]
pub enum ConfigResourceType {
    Topic = 2,
    Broker = 4,
    BrokerLogger = 8,
    ClientMetrics = 16,
    Group = 32,
}

impl ConfigResourceType {
    /// Every type, by ascending number.
    pub const ALL: &'static [Self] = &[Self::Topic, Self::Broker, Self::BrokerLogger, Self::ClientMetrics, Self::Group];
}

impl From<ConfigResourceType> for i8 {
    fn from(kind: ConfigResourceType) -> Self {
        kind as Self
    }
}

impl TryFrom<i8> for ConfigResourceType {
    /// The number that is not a known type.
    type Error = i8;

    fn try_from(number: i8) -> Result<Self, i8> {
        Self::ALL.iter().copied().find(|&kind| kind as i8 == number).ok_or(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_types() {
        for &kind in ConfigResourceType::ALL {
            assert_eq!(ConfigResourceType::try_from(i8::from(kind)), Ok(kind));
        }
        assert_eq!(ConfigResourceType::try_from(0), Err(0));
        assert_eq!(ConfigResourceType::try_from(3), Err(3));
    }
}
