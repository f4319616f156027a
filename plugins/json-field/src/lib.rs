//! `json-field{"path":"/customer/id"}`: a partitioner by a field of the JSON value, or with `"in":"key"` of the JSON
//! key. Records with the same field go to the same partition.
//!
//! The partition is that of the `murmur2` partitioner for a key with the bytes of the field: a text without quotes and
//! escapes, `true` or `false`, or a number as decimal digits, so that 7, 7.0 and 70e-1 are the same. For a record
//! without the field, or with `null`, [`Sticky`] chooses. A tombstone has no value, so on a compacted topic use a field
//! of the key. An object or an array is an error of its row, and so is other text than JSON.
#![forbid(unsafe_code)]

use millstream_sdk::json::{Found, Number, Pointer};
use millstream_sdk::{Columns, Partitioner, Partitions, Record, Result, Sticky, murmur2};
use serde::Deserialize;

/// Chooses by the hash of a field.
#[derive(Debug, Deserialize)]
pub struct JsonField {
    path: Pointer,
    #[serde(default, rename = "in")]
    place: Place,
    #[serde(skip)]
    sticky: Sticky,
}

/// Where the field is.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Place {
    #[default]
    Value,
    Key,
}

/// What a field says of the partition.
enum Choice {
    Hash(u32),
    Free,
    Unfit,
}

impl Partitioner for JsonField {
    /// The timestamps are for [`Sticky`].
    const COLUMNS: Columns = Columns::TIMESTAMPS.with(Columns::KEYS).with(Columns::VALUES);

    fn partition(&mut self, record: &Record<'_>, partitions: &Partitions<'_>) -> Result<u32> {
        let json = match self.place {
            Place::Value => record.value(),
            Place::Key => record.key(),
        };
        match json.map_or(Ok(Choice::Free), |json| self.path.find(json, choice))? {
            Choice::Hash(hash) => Ok((hash & 0x7fff_ffff) % partitions.count()),
            Choice::Free => Ok(self.sticky.partition(record, partitions)),
            Choice::Unfit => Err("the field is an object or an array: use the path of a text or a number in it".into()),
        }
    }
}

fn choice(found: Found<'_>) -> Choice {
    let number: String;
    let bytes = match found {
        Found::Nothing | Found::Null => return Choice::Free,
        Found::Other => return Choice::Unfit,
        Found::Text(text) => text.as_bytes(),
        Found::Bool(true) => b"true",
        Found::Bool(false) => b"false",
        Found::Number(Number::Whole(whole)) => {
            number = whole.to_string();
            number.as_bytes()
        }
        Found::Number(Number::Float(float)) => {
            // A negative zero is zero.
            number = (float + 0.0).to_string();
            number.as_bytes()
        }
    };
    Choice::Hash(murmur2(bytes))
}

millstream_sdk::partitioner!(JsonField);
