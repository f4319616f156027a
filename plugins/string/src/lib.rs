//! `string`: a serializer that checks that keys and values are UTF-8, and changes nothing. Others are errors of their
//! rows.
#![forbid(unsafe_code)]

use millstream_sdk::{BadRows, Batch, Change, Changed, Column, Columns, Error, Record, Result, Serializer};
use serde::Deserialize;

/// Checks keys and values.
#[derive(Debug, Deserialize)]
pub struct Text {}

impl Serializer for Text {
    const COLUMNS: Columns = Columns::KEYS.with(Columns::VALUES);

    fn serialize(&self, record: &Record<'_>, _change: &mut Change<'_>) -> Result<()> {
        check(record)
    }

    fn deserialize(&self, record: &Record<'_>, _change: &mut Change<'_>) -> Result<()> {
        check(record)
    }

    fn serialize_batch(&self, batch: &Batch<'_>) -> Result<Changed, Error> {
        if !(is_text(batch.keys()) && is_text(batch.values())) {
            let mut bad = BadRows::new();
            for record in batch.records() {
                if let Err(error) = check(&record) {
                    bad.push(record.row(), error);
                }
            }
            bad.check()?;
        }
        Ok(Changed::default())
    }

    fn deserialize_batch(&self, batch: &Batch<'_>) -> Result<Changed, Error> {
        self.serialize_batch(batch)
    }
}

fn check(record: &Record<'_>) -> Result<()> {
    for (name, bytes) in [("key", record.key()), ("value", record.value())] {
        std::str::from_utf8(bytes.unwrap_or_default()).map_err(|error| format!("the {name} is not UTF-8: {error}"))?;
    }
    Ok(())
}

/// Returns whether all rows are UTF-8. Checks the column as one text, then that no row ends within a character.
fn is_text(column: Column<'_>) -> bool {
    std::str::from_utf8(column.data())
        .is_ok_and(|text| column.ends().iter().all(|end| text.is_char_boundary(*end as usize)))
}

millstream_sdk::serializer!(Text);
