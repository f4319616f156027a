//! A call, as a vector writes it.

use crate::BatchBuf;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// One call.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Call {
    pub(crate) call: Function,
    #[serde(default)]
    pub(crate) config: Map<String, Value>,
    #[serde(default)]
    pub(crate) topic: String,
    #[serde(default)]
    pub(crate) records: Vec<Record>,
    #[serde(default)]
    pub(crate) partitions: u32,
    #[serde(default)]
    pub(crate) load: Vec<u64>,
    #[serde(default)]
    pub(crate) data: Bytes,
    #[serde(default)]
    pub(crate) max: u32,
    /// Read by the test kit, not by the stage.
    #[serde(default, rename = "expect")]
    pub(crate) _expect: Value,
}

/// The function of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Function {
    Partition,
    Serialize,
    Deserialize,
    Compress,
    Decompress,
    Filter,
}

/// One record.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    #[serde(default)]
    timestamp: i64,
    key: Option<Bytes>,
    value: Option<Bytes>,
    #[serde(default)]
    headers: Vec<(String, Option<Bytes>)>,
}

impl Call {
    /// Returns the records as a batch.
    pub(crate) fn batch(&self) -> BatchBuf {
        let mut batch = BatchBuf::new(&self.topic);
        for record in &self.records {
            let headers: Vec<_> =
                record.headers.iter().map(|(name, value)| (name.as_str(), value.as_ref().map(Bytes::get))).collect();
            batch.push(
                record.timestamp,
                record.key.as_ref().map(Bytes::get),
                record.value.as_ref().map(Bytes::get),
                &headers,
            );
        }
        batch
    }
}

/// Bytes: a text if they are UTF-8, `{"hex":"00ff"}` otherwise.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "BytesText")]
pub(crate) struct Bytes(Vec<u8>);

#[derive(Deserialize)]
#[serde(untagged)]
enum BytesText {
    Text(String),
    Hex { hex: String },
}

impl Bytes {
    pub(crate) fn get(&self) -> &[u8] {
        &self.0
    }

    /// Returns bytes as a vector writes them.
    pub(crate) fn show(bytes: &[u8]) -> Value {
        match std::str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => json!({ "hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() }),
        }
    }
}

impl TryFrom<BytesText> for Bytes {
    type Error = &'static str;

    fn try_from(text: BytesText) -> Result<Self, Self::Error> {
        let hex = match text {
            BytesText::Text(text) => return Ok(Bytes(text.into_bytes())),
            BytesText::Hex { hex } => hex,
        };
        let pair = |pair: &[u8]| match pair {
            [high, low] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()
            }
            _ => None,
        };
        hex.as_bytes().chunks(2).map(pair).collect::<Option<_>>().map(Bytes).ok_or("hex must be pairs of digits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_both_ways() {
        for bytes in [&b"text"[..], &[0, 255], &[]] {
            let read: Bytes = serde_json::from_value(Bytes::show(bytes)).unwrap();
            assert_eq!(read.get(), bytes);
        }
        assert!(serde_json::from_value::<Bytes>(json!({"hex": "+f"})).is_err());
    }

    #[test]
    fn a_misspelt_field_is_an_error() {
        let error = serde_json::from_value::<Call>(json!({"call": "filter", "record": []})).unwrap_err();
        assert!(error.to_string().contains("unknown field `record`"), "{error}");
    }
}
