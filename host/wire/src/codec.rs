//! Decoding and encoding of each type of field.

use std::ops::RangeInclusive;

use bytes::Bytes;
use uuid::Uuid;

use crate::api::ApiKey;
use crate::error::{WireError, WireErrorKind};
use crate::error_code::ErrorCode;
use crate::reader::Reader;
use crate::text::Str;
use crate::writer::Writer;

/// A type that can be decoded and encoded at a version: a message, a struct in it, or a field.
pub trait Message: Sized {
    /// Decodes a value.
    ///
    /// # Errors
    /// The bytes are not such a value; the error has the path to the field.
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, WireError>;

    /// Encodes the value.
    ///
    /// # Errors
    /// The version cannot express the value; the error has the path to the field.
    fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), WireError>;

    /// Returns the fewest bytes that a value takes. It bounds the count of an array before anything is allocated.
    fn least_size(version: i16, flexible: bool) -> usize;
}

/// A message that a client sends, and that has a response.
pub trait Request: Message {
    /// The API key.
    const KEY: ApiKey;
    /// The versions that can be read and written.
    const VERSIONS: RangeInclusive<i16>;
    /// The first flexible version; `i16::MAX` when there is none.
    const FLEXIBLE: i16;
    /// The response.
    type Response: Message;

    /// Returns the version of the request's header.
    #[must_use]
    fn request_header_version(version: i16) -> i16 {
        Self::KEY.info().request_header_version(version)
    }

    /// Returns the version of the response's header.
    #[must_use]
    fn response_header_version(version: i16) -> i16 {
        Self::KEY.info().response_header_version(version)
    }
}

/// A message that stands alone and is not a request: a response, or the content of a record.
pub trait Versioned: Message {
    /// The versions that can be read and written.
    const VERSIONS: RangeInclusive<i16>;
}

/// A type that can be null on the wire, and is an `Option` here.
pub trait Nullable: Message + Default {
    /// Decodes a value or a null.
    ///
    /// # Errors
    /// As [`Message::decode`].
    fn decode_nullable(reader: &mut Reader, version: i16) -> Result<Option<Self>, WireError>;

    /// Encodes a null.
    ///
    /// # Errors
    /// None of the types here has one.
    fn encode_null(writer: &mut Writer) -> Result<(), WireError>;

    /// Encodes a value that could be null. A struct needs a byte in front to distinguish it from a null.
    ///
    /// # Errors
    /// As [`Message::encode`].
    fn encode_some(&self, writer: &mut Writer, version: i16) -> Result<(), WireError> {
        self.encode(writer, version)
    }

    /// Returns the fewest bytes that a value or a null takes.
    #[must_use]
    fn least_size_or_null(version: i16, flexible: bool) -> usize {
        Self::least_size(version, flexible)
    }
}

/// Implements [`Nullable`] for a struct: a byte stands in front, -1 for null and 1 for a value.
macro_rules! nullable_struct {
    ($type:ty) => {
        impl $crate::codec::Nullable for $type {
            fn decode_nullable(
                reader: &mut $crate::Reader,
                version: i16,
            ) -> ::core::result::Result<Option<Self>, $crate::WireError> {
                if <i8 as $crate::Message>::decode(reader, version)? < 0 {
                    return Ok(None);
                }
                <Self as $crate::Message>::decode(reader, version).map(Some)
            }

            fn encode_null(writer: &mut $crate::Writer) -> ::core::result::Result<(), $crate::WireError> {
                $crate::Message::encode(&-1_i8, writer, 0)
            }

            fn encode_some(
                &self,
                writer: &mut $crate::Writer,
                version: i16,
            ) -> ::core::result::Result<(), $crate::WireError> {
                $crate::Message::encode(&1_i8, writer, 0)?;
                $crate::Message::encode(self, writer, version)
            }

            fn least_size_or_null(_: i16, _: bool) -> usize {
                1
            }
        }
    };
}

pub(crate) use nullable_struct;

