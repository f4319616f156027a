//! `header{"name":"type","equals":"order"}`: a filter that keeps the records with a header of that name. With one of
//! `equals`, `prefix` and `contains`, the value of the header counts too, byte for byte.
//!
//! If a name repeats, its last header counts, as with Kafka's `lastHeader`. A header whose value is null is there, but
//! fits no text.
#![forbid(unsafe_code)]

use millstream_sdk::{Columns, ConfigError, Filter, Record, Result};
use serde::Deserialize;

/// Keeps the records with a header.
#[derive(Debug, Deserialize)]
pub struct Header {
    name: String,
    equals: Option<String>,
    prefix: Option<String>,
    contains: Option<String>,
}

impl Filter for Header {
    const COLUMNS: Columns = Columns::HEADERS;

    fn prepare(&mut self) -> Result<(), ConfigError> {
        let texts = [("/equals", &self.equals), ("/prefix", &self.prefix), ("/contains", &self.contains)];
        let mut given = texts.iter().filter(|(_, text)| text.is_some());
        given.next();
        match given.next() {
            Some((field, _)) => Err(ConfigError::new(*field, "use only one of equals, prefix and contains")),
            None => Ok(()),
        }
    }

    fn keep(&self, record: &Record<'_>) -> Result<bool> {
        let Some((_, value)) = record.headers().rev().find(|(name, _)| *name == self.name) else {
            return Ok(false);
        };
        Ok(match (&self.equals, &self.prefix, &self.contains) {
            (Some(text), _, _) => value.is_some_and(|value| value == text.as_bytes()),
            (_, Some(text), _) => value.is_some_and(|value| value.starts_with(text.as_bytes())),
            (_, _, Some(text)) => value.is_some_and(|value| holds(value, text.as_bytes())),
            (None, None, None) => true,
        })
    }
}

fn holds(value: &[u8], text: &[u8]) -> bool {
    memchr::memmem::find(value, text).is_some()
}

millstream_sdk::filter!(Header);
