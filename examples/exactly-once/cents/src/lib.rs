//! A serializer: changes `17 19.99`, an order and its price, to `{"order":17,"cents":1999}`.
#![forbid(unsafe_code)]

use millstream_sdk::{Change, Record, Result, Serializer};
use serde::Deserialize;

/// Needs no configuration.
#[derive(Debug, Deserialize)]
pub struct Cents {}

impl Serializer for Cents {
    fn serialize(&self, record: &Record<'_>, change: &mut Change<'_>) -> Result<()> {
        let text = std::str::from_utf8(record.value().unwrap_or_default())?;
        let (order, price) = text.split_once(' ').ok_or("not an order and a price")?;
        let (whole, cents) = price.split_once('.').ok_or("the price has no point")?;
        let (order, whole, cents): (u64, u64, u64) = (order.parse()?, whole.parse()?, cents.parse()?);
        change.set_value(format!(r#"{{"order":{order},"cents":{}}}"#, whole * 100 + cents).as_bytes());
        Ok(())
    }

    fn deserialize(&self, _: &Record<'_>, _: &mut Change<'_>) -> Result<()> {
        Ok(())
    }
}

millstream_sdk::serializer!(Cents);