/// Encodes one message without a frame or a header.
///
/// # Errors
/// As [`Message::encode`], and for records that are not in memory.
pub fn to_bytes(message: &impl Message, version: i16) -> Result<Bytes, WireError> {
    let mut writer = Writer::new();
    message.encode(&mut writer, version)?;
    writer.into_body()
}

/// Decodes one message without a frame or a header.
///
/// # Errors
/// As [`Message::decode`].
pub fn from_bytes<M: Message>(bytes: Bytes, version: i16) -> Result<M, WireError> {
    M::decode(&mut Reader::new(bytes), version)
}

/// Encodes one message with the version in front in 16 bits: the form of keys and values in
/// `__consumer_offsets`, and of the messages that consumers exchange through the group coordinator.
///
/// # Errors
/// As [`to_bytes`].
pub fn to_versioned_bytes(message: &impl Versioned, version: i16) -> Result<Bytes, WireError> {
    let mut writer = Writer::new();
    writer.put(&version.to_be_bytes());
    message.encode(&mut writer, version)?;
    writer.into_body()
}

/// Decodes what [`to_versioned_bytes`] encoded, and returns it with its version.
///
/// # Errors
/// As [`Message::decode`], also for a version that is not known.
pub fn from_versioned_bytes<M: Versioned>(bytes: Bytes) -> Result<(i16, M), WireError> {
    let mut reader = Reader::new(bytes);
    let version = i16::from_be_bytes(reader.array()?);
    Ok((version, M::decode(&mut reader, version)?))
}

/// Decodes a message whose newer versions only add fields at the end: a newer version is read as
/// the newest known one.
pub(crate) fn from_versioned_bytes_or_newer<M: Versioned>(bytes: Bytes) -> Result<M, WireError> {
    let mut reader = Reader::new(bytes);
    let version = i16::from_be_bytes(reader.array()?);
    M::decode(&mut reader, version.min(*M::VERSIONS.end()))
}

/// Rejects a version that is not supported. Used by the derive.
#[doc(hidden)]
pub fn check_version(name: &'static str, version: i16, supported: RangeInclusive<i16>) -> Result<(), WireError> {
    if supported.contains(&version) {
        return Ok(());
    }
    let (first, last) = supported.into_inner();
    Err(WireError::new(WireErrorKind::UnsupportedVersion { version, first, last }).in_message(name, version))
}

/// Decodes an `Option` that is nullable in some versions only. Used by the derive.
#[doc(hidden)]
pub fn decode_option<T: Nullable>(reader: &mut Reader, version: i16, nullable: bool) -> Result<Option<T>, WireError> {
    if nullable { T::decode_nullable(reader, version) } else { T::decode(reader, version).map(Some) }
}

/// Encodes such an `Option`; a response writes an empty value where it cannot write a null. Used by the derive.
#[doc(hidden)]
pub fn encode_option<T: Nullable>(
    value: &Option<T>,
    writer: &mut Writer,
    version: i16,
    nullable: bool,
) -> Result<(), WireError> {
    match value {
        Some(value) if nullable => value.encode_some(writer, version),
        Some(value) => value.encode(writer, version),
        None if nullable => T::encode_null(writer),
        None if writer.strict() => Err(null()),
        None => T::default().encode(writer, version),
    }
}

fn null() -> WireError {
    WireError::new(WireErrorKind::Null)
}

impl<T: Nullable> Message for Option<T> {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, WireError> {
        T::decode_nullable(reader, version)
    }

    fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), WireError> {
        encode_option(self, writer, version, true)
    }

    fn least_size(version: i16, flexible: bool) -> usize {
        T::least_size_or_null(version, flexible)
    }
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Message for $type {
            #[inline]
            fn decode(reader: &mut Reader, _: i16) -> Result<Self, WireError> {
                reader.array().map(Self::from_be_bytes)
            }

            #[inline]
            fn encode(&self, writer: &mut Writer, _: i16) -> Result<(), WireError> {
                writer.put(&self.to_be_bytes());
                Ok(())
            }

            #[inline]
            fn least_size(_: i16, _: bool) -> usize {
                size_of::<Self>()
            }
        }
    )*};
}

