//! `key-set{"keys":["a","b"]}`: a filter that keeps the records whose key is in a set. A key that is not UTF-8 is
//! written in hex: `{"hex":"0000002a"}` is the 32-bit number 42. A record without a key is not kept.
#![forbid(unsafe_code)]

use std::collections::HashSet;

use millstream_sdk::{Columns, ConfigError, Filter, Record, Result};
use serde::Deserialize;

/// Keeps the records whose key is in a set.
#[derive(Debug, Deserialize)]
pub struct KeySet {
    keys: HashSet<Key>,
}

/// A key as the configuration writes it.
#[derive(Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "Written")]
struct Key(Vec<u8>);

#[derive(Deserialize)]
#[serde(untagged, expecting = "a key is a text such as \"a\", or {\"hex\":\"00ff\"}")]
enum Written {
    Text(String),
    Hex { hex: String },
}

impl TryFrom<Written> for Key {
    type Error = String;

    fn try_from(key: Written) -> Result<Self, String> {
        match key {
            Written::Text(text) => Ok(Key(text.into_bytes())),
            Written::Hex { hex } => {
                let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes());
                bytes.map(Key).map_err(|_| format!("`{hex}` is not hex: write two digits for each byte"))
            }
        }
    }
}

impl std::borrow::Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl Filter for KeySet {
    const COLUMNS: Columns = Columns::KEYS;

    fn prepare(&mut self) -> Result<(), ConfigError> {
        if self.keys.is_empty() {
            return Err(ConfigError::new("/keys", "there are no keys: no record would be kept"));
        }
        Ok(())
    }

    fn keep(&self, record: &Record<'_>) -> Result<bool> {
        Ok(record.key().is_some_and(|key| self.keys.contains(key)))
    }
}

millstream_sdk::filter!(KeySet);
