//! Strings that are slices of the frame they came in.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bytes::Bytes;

use crate::error::{WireError, WireErrorKind};

/// A shared, immutable UTF-8 string: [`Bytes`] that were checked once.
///
/// It compares, orders and hashes as a `str` does, so that maps with it as the key can be asked with `&str`.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Str(Bytes);

impl Str {
    /// The empty string, without allocating.
    pub const EMPTY: Self = Self(Bytes::new());

    /// Of a literal, without copying.
    #[must_use]
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// Checks that the bytes are UTF-8, without copying.
    ///
    /// # Errors
    /// [`WireErrorKind::Utf8`] with the number of bytes that are valid.
    pub fn from_utf8(bytes: Bytes) -> Result<Self, WireError> {
        match std::str::from_utf8(&bytes) {
            Ok(_) => Ok(Self(bytes)),
            Err(error) => Err(WireError::new(WireErrorKind::Utf8 { valid_up_to: error.valid_up_to() })),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // SAFETY: the only ways to make a `Str` are from a `str` and through the check in `from_utf8`.
        #[allow(unsafe_code, reason = "checked once when read, not at each use")]
        unsafe {
            std::str::from_utf8_unchecked(&self.0)
        }
    }

    /// A copy with memory of its own: a decoded string shares that of its frame and keeps all of it alive.
    #[must_use]
    pub fn copied(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }

    /// The bytes, shared.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Deref for Str {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Str {
    fn as_ref(&self) -> &str {
        self
    }
}

impl Borrow<str> for Str {
    fn borrow(&self) -> &str {
        self
    }
}

impl Hash for Str {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl From<&str> for Str {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Str {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

impl From<&String> for Str {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<Str> for String {
    fn from(text: Str) -> Self {
        text.as_str().to_owned()
    }
}

impl PartialEq<str> for Str {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Str {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialEq<String> for Str {
    fn eq(&self, other: &String) -> bool {
        self.as_str() == other.as_str()
    }
}

impl fmt::Display for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Debug for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_map_of_it_answers_to_str() {
        let map = HashMap::from([(Str::from("orders"), 1)]);
        assert_eq!(map.get("orders"), Some(&1));
    }

    #[test]
    fn invalid_utf8_is_refused_with_its_place() {
        let error = Str::from_utf8(Bytes::from_static(b"ab\xff")).unwrap_err();
        assert_eq!(error.kind(), &WireErrorKind::Utf8 { valid_up_to: 2 });
    }

    #[test]
    fn a_copy_does_not_share_memory() {
        let frame = Bytes::from(vec![b'a'; 100]);
        let shared = Str::from_utf8(frame.slice(..3)).unwrap();
        let copied = shared.copied();
        drop(shared);
        assert!(frame.is_unique());
        assert_eq!(copied, "aaa");
    }
}
