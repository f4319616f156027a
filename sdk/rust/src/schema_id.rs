//! The framing of Confluent's serializers: a byte 0, the id of the schema in four bytes, and the serialized data.

use crate::error::Result;

const MAGIC: u8 = 0;

/// Returns the five bytes that come before data of this schema.
///
/// ```
/// use millstream_sdk::schema_id;
/// assert_eq!(schema_id::header(258), [0, 0, 0, 1, 2]);
/// assert_eq!(schema_id::split(&[0, 0, 0, 1, 2, 7])?, (258, &[7][..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn header(id: u32) -> [u8; 5] {
    let [a, b, c, d] = id.to_be_bytes();
    [MAGIC, a, b, c, d]
}

/// Splits framed bytes into the id of the schema and the data.
///
/// # Errors
/// The bytes do not start with a header.
pub fn split(bytes: &[u8]) -> Result<(u32, &[u8])> {
    match bytes {
        [MAGIC, a, b, c, d, data @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), data)),
        [] => Err("there are no bytes, not even a schema id: the producer used no serializer with schemas".into()),
        [MAGIC, ..] => Err("only part of a schema id is there".into()),
        [first, ..] => {
            Err(format!("the first byte is {first}, not 0 before a schema id: the producer used another serializer")
                .into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_bytes_are_rejected_with_a_reason() {
        for (bytes, reason) in
            [(&b""[..], "no bytes"), (b"\0\0\0\x01", "only part"), (b"{\"a\":1}", "the first byte is 123")]
        {
            let error = split(bytes).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        assert_eq!(split(&header(u32::MAX)).unwrap(), (u32::MAX, &[][..]));
    }
}
