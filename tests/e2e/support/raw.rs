//! A connection that can send any bytes.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use millstream_tests::Broker;
use millstream_wire::frame::encode_request;
use millstream_wire::{ApiKey, Message, Reader, Request, RequestHeader, ResponseHeader};
use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size};
use rustix::net::{self, AddressFamily, SocketType};

/// The longest time to wait for a response or for the end of a connection. It is longer than any deadline of the
/// broker.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns a request with its length in front. The header has the form that the version needs; the client id is `raw`.
pub(crate) fn request(api: ApiKey, version: i16, correlation: i32, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 4];
    frame.extend((api as i16).to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend(correlation.to_be_bytes());
    frame.extend([0, 3]);
    frame.extend(b"raw");
    if api.info().request_header_version(version) == 2 {
        frame.push(0);
    }
    frame.extend(body);
    let length = i32::try_from(frame.len() - 4).expect("a frame of a test fits 31 bits");
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

/// One connection with blocking calls. A call that takes too long fails the test.
pub(crate) struct Raw {
    stream: TcpStream,
    correlation: i32,
}

impl Raw {
    pub(crate) fn connect(broker: &Broker) -> Self {
        Self::to(broker.address())
    }

    /// Connects with a small buffer for what arrives, so that little of an unread response is in the kernel.
    pub(crate) fn with_small_buffer(broker: &Broker) -> Self {
        let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        set_socket_recv_buffer_size(&socket, 4096).expect("a socket option");
        net::connect(&socket, &broker.address()).expect("the broker accepts a connection");
        Self::of(socket.into())
    }

    /// Connects to a broker that was not started by the harness.
    pub(crate) fn to(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).expect("the broker accepts a connection"))
    }

    fn of(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket option");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket option");
        Self { stream, correlation: 0 }
    }

    /// Returns this end's address, by which the broker's log names the connection.
    pub(crate) fn local(&self) -> SocketAddr {
        self.stream.local_addr().expect("a connected socket has an address")
    }

    /// Sends bytes as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.try_write(bytes).expect("the broker takes the bytes");
    }

    /// Sends bytes as they are. Fails if the broker closes the connection before all are sent.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends as many of these bytes as the kernel takes at once. Returns their number.
    pub(crate) fn write_some(&mut self, bytes: &[u8]) -> usize {
        self.stream.set_nonblocking(true).expect("a socket option");
        let mut sent = 0;
        while let Ok(count) = self.stream.write(&bytes[sent..])
            && count > 0
        {
            sent += count;
        }
        self.stream.set_nonblocking(false).expect("a socket option");
        sent
    }

    /// Sends a FIN: this end sends no more bytes.
    pub(crate) fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).ok();
    }

    /// Ends the connection with an RST.
    pub(crate) fn reset(self) {
        set_socket_linger(&self.stream, Some(Duration::ZERO)).expect("a socket option");
    }

    /// Sends a request with the next correlation id, and returns the id.
    pub(crate) fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        self.try_send(version, request).expect("the broker takes the request");
        self.correlation
    }

    /// Works like `send`, for a broker that may have stopped.
    pub(crate) fn try_send<R: Request>(&mut self, version: i16, request: &R) -> io::Result<()> {
        self.correlation += 1;
        let header = RequestHeader::new(R::KEY, version, self.correlation, Some("raw".into()));
        let frame = encode_request(&header, request).expect("the request can be written");
        self.try_write(&frame.into_bytes().expect("the request is in memory"))
    }

    /// Returns the correlation id of the last request.
    pub(crate) fn correlation(&self) -> i32 {
        self.correlation
    }

    /// Works like `receive`; returns `None` if the connection ends instead.
    pub(crate) fn try_receive<R: Request>(&mut self, version: i16, correlation: i32) -> Option<R::Response> {
        Some(decode_response::<R>(self.read_frame()?, version, correlation))
    }

    /// Returns the same connection once more, for a thread that writes while another reads.
    pub(crate) fn second_handle(&self) -> Self {
        Self { stream: self.stream.try_clone().expect("a second handle"), correlation: 0 }
    }

    /// Reads the response to the request with this `correlation` id. All of its bytes must decode.
    pub(crate) fn receive<R: Request>(&mut self, version: i16, correlation: i32) -> R::Response {
        let frame = self.read_frame().unwrap_or_else(|| panic!("{} v{version}: closed without a response", R::KEY));
        decode_response::<R>(frame, version, correlation)
    }

    /// Sends a request and reads its response.
    pub(crate) fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let correlation = self.send(version, request);
        self.receive::<R>(version, correlation)
    }

    /// Reads the next frame without its length; returns `None` if the broker closes the connection instead.
    pub(crate) fn read_frame(&mut self) -> Option<Bytes> {
        let mut prefix = [0; 4];
        self.read_or_closed(&mut prefix)?;
        let length = usize::try_from(i32::from_be_bytes(prefix)).expect("the length of a response is positive");
        let mut frame = vec![0; length];
        // A broker that stops may end a connection in the middle of a response.
        self.read_or_closed(&mut frame)?;
        Some(frame.into())
    }

    /// Reads until the broker closes the connection, by FIN or RST, and returns the responses before that.
    pub(crate) fn read_to_end(&mut self) -> Vec<Bytes> {
        std::iter::from_fn(|| self.read_frame()).collect()
    }

    /// Waits until the broker closes the connection without sending anything.
    pub(crate) fn assert_closed(&mut self, what: &str) {
        if let Some(frame) = self.read_frame() {
            panic!("{what}: sent {} bytes instead of closing: {frame:?}", frame.len());
        }
    }

    /// Returns whether nothing arrives for this long.
    pub(crate) fn is_silent_for(&mut self, wait: Duration) -> bool {
        self.stream.set_read_timeout(Some(wait)).expect("a socket option");
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        matches!(peeked, Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
    }

    fn read_or_closed(&mut self, buffer: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(buffer) {
            Ok(()) => Some(()),
            Err(error) => match error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => None,
                _ => panic!("neither a response nor the end of the connection: {error}"),
            },
        }
    }
}

/// Decodes a response to its last byte.
fn decode_response<R: Request>(frame: Bytes, version: i16, correlation: i32) -> R::Response {
    let name = R::KEY;
    let budget = 64 * frame.len() + (1 << 20);
    let mut reader = Reader::with_budget(frame, budget);
    let header = ResponseHeader::decode(&mut reader, R::response_header_version(version));
    let header = header.unwrap_or_else(|error| panic!("{name} v{version}: {error}"));
    assert_eq!(header.correlation_id, correlation, "{name} v{version}: correlation id");
    let response = R::Response::decode(&mut reader, version);
    let response = response.unwrap_or_else(|error| panic!("{name} v{version}: {error}"));
    assert_eq!(reader.remaining(), 0, "{name} v{version}: bytes after the response");
    response
}
