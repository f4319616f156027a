//! Java's `.properties` format, which Kafka uses.
//!
//! The rules are those of `java.util.Properties.load`. Comments start with `#` or `!`. A key ends at the first `=`, `:`
//! or white space that is not escaped. A backslash at the end of a line joins the next one without its indentation.
//! `\t`, `\n`, `\r`, `\f` and `\uXXXX` are escapes, and any other escaped character stands for itself. One thing
//! differs: the file is read as UTF-8, where Java reads Latin-1.

use std::fmt;

/// One `key=value` of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Property {
    /// The key, unescaped.
    pub(crate) key: String,
    /// The value, unescaped. White space at its end is kept, as in Java.
    pub(crate) value: String,
    /// The line of the key, counted from 1.
    pub(crate) line: usize,
}

/// Why a text is not a properties file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PropertiesError {
    /// The line, counted from 1.
    pub(crate) line: usize,
    /// What is wrong with it.
    pub(crate) message: String,
}

impl fmt::Display for PropertiesError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}: {}", self.line, self.message)
    }
}

/// Parses every property in the order of the file. A key may occur twice; the caller lets the last one win.
pub(crate) fn parse(text: &str) -> Result<Vec<Property>, PropertiesError> {
    logical_lines(text).into_iter().map(|(line, text)| property(line, &text)).collect()
}

/// Joins continued lines and removes comments and blank lines. Returns each with the number of its first line.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let unified = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, raw) in unified.split('\n').enumerate() {
        let trimmed = raw.trim_start_matches(is_blank);
        let (start, mut joined) = match open.take() {
            Some(unfinished) => unfinished,
            None if trimmed.is_empty() || trimmed.starts_with(['#', '!']) => continue,
            None => (index + 1, String::new()),
        };
        let slashes = trimmed.bytes().rev().take_while(|&byte| byte == b'\\').count();
        if slashes % 2 == 1 {
            joined.push_str(&trimmed[..trimmed.len() - 1]);
            open = Some((start, joined));
        } else {
            joined.push_str(trimmed);
            lines.push((start, joined));
        }
    }
    lines.extend(open);
    lines.retain(|(_, line)| !line.is_empty());
    lines
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\u{c}')
}

fn property(line: usize, text: &str) -> Result<Property, PropertiesError> {
    let mut escaped = false;
    let end = text
        .char_indices()
        .find(|&(_, character)| {
            let ends = !escaped && (is_blank(character) || matches!(character, '=' | ':'));
            escaped = !escaped && character == '\\';
            ends
        })
        .map_or(text.len(), |(index, _)| index);
    let rest = text[end..].trim_start_matches(is_blank);
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start_matches(is_blank);
    Ok(Property { key: unescape(line, &text[..end])?, value: unescape(line, value)?, line })
}

fn unescape(line: usize, text: &str) -> Result<String, PropertiesError> {
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut characters = text.chars();
    let mut utf16 = [0; 2];
    while let Some(character) = characters.next() {
        let plain = if character != '\\' {
            character
        } else {
            match characters.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some('u') => {
                    units.push(hex_unit(line, &mut characters)?);
                    continue;
                }
                Some(other) => other,
                None => break,
            }
        };
        units.extend_from_slice(plain.encode_utf16(&mut utf16));
    }
    // Java's escapes are UTF-16 units, so a character outside the basic plane is written as two of them.
    String::from_utf16(&units)
        .map_err(|_| PropertiesError { line, message: "the \\u escapes hold half of a surrogate pair".to_owned() })
}

fn hex_unit(line: usize, characters: &mut std::str::Chars<'_>) -> Result<u16, PropertiesError> {
    let digits = characters.as_str().get(..4).unwrap_or_default();
    let unit = (digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .then(|| u16::from_str_radix(digits, 16).ok())
        .flatten();
    let unit =
        unit.ok_or_else(|| PropertiesError { line, message: "a \\u escape needs four hexadecimal digits".to_owned() })?;
    *characters = characters.as_str()[4..].chars();
    Ok(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        let parsed = parse(text).expect("a good file");
        parsed.into_iter().map(|property| (property.key, property.value)).collect()
    }

    fn pair(key: &str, value: &str) -> Vec<(String, String)> {
        vec![(key.to_owned(), value.to_owned())]
    }

    #[test]
    fn separators_and_white_space() {
        for text in ["a=b", "a:b", "a b", "  a = b", "\ta\t:\tb", "a  b", "a\u{c}=b", "a=b\r\n", "\u{feff}a=b"] {
            assert_eq!(pairs(text), pair("a", "b"), "{text:?}");
        }
        assert_eq!(pairs("a=b  "), pair("a", "b  "));
        assert_eq!(pairs("a==b"), pair("a", "=b"));
        assert_eq!(pairs("a"), pair("a", ""));
        assert_eq!(pairs("a="), pair("a", ""));
    }

    #[test]
    fn comments_and_blank_lines() {
        assert_eq!(pairs("# a=1\n\n ! b=2\\\nc=3\n   \n"), pair("c", "3"));
        assert_eq!(pairs("a=#1"), pair("a", "#1"));
    }

    #[test]
    fn continued_lines() {
        assert_eq!(pairs("a=1,\\\n    2,\\\n  3"), pair("a", "1,2,3"));
        assert_eq!(pairs("a=1\\\\\nb=2").len(), 2);
        assert_eq!(pairs("a=1\\\n#2"), pair("a", "1#2"));
        assert_eq!(pairs("a=1\\"), pair("a", "1"));
    }

    #[test]
    fn escapes() {
        assert_eq!(pairs(r"a\=b\:c\ d=\t\n\r\f\q\\"), pair("a=b:c d", "\t\n\r\u{c}q\\"));
        assert_eq!(pairs(r"a=\u00e9\ud83d\ude00"), pair("a", "é😀"));
        assert_eq!(parse("x=1\na=\\u12g4").expect_err("bad").line, 2);
        assert_eq!(parse("a=\\u12").expect_err("bad").line, 1);
        assert!(parse("a=\\ud83d").expect_err("bad").message.contains("surrogate"));
    }

    #[test]
    fn lines_are_those_of_the_keys() {
        let parsed = parse("a=1\\\n2\n# c\nb=3").expect("good");
        assert_eq!(parsed.iter().map(|property| property.line).collect::<Vec<_>>(), [1, 4]);
    }
}
