//! Strings that are slices of the frame they came in.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bytes::Bytes;

/// A shared, immutable UTF-8 string: [`Bytes`] that were checked once.
///
/// It compares, orders and hashes like a `str`, so that maps with this key accept a `&str` for lookups.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Str(Bytes);

impl Str {
    /// The empty string, without allocating.
    pub const EMPTY: Self = Self(Bytes::new());

    /// Makes a string from a literal, without a copy.
    #[must_use]
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// Makes a string from bytes, without a copy if they are UTF-8.
    ///
    /// Other bytes become `?`; Kafka uses the replacement character. A topic of that name is then rejected like
    /// any other bad name, and a client id in another encoding does no harm. Unlike the replacement character,
    /// `?` never makes the text longer.
    #[must_use]
    pub fn from_utf8_lossy(bytes: Bytes) -> Self {
        if std::str::from_utf8(&bytes).is_ok() {
            return Self(bytes);
        }
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            if !chunk.invalid().is_empty() {
                text.push('?');
            }
        }
        Self::from(text)
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // SAFETY: the only ways to make a `Str` are from a `str` and through the check in
        // `from_utf8_lossy`.
        #[allow(unsafe_code, reason = "checked once when read, not at each use")]
        unsafe {
            std::str::from_utf8_unchecked(&self.0)
        }
    }

    /// Returns a copy with its own memory. A decoded string shares its frame and keeps all of it alive.
    #[must_use]
    pub fn copied(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }

    /// Returns the bytes, shared.
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
    fn a_map_of_it_accepts_str() {
        let map = HashMap::from([(Str::from("orders"), 1)]);
        assert_eq!(map.get("orders"), Some(&1));
    }

    #[test]
    fn invalid_utf8_is_marked_and_never_longer() {
        for (bytes, text) in [
            (&b"ab\xff"[..], "ab?"),
            (b"\xff\xfe\xfd", "???"),
            (b"a\xe2\x82", "a?"),
            (b"\xed\xa0\x80", "???"),
            ("\u{fffd}é".as_bytes(), "\u{fffd}é"),
        ] {
            assert_eq!(Str::from_utf8_lossy(Bytes::from_static(bytes)), text);
            assert!(text.len() <= bytes.len());
        }
    }

    #[test]
    fn a_copy_does_not_share_memory() {
        let frame = Bytes::from(vec![b'a'; 100]);
        let shared = Str::from_utf8_lossy(frame.slice(..3));
        let copied = shared.copied();
        drop(shared);
        assert!(frame.is_unique());
        assert_eq!(copied, "aaa");
    }
}
