//! Errors of the codec, with the place in the message.

use std::fmt;

/// Bytes that do not decode, or a message that its version cannot express.
///
/// Boxed, since it is part of the result of every field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireError(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    /// Name and version of the message, when known.
    message: Option<(&'static str, i16)>,
    /// The field: `topics[2].partitions[0].records`.
    path: String,
    kind: WireErrorKind,
}

/// The kinds of errors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireErrorKind {
    /// The input ends within a field.
    #[error("{needed} bytes are needed, {left} are left")]
    Truncated {
        /// The bytes that the field takes.
        needed: usize,
        /// The remaining bytes.
        left: usize,
    },
    /// A count of elements for which the remaining bytes are too few.
    #[error("{count} elements of at least {least} bytes do not fit in the {left} bytes that are left")]
    Count {
        /// The count.
        count: usize,
        /// The fewest bytes that one element takes.
        least: usize,
        /// The remaining bytes.
        left: usize,
    },
    /// Arrays that would take more memory than a frame of this size may.
    #[error("{count} elements take more memory than a message of this size may")]
    Budget {
        /// The count.
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
    /// A value that is longer than its type allows.
    #[error("{length} bytes or elements, at most {max} are allowed")]
    TooLong {
        /// The length.
        length: usize,
        /// The greatest length.
        max: usize,
    },
    /// A tagged field that repeats or that follows a higher tag.
    #[error("tag {tag} follows tag {previous}")]
    TagOrder {
        /// The tag before it.
        previous: u32,
        /// The tag.
        tag: u32,
    },
    /// A known tagged field that is shorter than its size says.
    #[error("tag {tag} is {left} bytes longer than its value")]
    TagSize {
        /// The tag.
        tag: u32,
        /// The bytes that were not read.
        left: usize,
    },
    /// An API key that is not in [`apis`](crate::apis).
    #[error("API key {0} is not known")]
    UnknownApi(i16),
    /// A version that is not supported.
    #[error("version {version} is not supported, versions {first} to {last} are")]
    UnsupportedVersion {
        /// The version.
        version: i16,
        /// The oldest supported version.
        first: i16,
        /// The newest supported version.
        last: i16,
    },
    /// A field of a request that is set in a version without it.
    #[error("the field is set, but this version does not have it")]
    NotInVersion,
    /// Records in a file, where all bytes have to be in memory.
    #[error("the records are not in memory")]
    External,
    /// A frame whose length is not positive or above the maximum.
    #[error("the frame length {length} is not between 1 and {max}")]
    FrameLength {
        /// The length.
        length: i32,
        /// The maximum.
        max: usize,
    },
}

impl WireError {
    pub(crate) fn new(kind: WireErrorKind) -> Self {
        Self(Box::new(Inner { message: None, path: String::new(), kind }))
    }

    /// Returns the kind of the error.
    #[must_use]
    pub fn kind(&self) -> &WireErrorKind {
        &self.0.kind
    }

    /// Returns the field: `topics[2].partitions[0].records`; empty for the message as a whole.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// Makes the error of a field that is set in a version without it. Used by the derive.
    #[doc(hidden)]
    #[must_use]
    pub fn not_in_version() -> Self {
        Self::new(WireErrorKind::NotInVersion)
    }

    /// Puts a field in front of the path. Used by the derive.
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

    /// Adds the name of the message. Used by the derive.
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
