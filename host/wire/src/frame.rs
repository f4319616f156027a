//! Whole frames: a length, a header and a body.

use bytes::Bytes;

use crate::codec::{Message, Request};
use crate::error::{WireError, WireErrorKind};
use crate::header::{RequestHeader, ResponseHeader};
use crate::reader::{BUDGET_FLOOR, Reader};
use crate::writer::{Frame, Writer};

/// The memory that a client allows the arrays of a response, for each byte on the wire. Responses are
/// trusted more than requests, and the Metadata of a large cluster takes three times its size.
const RESPONSE_BUDGET_FACTOR: usize = 16;

/// Checks the length of a frame before anything is allocated for it.
///
/// # Errors
/// The length is not positive or is above `max`.
pub fn check_frame_length(length: i32, max: usize) -> Result<usize, WireError> {
    match usize::try_from(length) {
        Ok(checked) if (1..=max).contains(&checked) => Ok(checked),
        _ => Err(WireError::new(WireErrorKind::FrameLength { length, max })),
    }
}

/// Encodes a request with its length and header; the header holds the version.
///
/// # Errors
/// The header names another API; else as [`Message::encode`].
pub fn encode_request<R: Request>(header: &RequestHeader, request: &R) -> Result<Frame, WireError> {
    if header.api_key != R::KEY as i16 {
        return Err(WireError::new(WireErrorKind::UnknownApi(header.api_key)).in_field("header"));
    }
    let mut writer = Writer::new();
    header.encode(&mut writer, R::request_header_version(header.api_version))?;
    request.encode(&mut writer, header.api_version)?;
    writer.finish()
}

/// Encodes a response with its length and header.
///
/// # Errors
/// As [`Message::encode`].
pub fn encode_response(
    correlation_id: i32,
    header_version: i16,
    response: &impl Message,
    version: i16,
) -> Result<Frame, WireError> {
    let mut writer = Writer::new();
    ResponseHeader { correlation_id }.encode(&mut writer, header_version);
    response.encode(&mut writer, version)?;
    writer.finish()
}

/// Decodes the header of a response, from a frame without its length.
///
/// # Errors
/// The bytes are not a header.
pub fn decode_response_header(reader: &mut Reader, header_version: i16) -> Result<ResponseHeader, WireError> {
    ResponseHeader::decode(reader, header_version)
}

/// Decodes the response to a request of type `R` and of this version, from a frame without its length.
///
/// # Errors
/// As [`Message::decode`].
pub fn decode_response<R: Request>(frame: Bytes, version: i16) -> Result<(ResponseHeader, R::Response), WireError> {
    let budget = BUDGET_FLOOR.saturating_add(frame.len().saturating_mul(RESPONSE_BUDGET_FACTOR));
    let mut reader = Reader::with_budget(frame, budget);
    let header = ResponseHeader::decode(&mut reader, R::response_header_version(version))?;
    Ok((header, R::Response::decode(&mut reader, version)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{HeartbeatRequest, HeartbeatResponse};
    use crate::{ApiKey, ErrorCode};

    #[test]
    fn frame_lengths() {
        assert_eq!(check_frame_length(1, 100), Ok(1));
        assert_eq!(check_frame_length(100, 100), Ok(100));
        for refused in [-1, 0, 101, i32::MAX, i32::MIN] {
            assert!(check_frame_length(refused, 100).is_err());
        }
    }

    #[test]
    fn a_request_and_its_response() {
        for version in 0..=4 {
            let request = HeartbeatRequest { group_id: "g".into(), generation_id: 7, ..Default::default() };
            let header = RequestHeader::new(ApiKey::Heartbeat, version, 42, Some("me".into()));
            let frame = encode_request(&header, &request).unwrap().into_bytes().unwrap();
            assert_eq!(frame[..4], (frame.len() as i32 - 4).to_be_bytes());
            let mut reader = Reader::new(frame.slice(4..));
            assert_eq!(RequestHeader::decode(&mut reader), Ok(header));
            assert_eq!(HeartbeatRequest::decode(&mut reader, version), Ok(request));
            assert_eq!(reader.remaining(), 0);

            let response = HeartbeatResponse { error_code: ErrorCode::REBALANCE_IN_PROGRESS, ..Default::default() };
            let header_version = HeartbeatRequest::response_header_version(version);
            let frame = encode_response(42, header_version, &response, version).unwrap().into_bytes().unwrap();
            let (header, decoded) = decode_response::<HeartbeatRequest>(frame.slice(4..), version).unwrap();
            assert_eq!((header.correlation_id, decoded), (42, response));
        }
    }

    #[test]
    fn a_header_of_another_api_is_rejected() {
        let header = RequestHeader::new(ApiKey::Fetch, 4, 1, None);
        assert!(encode_request(&header, &HeartbeatRequest::default()).is_err());
    }
}
