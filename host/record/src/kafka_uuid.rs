//! Kafka's text form of a UUID.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use uuid::Uuid;

/// Prints and parses a UUID as Kafka does: URL-safe base64 of its 16 bytes without padding, 22 characters.
///
/// Topic ids, directory ids and cluster ids have this form in Kafka's files and in the output of its tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KafkaUuid(pub Uuid);

/// Length of the text form in characters.
const TEXT_LEN: usize = 22;

impl fmt::Display for KafkaUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; TEXT_LEN];
        BASE64URL_NOPAD.encode_mut(self.0.as_bytes(), &mut text);
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

/// The error for a text that is not a UUID in Kafka's form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a UUID as Kafka writes it: {TEXT_LEN} characters of URL-safe base64")]
pub struct ParseKafkaUuidError(String);

impl FromStr for KafkaUuid {
    type Err = ParseKafkaUuidError;

    fn from_str(text: &str) -> Result<Self, ParseKafkaUuidError> {
        let mut bytes = [0; 16];
        // The decoder panics if the output's length does not match the input's.
        if text.len() != TEXT_LEN || BASE64URL_NOPAD.decode_mut(text.as_bytes(), &mut bytes).is_err() {
            return Err(ParseKafkaUuidError(text.to_owned()));
        }
        Ok(Self(Uuid::from_bytes(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_written_as_kafka_does() {
        // Made by org.apache.kafka.common.Uuid; the first two are its reserved ids.
        for (id, text) in [
            (0, "AAAAAAAAAAAAAAAAAAAAAA"),
            (1, "AAAAAAAAAAAAAAAAAAAAAQ"),
            (u128::MAX, "_____________________w"),
            (0x0123_4567_89ab_cdef_0123_4567_89ab_cdef, "ASNFZ4mrze8BI0VniavN7w"),
        ] {
            let id = KafkaUuid(Uuid::from_u128(id));
            assert_eq!(id.to_string(), text);
            assert_eq!(text.parse(), Ok(id));
        }
        let (short, not_zero, standard) = ("AAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAB", "AAAAAAAAAAAAAAAAAAAA+A");
        for bad in ["", short, not_zero, standard, "ééééééééééé"] {
            assert_eq!(bad.parse::<KafkaUuid>(), Err(ParseKafkaUuidError(bad.to_owned())), "{bad:?}");
        }
        assert_eq!(format!("{:>24}", KafkaUuid(Uuid::nil())), "  AAAAAAAAAAAAAAAAAAAAAA", "it is padded in a table");
    }
}