numbers!(i8, i16, u16, i32, i64, f64);

impl Message for bool {
    fn decode(reader: &mut Reader, _: i16) -> Result<Self, WireError> {
        let [byte] = reader.array()?;
        Ok(byte != 0)
    }

    fn encode(&self, writer: &mut Writer, _: i16) -> Result<(), WireError> {
        writer.put(&[u8::from(*self)]);
        Ok(())
    }

    fn least_size(_: i16, _: bool) -> usize {
        1
    }
}

impl Message for Uuid {
    fn decode(reader: &mut Reader, _: i16) -> Result<Self, WireError> {
        reader.array().map(Self::from_bytes)
    }

    fn encode(&self, writer: &mut Writer, _: i16) -> Result<(), WireError> {
        writer.put(self.as_bytes());
        Ok(())
    }

    fn least_size(_: i16, _: bool) -> usize {
        16
    }
}

impl Message for ErrorCode {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, WireError> {
        i16::decode(reader, version).map(Self)
    }

    fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), WireError> {
        self.0.encode(writer, version)
    }

    fn least_size(version: i16, flexible: bool) -> usize {
        i16::least_size(version, flexible)
    }
}

impl Message for Str {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, WireError> {
        Self::decode_nullable(reader, version)?.ok_or_else(null)
    }

    fn encode(&self, writer: &mut Writer, _: i16) -> Result<(), WireError> {
        writer.string_length(Some(self.len()))?;
        writer.put(self.as_bytes());
        Ok(())
    }

    fn least_size(_: i16, flexible: bool) -> usize {
        if flexible { 1 } else { 2 }
    }
}

impl Nullable for Str {
    fn decode_nullable(reader: &mut Reader, _: i16) -> Result<Option<Self>, WireError> {
        let Some(length) = reader.string_length()? else {
            return Ok(None);
        };
        // The compact form allows more; Kafka accepts no more in either form.
        let max = i16::MAX as usize;
        if length > max {
            return Err(WireError::new(WireErrorKind::TooLong { length, max }));
        }
        Ok(Some(Self::from_utf8_lossy(reader.slice(length)?)))
    }

    fn encode_null(writer: &mut Writer) -> Result<(), WireError> {
        writer.string_length(None)
    }
}

impl Message for Bytes {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, WireError> {
        Self::decode_nullable(reader, version)?.ok_or_else(null)
    }

    fn encode(&self, writer: &mut Writer, _: i16) -> Result<(), WireError> {
        writer.bytes_length(Some(self.len()))?;
        writer.put_shared(self);
        Ok(())
    }

    fn least_size(_: i16, flexible: bool) -> usize {
        if flexible { 1 } else { 4 }
    }
}

impl Nullable for Bytes {
    fn decode_nullable(reader: &mut Reader, _: i16) -> Result<Option<Self>, WireError> {
        match reader.bytes_length()? {
            Some(length) => reader.slice(length).map(Some),
            None => Ok(None),
        }
    }

    fn encode_null(writer: &mut Writer) -> Result<(), WireError> {
        writer.bytes_length(None)
    }
}

impl<T: Message> Message for Vec<T> {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, WireError> {
        Self::decode_nullable(reader, version)?.ok_or_else(null)
    }

    fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), WireError> {
        writer.bytes_length(Some(self.len()))?;
        for (index, element) in self.iter().enumerate() {
            element.encode(writer, version).map_err(|error| error.in_element(index))?;
        }
        Ok(())
    }

    fn least_size(_: i16, flexible: bool) -> usize {
        if flexible { 1 } else { 4 }
    }
}

impl<T: Message> Nullable for Vec<T> {
    fn decode_nullable(reader: &mut Reader, version: i16) -> Result<Option<Self>, WireError> {
        let least = T::least_size(version, reader.flexible());
        let Some(count) = reader.array_count(least, size_of::<T>())? else {
            return Ok(None);
        };
        // The count was checked against what is left and charged to the budget.
        let mut elements = Self::with_capacity(count);
        for index in 0..count {
            elements.push(T::decode(reader, version).map_err(|error| error.in_element(index))?);
        }
        Ok(Some(elements))
    }

