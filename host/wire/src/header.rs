//! What stands before the body of a frame.

use crate::api::ApiKey;
use crate::codec::{Message, Nullable};
use crate::error::WireError;
use crate::reader::Reader;
use crate::text::Str;
use crate::writer::Writer;

/// Before a request, header versions 1 and 2 (nothing that is still in use has version 0).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    /// The number of an [`ApiKey`].
    pub api_key: i16,
    /// The version of the body, and by it of this header. Decoding does not check that it is supported.
    pub api_version: i16,
    /// What the answer repeats.
    pub correlation_id: i32,
    /// The name that the client gives itself.
    pub client_id: Option<Str>,
}

impl RequestHeader {
    /// The header of a request.
    #[must_use]
    pub fn new(api_key: ApiKey, api_version: i16, correlation_id: i32, client_id: Option<Str>) -> Self {
        Self { api_key: api_key as i16, api_version, correlation_id, client_id }
    }

    /// Reads a header; its version follows from the key and the version that it starts with.
    ///
    /// A version above those supported still gives a header, since an ApiVersions request of the future
    /// has to be answered with its correlation id.
    ///
    /// # Errors
    /// For an API key that is not known, and for bytes that are no header.
    pub fn decode(reader: &mut Reader) -> Result<Self, WireError> {
        Self::decode_fields(reader).map_err(|error| error.in_field("header"))
    }

    fn decode_fields(reader: &mut Reader) -> Result<Self, WireError> {
        reader.set_flexible(false);
        let api_key = i16::decode(reader, 0)?;
        let api_version = i16::decode(reader, 0)?;
        let correlation_id = i32::decode(reader, 0)?;
        let api = ApiKey::try_from(api_key)?;
        // Never compact, whatever the version: Kafka's schema says so.
        let client_id = Str::decode_nullable(reader, 0).map_err(|error| error.in_field("client_id"))?;
        if api.info().request_header_version(api_version) == 2 {
            reader.tagged_fields(|_, _| Ok(false))?;
        }
        Ok(Self { api_key, api_version, correlation_id, client_id })
    }

    /// Writes it in a header version, 1 or 2.
    ///
    /// # Errors
    /// When the client id is too long.
    pub fn encode(&self, writer: &mut Writer, header_version: i16) -> Result<(), WireError> {
        writer.set_message(false, true);
        self.api_key.encode(writer, 0)?;
        self.api_version.encode(writer, 0)?;
        self.correlation_id.encode(writer, 0)?;
        self.client_id.encode(writer, 0).map_err(|error| error.in_field("client_id"))?;
        if header_version >= 2 {
            writer.unsigned_varint(0);
        }
        Ok(())
    }
}

/// Before an answer, header versions 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHeader {
    /// That of the request.
    pub correlation_id: i32,
}

impl ResponseHeader {
    /// Reads a header of the version that
    /// [`Request::response_header_version`](crate::Request::response_header_version) tells.
    ///
    /// # Errors
    /// For bytes that are no header.
    pub fn decode(reader: &mut Reader, header_version: i16) -> Result<Self, WireError> {
        let correlation_id = i32::decode(reader, 0).map_err(|error| error.in_field("header"))?;
        if header_version >= 1 {
            reader.tagged_fields(|_, _| Ok(false)).map_err(|error| error.in_field("header"))?;
        }
        Ok(Self { correlation_id })
    }

    /// Writes it.
    pub fn encode(self, writer: &mut Writer, header_version: i16) {
        writer.put(&self.correlation_id.to_be_bytes());
        if header_version >= 1 {
            writer.unsigned_varint(0);
        }
    }
}
