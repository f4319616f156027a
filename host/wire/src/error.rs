//! What can be wrong with bytes or with a message, and where.

use std::fmt;

/// Bytes that are not the message they should be, or a message that its version cannot express.
///
/// Boxed, since it stands in the result of every field that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireError(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    /// Name and version of the message, when known.
    message: Option<(&'static str, i16)>,
    /// Where in it: `topics[2].partitions[0].records`.
    path: String,
    kind: WireErrorKind,
}

/// What was wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireErrorKind {
    /// The input ends inside of a field.
    #[error("{needed} bytes needed, {left} left")]
    Truncated {
        /// Bytes that the field takes.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// A count of elements that what is left cannot hold.
    #[error("{count} elements of at least {least} bytes announced, {left} bytes left")]
    Count {
        /// The count as announced.
        count: usize,
        /// The least bytes that one element takes.
        least: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// Arrays that would take more memory than a frame of this size is given.
    #[error("{count} elements would take more memory than a message of this size is given")]
    Budget {
        /// The count as announced.
        count: usize,
    },
    /// A length or count below -1.
    #[error("length {0} is negative")]
    NegativeLength(i64),
    /// A null where the version does not allow one.
    #[error("null is not allowed here in this version")]
    Null,
    /// A variable-length integer of more than 32 bits.
    #[error("a varint has more than 32 bits")]
    Varint,
    /// Something longer than its type can be.
    #[error("{length} bytes or elements, {max} is the most")]
    TooLong {
        /// The length found.
        length: usize,
        /// The most that can be.
        max: usize,
    },
    /// A tagged field that repeats or stands before a lower one.
    #[error("tag {tag} follows tag {previous}")]
    TagOrder {
        /// The tag before it.
        previous: u32,
        /// The tag found.
        tag: u32,
    },
    /// A known tagged field that is shorter than its size says.
    #[error("tag {tag} leaves {left} bytes of its size unread")]
    TagSize {
        /// The tag found.
        tag: u32,
        /// Bytes that nothing claims.
        left: usize,
    },
    /// An API key that is not in [`apis`](crate::apis).
    #[error("API key {0} is not known")]
    UnknownApi(i16),
    /// A version that is out of range.
    #[error("version {version} is not supported, {first} to {last} are")]
    UnsupportedVersion {
        /// The version asked for.
        version: i16,
        /// The oldest that works.
        first: i16,
        /// The newest that works.
        last: i16,
    },
    /// A field of a request that is set, in a version that does not have it.
    #[error("is set, but this version does not have it")]
    NotInVersion,
    /// Records that stand in a file, where all has to be in memory.
    #[error("the records are not in memory")]
    External,
    /// The length of a frame that is not positive or above the cap.
    #[error("a frame of {length} bytes is refused: 1 to {max} are allowed")]
    FrameLength {
        /// The length as announced.
        length: i32,
        /// The cap.
        max: usize,
    },
}

impl WireError {
    pub(crate) fn new(kind: WireErrorKind) -> Self {
        Self(Box::new(Inner { message: None, path: String::new(), kind }))
    }

    /// What was wrong, without where.
    #[must_use]
    pub fn kind(&self) -> &WireErrorKind {
        &self.0.kind
    }

    /// Where it was: `topics[2].partitions[0].records`, empty for the message as a whole.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// For the derive: the field is set in a version that does not have it.
    #[doc(hidden)]
    #[must_use]
    pub fn not_in_version() -> Self {
        Self::new(WireErrorKind::NotInVersion)
    }

    /// For the derive: puts a field before the path, from the inside out.
    #[doc(hidden)]
    #[must_use]
    pub fn in_field(mut self, name: &str) -> Self {
        let dot = if self.0.path.is_empty() || self.0.path.starts_with('[') { "" } else { "." };
        self.0.path = format!("{name}{dot}{}", self.0.path);
        self
    }

    pub(crate) fn in_element(mut self, index: usize) -> Self {
        let dot = if self.0.path.is_empty() { "" } else { "." };
        self.0.path = format!("[{index}]{dot}{}", self.0.path);
        self
    }

    /// For the derive: names the message.
    #[doc(hidden)]
    #[must_use]
    pub fn in_message(mut self, name: &'static str, version: i16) -> Self {
        self.0.message.get_or_insert((name, version));
        self
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, version)) = self.0.message {
            write!(f, "{name} v{version}: ")?;
        }
        if !self.0.path.is_empty() {
            write!(f, "{}: ", self.0.path)?;
        }
        self.0.kind.fmt(f)
    }
}

impl std::error::Error for WireError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_message_path_and_fault() {
        let error = WireError::new(WireErrorKind::Null).in_field("name").in_element(2).in_field("topics");
        assert_eq!(error.path(), "topics[2].name");
        let error = error.in_message("MetadataRequest", 9);
        assert_eq!(error.to_string(), "MetadataRequest v9: topics[2].name: null is not allowed here in this version");
    }
}
