//! JSON Pointers (RFC 6901).

use std::fmt;

use serde_core::de::{self, Deserialize, Deserializer, Visitor};

use super::{Found, scan};
use crate::error::Result;

/// A JSON Pointer such as `/customer/id`, as a field of a configuration. An empty one points to the whole document.
///
/// ```
/// use millstream_sdk::json::{Found, Pointer};
///
/// let path: Pointer = "/customer/id".to_owned().try_into()?;
/// let is_seven = path.find(br#"{"customer":{"id":"seven"}}"#, |found| found == Found::Text("seven"))?;
/// assert!(is_seven);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// Calls `answer` with the field of a JSON text, and returns its result. The text is read only up to the field. Of
    /// several fields with the same name the first counts.
    ///
    /// # Errors
    /// The text is not JSON before or in the field.
    pub fn find<R>(&self, json: &[u8], answer: impl FnOnce(Found<'_>) -> R) -> Result<R> {
        Ok(scan::at(json, &self.0, answer).map_err(|error| format!("not JSON: {error}"))?)
    }
}

impl<'de> Deserialize<'de> for Pointer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text)
    }
}

/// Reads the text of a pointer. The SDK compiles without the macros of serde.
struct Text;

impl Visitor<'_> for Text {
    type Value = Pointer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON Pointer")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Pointer, E> {
        text.to_owned().try_into().map_err(E::custom)
    }
}

impl TryFrom<String> for Pointer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let Some(tokens) = text.strip_prefix('/') else {
            return if text.is_empty() {
                Ok(Pointer(Vec::new()))
            } else {
                Err(format!("`{text}` is not a JSON Pointer: it starts with /, such as /{text}"))
            };
        };
        tokens
            .split('/')
            .map(unescape)
            .collect::<Option<_>>()
            .map(Pointer)
            .ok_or_else(|| format!("`{text}` is not a JSON Pointer: ~ stands before 0 (for ~) or 1 (for /) alone"))
    }
}

fn unescape(token: &str) -> Option<String> {
    let mut pieces = token.split('~');
    let mut unescaped = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (escaped, rest) = [('0', '~'), ('1', '/')]
            .into_iter()
            .find_map(|(code, escaped)| piece.strip_prefix(code).map(|rest| (escaped, rest)))?;
        unescaped.push(escaped);
        unescaped.push_str(rest);
    }
    Some(unescaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc() {
        for (text, tokens) in [
            ("", &[][..]),
            ("/foo", &["foo"]),
            ("/foo/0", &["foo", "0"]),
            ("/", &[""]),
            ("/a~1b", &["a/b"]),
            ("/c%d", &["c%d"]),
            ("/m~0n", &["m~n"]),
            ("/~01", &["~1"]),
        ] {
            assert_eq!(Pointer::try_from(text.to_owned()).unwrap().0, tokens, "{text}");
        }
        for text in ["mag", "/a~2", "/a~"] {
            assert!(Pointer::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
