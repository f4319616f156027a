//! The bytes on a connection between nodes.
//!
//! The node that connects sends the preface and a [`Greeting`], and the other one responds with a [`Welcome`]. Then
//! each request is one frame, and so is its response: four bytes of length, one byte of kind, the body. One request is
//! under way at a time.

use std::io;

use bytes::Bytes;
use millstream_metadata::FeatureLevel;
use millstream_quorum::Peer;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use uuid::Uuid;

/// The first bytes of a connection. As the length of a Kafka frame they would be negative, so that one listener serves
/// both protocols.
pub(super) const PREFACE: [u8; 4] = [0xCA, b'M', b'S', 1];

/// The longest frame: a snapshot of the metadata with everything around it.
const FRAME_BYTES_MAX: u32 = 256 << 20;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// A [`Greeting`] or a [`Welcome`], as JSON.
    Hello = 0,
    /// A request or a response of the quorum.
    Quorum = 1,
    /// A [`super::Call`] or a [`super::Reply`], as JSON.
    Call = 2,
    /// The reason why a request cannot be processed, as text.
    Error = 3,
    /// A [`super::Call`] with bytes: the length of the JSON in four bytes, the JSON, the bytes.
    CallWithBytes = 4,
}

/// The first frame of the node that connects.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Greeting {
    pub(super) node_id: i32,
    /// The cluster of the node; `None` before it has joined one.
    pub(super) cluster_id: Option<String>,
    /// Where it is now; `None` before its log is open.
    pub(super) peer: Option<Peer>,
}

/// The response to a greeting.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Welcome {
    pub(super) node_id: i32,
    /// Random for each start of the process.
    pub(super) incarnation: Uuid,
    /// The newest level of the metadata log that its program knows.
    #[serde(default = "level_of_before")]
    pub(super) level_max: u16,
}

/// Returns the level of programs that do not say theirs.
fn level_of_before() -> u16 {
    FeatureLevel::CLUSTER.number()
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Writes a frame.
pub(super) async fn write(stream: &mut (impl AsyncWrite + Unpin), kind: Kind, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len()).ok().filter(|length| *length < FRAME_BYTES_MAX);
    let length = length.ok_or_else(|| invalid(format!("a frame of {} bytes is too long", body.len())))?;
    let mut frame = Vec::with_capacity(5 + body.len());
    frame.extend_from_slice(&(length + 1).to_be_bytes());
    frame.push(kind as u8);
    frame.extend_from_slice(body);
    stream.write_all(&frame).await
}

/// Writes a value as JSON.
pub(super) async fn write_json(
    stream: &mut (impl AsyncWrite + Unpin),
    kind: Kind,
    value: &impl Serialize,
) -> io::Result<()> {
    write(stream, kind, &serde_json::to_vec(value)?).await
}

/// Reads a frame. `None` if the connection has ended before it.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(Kind, Bytes)>> {
    let length = match stream.read_u32().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if !(1..=FRAME_BYTES_MAX).contains(&length) {
        return Err(invalid(format!(
            "a frame between nodes has {length} bytes, at most {FRAME_BYTES_MAX} are allowed"
        )));
    }
    let kind = match stream.read_u8().await? {
        0 => Kind::Hello,
        1 => Kind::Quorum,
        2 => Kind::Call,
        3 => Kind::Error,
        4 => Kind::CallWithBytes,
        other => return Err(invalid(format!("a frame between nodes has the unknown kind {other}"))),
    };
    let body_length = length as usize - 1;
    // Memory grows with what arrives, not with what is announced.
    let mut body = Vec::with_capacity(body_length.min(64 << 10));
    stream.take(body_length as u64).read_to_end(&mut body).await?;
    if body.len() < body_length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some((kind, body.into())))
}

/// Returns a body of a value in JSON and of bytes.
pub(super) fn with_bytes(value: &impl Serialize, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(value)?;
    let length =
        u32::try_from(json.len()).map_err(|_| invalid(format!("{} bytes of JSON are too long", json.len())))?;
    Ok([&length.to_be_bytes()[..], &json, bytes].concat())
}

/// Splits a body of [`with_bytes`].
pub(super) fn split_bytes<T: for<'de> Deserialize<'de>>(mut body: Bytes) -> io::Result<(T, Bytes)> {
    let short = || invalid("a frame between nodes ends too early".to_owned());
    let (length, _) = body.split_first_chunk::<4>().ok_or_else(short)?;
    let end = 4 + u32::from_be_bytes(*length) as usize;
    if body.len() < end {
        return Err(short());
    }
    let head = body.split_to(end);
    Ok((json(&head[4..])?, body))
}

/// Returns the value of a body in JSON.
pub(super) fn json<T: for<'de> Deserialize<'de>>(body: &[u8]) -> io::Result<T> {
    serde_json::from_slice(body).map_err(|error| invalid(format!("a frame between nodes cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_frame_is_read_back_and_bad_ones_are_errors() {
        let (mut one, mut other) = tokio::io::duplex(1 << 20);
        write(&mut one, Kind::Quorum, b"body").await.expect("written");
        let (kind, body) = read(&mut other).await.expect("readable").expect("a frame");
        assert_eq!((kind, &body[..]), (Kind::Quorum, &b"body"[..]));
        for (bytes, part) in [
            (&[0xFF, 0xFF, 0xFF, 0xFF, 1][..], "at most"),
            (&[0, 0, 0, 0], "at most"),
            (&[0, 0, 0, 2, 9, 9], "unknown kind 9"),
        ] {
            let error = read(&mut &bytes[..]).await.expect_err("a bad frame").to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(read(&mut &[0, 0, 0, 9, 1, 1][..]).await.is_err(), "it ends too early");
        drop(one);
        assert!(read(&mut other).await.expect("closed").is_none());
        assert!(json::<Greeting>(b"{}").is_err());
        let body = Bytes::from(with_bytes(&7, b"bytes").expect("short"));
        assert_eq!(split_bytes::<i32>(body.clone()).expect("readable"), (7, Bytes::from_static(b"bytes")));
        for cut in [3, 4] {
            assert!(split_bytes::<i32>(body.slice(..cut)).is_err());
        }
    }
}
