//! Text of arguments and of output.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;

/// The first millisecond of the year 10000, which RFC 3339 cannot represent.
const YEAR_10000_MS: i64 = 253_402_300_800_000;

/// Splits `KEY=VALUE`.
pub(crate) fn pair(text: &str) -> anyhow::Result<(&str, &str)> {
    let (key, value) = text.split_once('=').context("expected KEY=VALUE")?;
    anyhow::ensure!(!key.trim().is_empty(), "the key is empty in {text:?}; expected KEY=VALUE");
    Ok((key.trim(), value))
}

/// Replaces the escapes `\t`, `\n`, `\r`, `\0` and `\\`.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        let plain = match character {
            '\\' => match rest.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('0') => '\0',
                Some('\\') | None => '\\',
                Some(other) => {
                    bytes.push(b'\\');
                    other
                }
            },
            character => character,
        };
        bytes.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes());
    }
    bytes
}

/// Formats bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Formats a time in milliseconds since the epoch as `2026-11-22T17:03:09.123Z`. A time that RFC 3339 cannot represent
/// is formatted as its number.
pub(crate) fn utc(ms: i64) -> String {
    match u64::try_from(ms) {
        Ok(since_epoch) if ms < YEAR_10000_MS => {
            humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(since_epoch)).to_string()
        }
        _ => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_need_a_key() {
        assert_eq!(pair("a=b=c").unwrap(), ("a", "b=c"));
        assert_eq!(pair("a=").unwrap(), ("a", ""));
        assert!(pair("a").is_err() && pair("=b").is_err());
    }

    #[test]
    fn escapes_are_those_of_a_shell() {
        assert_eq!(unescape(r"a\tb\n\\t\x\"), b"a\tb\n\\t\\x\\");
        assert_eq!(unescape("é"), "é".as_bytes());
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(utc(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(utc(1_795_366_989_123), "2026-11-22T17:03:09.123Z");
        assert_eq!(utc(YEAR_10000_MS - 1), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn times_beyond_rfc_3339_are_numbers() {
        assert_eq!(utc(-1), "-1ms");
        assert_eq!(utc(YEAR_10000_MS), "253402300800000ms");
        assert_eq!(utc(i64::MAX), format!("{}ms", i64::MAX));
    }
}
