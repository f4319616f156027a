//! The operations of access control, as Kafka numbers them.

/// An operation that an access control entry allows or denies: Kafka's `AclOperation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i8)]
#[allow(missing_docs, reason = "the names are Kafka's and say it")]
pub enum AclOperation {
    Read = 3,
    Write = 4,
    Create = 5,
    Delete = 6,
    Alter = 7,
    Describe = 8,
    ClusterAction = 9,
    DescribeConfigs = 10,
    AlterConfigs = 11,
    IdempotentWrite = 12,
}

impl AclOperation {
    /// Every operation on a topic.
    pub const TOPIC: &'static [Self] = &[
        Self::Read,
        Self::Write,
        Self::Create,
        Self::Delete,
        Self::Alter,
        Self::Describe,
        Self::DescribeConfigs,
        Self::AlterConfigs,
    ];

    /// Every operation on a group.
    pub const GROUP: &'static [Self] =
        &[Self::Read, Self::Delete, Self::Describe, Self::DescribeConfigs, Self::AlterConfigs];

    /// Every operation on the cluster.
    pub const CLUSTER: &'static [Self] = &[
        Self::Create,
        Self::Alter,
        Self::Describe,
        Self::ClusterAction,
        Self::DescribeConfigs,
        Self::AlterConfigs,
        Self::IdempotentWrite,
    ];

    /// Returns the set as the bit field of Kafka's messages: bit N is operation N.
    #[must_use]
    pub const fn bits(operations: &[Self]) -> i32 {
        let (mut bits, mut at) = (0, 0);
        // A loop by index, since iterators do not run in constants.
        while at < operations.len() {
            bits |= 1 << operations[at] as i32;
            at += 1;
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These are the values that Kafka returns without an authorizer.
    #[test]
    fn bit_fields_are_kafkas() {
        assert_eq!(AclOperation::bits(AclOperation::TOPIC), 0b1101_1111_1000);
        assert_eq!(AclOperation::bits(AclOperation::GROUP), 0b1101_0100_1000);
        assert_eq!(AclOperation::bits(AclOperation::CLUSTER), 0b1_1111_1010_0000);
        assert_eq!(AclOperation::bits(&[]), 0);
    }
}
