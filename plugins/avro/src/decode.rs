//! Writes Avro's binary encoding as JSON.

use millstream_sdk::Result;

use crate::types::{Id, Type, Types};

/// Values without bytes, such as `null`, could make very much out of little. A record has no more values than this for
/// each byte, and [`VALUES_FREE`] more.
const VALUES_A_BYTE: usize = 8;
const VALUES_FREE: usize = 10_000;

/// The most values inside each other, as readers of JSON have it.
const DEPTH_MAX: usize = 128;

/// Returns the JSON of the bytes of one value.
///
/// # Errors
/// The bytes are not those of a value of the schema.
pub(crate) fn decode(types: &Types, datum: &[u8]) -> Result<Vec<u8>> {
    let values_left = datum.len() * VALUES_A_BYTE + VALUES_FREE;
    let mut decoder = Decoder { types, rest: datum, out: Vec::with_capacity(datum.len() * 2), values_left, depth: 0 };
    let decoded = decoder.value(types.root);
    let at = datum.len() - decoder.rest.len();
    decoded.map_err(|error| format!("not Avro of the schema: {error} (at byte {at})"))?;
    if !decoder.rest.is_empty() {
        return Err(format!("not Avro of the schema: it ends at byte {at} of {}", datum.len()).into());
    }
    Ok(decoder.out)
}

struct Decoder<'a> {
    types: &'a Types,
    rest: &'a [u8],
    out: Vec<u8>,
    values_left: usize,
    depth: usize,
}

impl<'a> Decoder<'a> {
    fn value(&mut self, id: Id) -> Result<()> {
        if self.values_left == 0 {
            return Err("it has too many values without bytes".into());
        }
        if self.depth == DEPTH_MAX {
            return Err("it has too many values inside each other".into());
        }
        self.values_left -= 1;
        self.depth += 1;
        let types = self.types;
        let written = self.typed(types.get(id));
        self.depth -= 1;
        written
    }

    fn typed(&mut self, of: &Type) -> Result<()> {
        match of {
            Type::Null => self.out.extend_from_slice(b"null"),
            Type::Boolean => match self.take(1)? {
                [0] => self.out.extend_from_slice(b"false"),
                [1] => self.out.extend_from_slice(b"true"),
                other => return Err(format!("{} is no boolean", other[0]).into()),
            },
            Type::Int => {
                let number = self.long()?;
                let number = i32::try_from(number).map_err(|_| format!("{number} is no int"))?;
                serde_json::to_writer(&mut self.out, &number)?;
            }
            Type::Long => {
                let number = self.long()?;
                serde_json::to_writer(&mut self.out, &number)?;
            }
            Type::Float => {
                let number = f32::from_le_bytes(self.take(4)?.try_into()?);
                match special(number.into()) {
                    Some(text) => self.text(text)?,
                    None => serde_json::to_writer(&mut self.out, &number)?,
                }
            }
            Type::Double => {
                let number = f64::from_le_bytes(self.take(8)?.try_into()?);
                match special(number) {
                    Some(text) => self.text(text)?,
                    None => serde_json::to_writer(&mut self.out, &number)?,
                }
            }
            Type::Text => {
                let text = self.string()?;
                self.text(text)?;
            }
            Type::Bytes => {
                let length = self.length()?;
                self.latin(length)?;
            }
            Type::Fixed { size, .. } => self.latin(*size)?,
            Type::Enum { symbols, .. } => {
                let place = self.long()?;
                let symbol = usize::try_from(place).ok().and_then(|place| symbols.get(place));
                self.text(symbol.ok_or_else(|| format!("there is no symbol {place}"))?)?;
            }
            Type::Union(branches) => {
                let place = self.long()?;
                let branch = usize::try_from(place).ok().and_then(|place| branches.get(place));
                self.value(*branch.ok_or_else(|| format!("there is no branch {place}"))?)?;
            }
            Type::Array(items) => {
                self.out.push(b'[');
                self.blocks(|decoder| decoder.value(*items))?;
                self.out.push(b']');
            }
            Type::Map(of) => {
                self.out.push(b'{');
                self.blocks(|decoder| {
                    let name = decoder.string()?;
                    decoder.text(name)?;
                    decoder.out.push(b':');
                    decoder.value(*of)
                })?;
                self.out.push(b'}');
            }
            Type::Record { fields, .. } => {
                self.out.push(b'{');
                for (place, field) in fields.iter().enumerate() {
                    if place > 0 {
                        self.out.push(b',');
                    }
                    self.text(&field.name)?;
                    self.out.push(b':');
                    self.value(field.of)?;
                }
                self.out.push(b'}');
            }
        }
        Ok(())
    }

    /// Calls `item` for every item of all blocks of an array or a map.
    fn blocks(&mut self, mut item: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        let mut is_first = true;
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                // Its size in bytes follows, for readers that skip it.
                self.long()?;
            }
            for _ in 0..count.unsigned_abs() {
                if !is_first {
                    self.out.push(b',');
                }
                is_first = false;
                item(self)?;
            }
        }
    }

    fn string(&mut self) -> Result<&'a str> {
        let length = self.length()?;
        Ok(std::str::from_utf8(self.take(length)?)?)
    }

    fn length(&mut self) -> Result<usize> {
        let length = self.long()?;
        usize::try_from(length).map_err(|_| format!("a length of {length}").into())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or("it ends too early")?;
        self.rest = rest;
        Ok(taken)
    }

    fn long(&mut self) -> Result<i64> {
        let mut bits = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            bits |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed());
            }
        }
        Err("a number is longer than 64 bits".into())
    }

    fn text(&mut self, text: &str) -> Result<()> {
        Ok(serde_json::to_writer(&mut self.out, text)?)
    }

    /// Writes bytes as a text with one character for each.
    fn latin(&mut self, length: usize) -> Result<()> {
        let text: String = self.take(length)?.iter().copied().map(char::from).collect();
        self.text(&text)
    }
}

/// Returns the text for a number that JSON does not have.
fn special(number: f64) -> Option<&'static str> {
    match number {
        number if number.is_nan() => Some("NaN"),
        f64::INFINITY => Some("Infinity"),
        f64::NEG_INFINITY => Some("-Infinity"),
        _ => None,
    }
}
