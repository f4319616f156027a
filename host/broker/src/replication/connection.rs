//! A connection to another broker: one request at a time.

use std::io;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use millstream_wire::{Piece, Request, RequestHeader, Str, WireError, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Why a connection cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    /// The network failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The other broker breaks the protocol.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// A response belongs to another request.
    #[error("the response has correlation id {found}, expected {expected}")]
    WrongResponse { found: i32, expected: i32 },
    /// Nothing came in time.
    #[error("no response within {} ms", .0.as_millis())]
    TimedOut(Duration),
}

#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// The memory of the responses. It is used again when nothing refers to the last response any more.
    buffer: BytesMut,
    /// That of the response before, while the last one is still used.
    spare: BytesMut,
    next_id: i32,
    response_bytes_max: usize,
    timeout: Duration,
}

impl Connection {
    /// Connects. A response may have at most `response_bytes_max` bytes, and take `timeout`.
    pub(crate) async fn open(
        host: &str,
        port: u16,
        response_bytes_max: usize,
        limit: Duration,
    ) -> Result<Self, ConnectionError> {
        let connected = timeout(limit, TcpStream::connect((host, port))).await;
        let stream = connected.map_err(|_| ConnectionError::TimedOut(limit))??;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: BytesMut::new(),
            spare: BytesMut::new(),
            next_id: 0,
            response_bytes_max,
            timeout: limit,
        })
    }

    /// Sends a request and returns its response.
    pub(crate) async fn call<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response, ConnectionError> {
        let correlation_id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let client_id = Some(Str::from_static("millstream-replica"));
        let header = RequestHeader { api_key: R::KEY as i16, api_version: version, correlation_id, client_id };
        let frame = frame::encode_request(&header, request)?;
        let limit = self.timeout;
        let response = timeout(limit, self.exchange(&frame.pieces)).await;
        let bytes = response.map_err(|_| ConnectionError::TimedOut(limit))??;
        let (header, response) = frame::decode_response::<R>(bytes.freeze(), version)?;
        if header.correlation_id != correlation_id {
            return Err(ConnectionError::WrongResponse { found: header.correlation_id, expected: correlation_id });
        }
        Ok(response)
    }

    async fn exchange(&mut self, pieces: &[Piece]) -> Result<BytesMut, ConnectionError> {
        let mut request = BytesMut::new();
        for piece in pieces {
            // A request has no records of a file.
            if let Piece::Bytes(bytes) = piece {
                request.extend_from_slice(bytes);
            }
        }
        self.stream.write_all(&request).await?;
        let length = self.stream.read_i32().await?;
        let length = frame::check_frame_length(length, self.response_bytes_max)?;
        if self.buffer.try_reclaim(length) {
            self.spare = BytesMut::new();
        } else {
            std::mem::swap(&mut self.buffer, &mut self.spare);
            self.buffer.reserve(length);
        }
        while self.buffer.len() < length {
            let missing = length - self.buffer.len();
            if self.stream.read_buf(&mut (&mut self.buffer).limit(missing)).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        Ok(self.buffer.split())
    }
}
