//! JSON Pointers (RFC 6901).

use serde::Deserialize;

/// A pointer, split into its names. Empty for the whole document.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Pointer(Vec<String>);

impl Pointer {
    /// Returns the unescaped names along the path.
    pub(crate) fn tokens(&self) -> &[String] {
        &self.0
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
            assert_eq!(Pointer::try_from(text.to_owned()).unwrap().tokens(), tokens, "{text}");
        }
        for text in ["mag", "/a~2", "/a~"] {
            assert!(Pointer::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