    fn encode_null(writer: &mut Writer) -> Result<(), WireError> {
        writer.bytes_length(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{
        FetchRequest, FindCoordinatorRequest, JoinGroupResponse, OffsetFetchRequest, PartitionProduceResponse,
        ProduceRequest, ProduceResponse, ReplicaState, TopicProduceResponse,
    };
    use crate::{Records, messages::LeaderIdAndEpoch};

    #[test]
    fn a_request_says_all_or_fails() {
        // Version 2 of Produce has no transactional id: without it the request would be another one.
        let request = ProduceRequest { transactional_id: Some("t".into()), ..Default::default() };
        let error = to_bytes(&request, 2).unwrap_err();
        let message = "ProduceRequest v2: transactional_id: the field is set, but this version does not have it";
        assert_eq!(error.to_string(), message);
        let request = FindCoordinatorRequest { key: "g".into(), ..Default::default() };
        assert!(to_bytes(&request, 3).is_ok());
        assert!(to_bytes(&request, 4).is_err());
        // A follower's fetch without its id would be a consumer's. The tagged field for it came with version 15.
        let replica_state = ReplicaState { replica_id: 2, replica_epoch: 9 };
        let request = FetchRequest { replica_state, cluster_id: Some("c".into()), ..Default::default() };
        for version in 4..=14 {
            let error = to_bytes(&request, version).unwrap_err();
            assert_eq!((error.path(), error.kind()), ("replica_state", &WireErrorKind::NotInVersion));
        }
        let older = FetchRequest { replica_id: 2, ..Default::default() };
        assert_eq!(to_bytes(&older, 15).unwrap_err().path(), "replica_id");
        for version in 15..=18 {
            let decoded: FetchRequest = from_bytes(to_bytes(&request, version).unwrap(), version).unwrap();
            assert_eq!(decoded.replica(), request.replica_state);
        }
        // All topics (null) came with version 2.
        let request = OffsetFetchRequest { group_id: "g".into(), topics: None, ..Default::default() };
        assert!(to_bytes(&request, 2).is_ok());
        assert_eq!(to_bytes(&request, 1).unwrap_err().kind(), &WireErrorKind::Null);
    }

    #[test]
    fn a_response_has_the_fields_of_its_version() {
        let current_leader = LeaderIdAndEpoch { leader_id: 2, leader_epoch: 7 };
        let partition = PartitionProduceResponse { log_start_offset: 9, current_leader, ..Default::default() };
        let topic = TopicProduceResponse { partition_responses: vec![partition], ..Default::default() };
        let response = ProduceResponse { responses: vec![topic], throttle_time_ms: 3, ..Default::default() };
        for version in ProduceResponse::VERSIONS {
            let decoded: ProduceResponse = from_bytes(to_bytes(&response, version).unwrap(), version).unwrap();
            let partition = &decoded.responses[0].partition_responses[0];
            assert_eq!(partition.current_leader.leader_id, if version >= 10 { 2 } else { -1 });
            assert_eq!(partition.log_start_offset, if version >= 5 { 9 } else { -1 });
        }
        // A null came with version 7.
        let response = JoinGroupResponse { protocol_name: None, ..Default::default() };
        let decoded: JoinGroupResponse = from_bytes(to_bytes(&response, 6).unwrap(), 6).unwrap();
        assert_eq!(decoded.protocol_name, Some(Str::EMPTY));
    }

    #[test]
    fn records_in_a_file_have_no_bytes_of_their_own() {
        let error = to_bytes(&Holder { records: Records::External { len: 10 } }, 0).unwrap_err();
        assert_eq!(error.kind(), &WireErrorKind::External);
    }

    #[derive(Debug, millstream_wire_derive::Message)]
    struct Holder {
        records: Records,
    }
}
