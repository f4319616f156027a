//! The headers of requests and responses.

use crate::api::ApiKey;
use crate::codec::{Message, Nullable};
use crate::error::WireError;
use crate::reader::Reader;
use crate::text::Str;
use crate::writer::Writer;

/// The header of a request, in versions 1 and 2. No API in use has version 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    /// The number of an [`ApiKey`].
    pub api_key: i16,
    /// The version of the body, from which that of the header follows. Decoding does not check that it is supported.
    pub api_version: i16,
    /// A number that the response repeats.
    pub correlation_id: i32,
    /// The client's name for itself.
    pub client_id: Option<Str>,
}

impl RequestHeader {
    /// Makes the header of a request.
    #[must_use]
    pub fn new(api_key: ApiKey, api_version: i16, correlation_id: i32, client_id: Option<Str>) -> Self {
        Self { api_key: api_key as i16, api_version, correlation_id, client_id }
    }

    /// Decodes a header. Its version follows from the API key and the API version at its start.
    ///
    /// An unsupported API version is not an error, since the response to a newer ApiVersions request
    /// needs the correlation id.
    ///
    /// # Errors
    /// The API key is not known, or the bytes are not a header.
    pub fn decode(reader: &mut Reader) -> Result<Self, WireError> {
        Self::decode_fields(reader).map_err(|error| error.in_field("header"))
    }

    fn decode_fields(reader: &mut Reader) -> Result<Self, WireError> {
        reader.set_flexible(false);
        let api_key = i16::decode(reader, 0)?;
        let api_version = i16::decode(reader, 0)?;
        let correlation_id = i32::decode(reader, 0)?;
        let api = ApiKey::try_from(api_key)?;
        // Kafka's schema makes it never compact, whatever the version.
        let client_id = Str::decode_nullable(reader, 0).map_err(|error| error.in_field("client_id"))?;
        if api.info().request_header_version(api_version) == 2 {
            reader.tagged_fields(|_, _| Ok(false))?;
        }
        Ok(Self { api_key, api_version, correlation_id, client_id })
    }

    /// Encodes the header in version 1 or 2.
    ///
    /// # Errors
    /// The client id is too long.
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

/// The header of a response, in versions 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHeader {
    /// The number from the request.
    pub correlation_id: i32,
}

impl ResponseHeader {
    /// Decodes a header, in the version of
    /// [`Request::response_header_version`](crate::Request::response_header_version).
    ///
    /// # Errors
    /// The bytes are not a header.
    pub fn decode(reader: &mut Reader, header_version: i16) -> Result<Self, WireError> {
        let correlation_id = i32::decode(reader, 0).map_err(|error| error.in_field("header"))?;
        if header_version >= 1 {
            reader.tagged_fields(|_, _| Ok(false)).map_err(|error| error.in_field("header"))?;
        }
        Ok(Self { correlation_id })
    }

    /// Encodes the header.
    pub fn encode(self, writer: &mut Writer, header_version: i16) {
        writer.put(&self.correlation_id.to_be_bytes());
        if header_version >= 1 {
            writer.unsigned_varint(0);
        }
    }
}
