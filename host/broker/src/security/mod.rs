//! The permissions of clients. There is no authorizer yet, so every operation is allowed.

use std::fmt;

pub(crate) use millstream_wire::AclOperation;

/// The type of a resource that an ACL protects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResourceType {
    Topic,
    Group,
    Cluster,
    TransactionalId,
}

/// The permission that an authorizer would check before a request is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Permission {
    operation: AclOperation,
    resource: ResourceType,
}

impl Permission {
    pub(crate) const fn new(operation: AclOperation, resource: ResourceType) -> Self {
        Self { operation, resource }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} on {:?}", self.operation, self.resource)
    }
}

/// Returns the field of a response that names the allowed operations, if the client asked for it.
pub(crate) const fn allowed_operations(requested: bool, operations: &[AclOperation]) -> i32 {
    /// Kafka's number for "not requested".
    const NOT_REQUESTED: i32 = i32::MIN;
    if requested { AclOperation::bits(operations) } else { NOT_REQUESTED }
}
