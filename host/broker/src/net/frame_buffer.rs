//! The bytes of one connection that have arrived and are not requests yet.
//!
//! One buffer is reused. The length of a frame is checked before memory is allocated for it. A large frame gets its
//! share of the memory only as its bytes arrive, and a very large one also its buffer. A client that only announces a
//! large request thus takes nothing. An enlarged buffer is kept only while it has a share of its own.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use millstream_wire::frame::check_frame_length;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::unconstrained;
use tokio::time::Instant;

use crate::net::message_memory::{MessageMemory, Share, UNCOUNTED_MAX};
use crate::net::pace::{BYTES_PER_SECOND_MIN, Pace};
use crate::net::types::{Close, RequestFrame};

/// The size of the length before each frame.
const PREFIX: usize = size_of::<i32>();

/// The buffer of a connection without large requests.
const ROOM: usize = UNCOUNTED_MAX;

/// The smallest free space that is worth a read.
const ROOM_MIN: usize = 4 << 10;

/// A frame up to this size gets its whole buffer at once.
const TRUSTED_FRAME: usize = 1 << 20;

/// The largest step in which a frame's share of the memory grows.
const SHARE_STEP: usize = 256 << 10;

/// Until this number of bytes of a request has arrived, the short deadline applies.
const HEADER_MIN: usize = PREFIX + 8;

/// The longest time for the header of a request, from its first byte.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);

/// The longest time for a request from its first byte, in addition to the time for its length.
const FRAME_DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct FrameBuffer {
    bytes: BytesMut,
    /// The largest frame.
    max: usize,
    /// When the first byte of the front frame arrived.
    since: Option<Instant>,
    share: Share,
    /// The bytes of the front frame that its share covers.
    shared: usize,
    /// Whether the buffer was enlarged for a large frame.
    roomy: bool,
    /// The share of the enlarged buffer between two large frames.
    kept: Share,
}

impl FrameBuffer {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            bytes: BytesMut::new(),
            max,
            since: None,
            share: Share::default(),
            shared: 0,
            roomy: false,
            kept: Share::default(),
        }
    }

    /// Returns the front frame without its prefix, if it is complete.
    pub(crate) fn peek(&self) -> Result<Option<&[u8]>, Close> {
        let total = self.total()?;
        Ok(total.and_then(|total| self.bytes.get(PREFIX..total)))
    }

    /// Takes the front frame, if it is complete.
    pub(crate) fn take(&mut self, memory: &MessageMemory) -> Result<Option<RequestFrame>, Close> {
        let Some(total) = self.total()?.filter(|&total| total <= self.bytes.len()) else { return Ok(None) };
        let mut frame = self.bytes.split_to(total);
        frame.advance(PREFIX);
        if total > ROOM && !memory.try_keep(&mut self.kept, total) {
            // The buffer goes with the frame, but for what follows it.
            let rest = BytesMut::from(&self.bytes[..]);
            self.shrink();
            self.bytes = rest;
        }
        // The time of the next frame starts with its first byte, even if that came together with this frame.
        self.since = (!self.bytes.is_empty()).then(Instant::now);
        self.shared = 0;
        Ok(Some(RequestFrame { bytes: frame.freeze(), share: std::mem::take(&mut self.share) }))
    }

    /// Returns when the front frame has to be complete; `None` before its first byte.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let allowed = if self.bytes.len() < HEADER_MIN {
            HEADER_DEADLINE
        } else {
            let total = self.total().ok().flatten().unwrap_or_default();
            FRAME_DEADLINE + Duration::from_secs((total / BYTES_PER_SECOND_MIN) as u64)
        };
        Some(self.since? + allowed)
    }

    /// Returns whether an idle connection keeps a buffer that only large requests need.
    pub(crate) fn is_roomy(&self) -> bool {
        self.bytes.is_empty() && self.roomy
    }

    /// Frees that buffer.
    pub(crate) fn shrink(&mut self) {
        self.bytes = BytesMut::new();
        self.roomy = false;
        self.kept = Share::default();
    }

    /// Returns the arrived part of the front frame, without its prefix, if the frame is so large that it needs a share.
    pub(crate) fn counted(&self) -> Option<&[u8]> {
        let total = self.total().ok().flatten()?;
        self.bytes.get(PREFIX..total.min(self.bytes.len())).filter(|_| total > ROOM)
    }

    /// Returns the pace of a client whose frame has a share. The socket was last read at `last`.
    pub(crate) fn pace(&self, last: Instant) -> Option<Pace> {
        let since = self.since.filter(|_| !self.share.is_empty())?;
        Some(Pace { since, last, bytes: self.bytes.len() })
    }

    /// Returns whether the front frame has a share of the memory.
    pub(crate) fn has_share(&self) -> bool {
        !self.share.is_empty()
    }

    /// Begins the time of the front frame again: the client did not cause the wait.
    pub(crate) fn restart(&mut self) {
        self.since = self.since.map(|_| Instant::now());
    }

    /// Returns the number of bytes in the buffer.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Reads what the socket has, which may be nothing. May wait until memory is free.
    pub(crate) async fn read(&mut self, stream: &mut TcpStream, memory: &MessageMemory) -> Result<(), Close> {
        let most = self.make_room(memory).await?;
        let mut room = (&mut self.bytes).limit(most);
        // Polled in place of a `try_read_buf`: a poll that does not fill the room knows that the socket is empty now,
        // and so the next wait needs no call that finds nothing.
        let mut reading = pin!(unconstrained(stream.read_buf(&mut room)));
        match poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await {
            Poll::Ready(Ok(0)) => Err(Close::ByClient),
            Poll::Ready(Ok(_)) => {
                self.since.get_or_insert_with(Instant::now);
                // The length is checked now, so that a bad one closes the connection at once.
                self.total().map(drop)
            }
            Poll::Ready(Err(error)) => Err(error.into()),
            Poll::Pending => Ok(()),
        }
    }

    /// Returns the length of the front frame with its prefix, once the prefix has arrived.
    fn total(&self) -> Result<Option<usize>, Close> {
        let Some(prefix) = self.bytes.first_chunk::<PREFIX>() else { return Ok(None) };
        let checked = check_frame_length(i32::from_be_bytes(*prefix), self.max);
        let checked = checked.map_err(|error| Close::Protocol(format!("{error}{}", guess(prefix))))?;
        Ok(Some(PREFIX + checked))
    }

    /// Makes room for a read. Returns the number of bytes to read.
    async fn make_room(&mut self, memory: &MessageMemory) -> Result<usize, Close> {
        let total = self.total()?.unwrap_or_default();
        let missing = total.saturating_sub(self.bytes.len());
        let counted = total > ROOM;
        if counted && self.bytes.len() >= self.shared.max(ROOM) {
            // At most as much as has arrived: a share grows only as the client sends.
            let step = missing.min(self.bytes.len()).clamp(1, SHARE_STEP);
            if !memory.try_grow(&mut self.share, step) {
                memory.grow(&mut self.share, step).await;
                self.restart();
            }
            self.shared = self.bytes.len() + step;
        }
        let spare = self.bytes.capacity() - self.bytes.len();
        let (enough, wanted) = match missing {
            0 => (ROOM_MIN, ROOM),
            1..=TRUSTED_FRAME => (missing, missing),
            _ => (1, missing.min(self.bytes.len().max(TRUSTED_FRAME))),
        };
        if spare < enough {
            self.bytes.reserve(wanted);
            self.roomy |= wanted > ROOM;
        }
        Ok(if counted { self.shared.max(ROOM) - self.bytes.len() } else { usize::MAX })
    }
}

/// Guesses the protocol of a client whose first four bytes are not a valid length.
fn guess(prefix: &[u8; PREFIX]) -> &'static str {
    match prefix {
        b"GET " | b"POST" | b"HEAD" | b"PUT " | b"DELE" | b"OPTI" | b"PRI " => " (the client seems to speak HTTP)",
        [0x16, 3, ..] => " (the client seems to speak TLS to a plaintext listener)",
        b"SSH-" => " (the client seems to speak SSH)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    struct Receiver {
        server: TcpStream,
        buffer: FrameBuffer,
        memory: MessageMemory,
    }

    async fn pair(max: usize) -> (TcpStream, Receiver) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connected");
        let (server, _) = listener.accept().await.expect("accepted");
        (client, Receiver { server, buffer: FrameBuffer::new(max), memory: MessageMemory::new(8 << 20) })
    }

    impl Receiver {
        async fn read(&mut self) -> Result<(), Close> {
            self.server.readable().await.expect("readable");
            self.buffer.read(&mut self.server, &self.memory).await
        }

        async fn next(&mut self) -> Result<RequestFrame, Close> {
            loop {
                if let Some(frame) = self.buffer.take(&self.memory)? {
                    return Ok(frame);
                }
                self.read().await?;
            }
        }
    }

    #[tokio::test]
    async fn frames_come_whole_in_order_and_of_any_size() {
        let (mut client, mut receiver) = pair(4 << 20).await;
        let sizes = [1usize, 100, 20_000, 3 << 20, 7, 300_000, 5];
        let mut bytes = Vec::new();
        for (index, size) in sizes.into_iter().enumerate() {
            bytes.extend_from_slice(&(size as i32).to_be_bytes());
            bytes.resize(bytes.len() + size, index as u8);
        }
        let sending = tokio::spawn(async move { client.write_all(&bytes).await.map(|()| client) });
        for (index, size) in sizes.into_iter().enumerate() {
            let frame = receiver.next().await.expect("a frame");
            assert_eq!(frame.bytes.len(), size);
            assert!(frame.bytes.iter().all(|&byte| byte == index as u8));
        }
        sending.await.expect("no panic").expect("sent");
    }

    #[tokio::test]
    async fn rejected_lengths_take_no_memory() {
        for length in [-1i32, 0, 1001, i32::MAX, i32::from_be_bytes(*b"GET ")] {
            let (mut client, mut receiver) = pair(1000).await;
            client.write_all(&length.to_be_bytes()).await.expect("sent");
            let error = receiver.next().await.err().expect("rejected");
            assert!(matches!(error, Close::Protocol(_)), "{error}");
            assert!(receiver.buffer.bytes.capacity() <= 2 * ROOM);
        }
    }

    #[tokio::test]
    async fn an_announced_length_gets_little_memory() {
        let (mut client, mut receiver) = pair(64 << 20).await;
        client.write_all(&(60_i32 << 20).to_be_bytes()).await.expect("sent");
        client.write_all(b"few").await.expect("sent");
        while receiver.buffer.len() < 7 {
            receiver.read().await.expect("read");
        }
        client.write_all(b"more").await.expect("sent");
        receiver.read().await.expect("read");
        assert!(receiver.buffer.bytes.capacity() < 4 << 20);
    }

    #[tokio::test]
    async fn the_buffer_of_a_large_frame_is_freed() {
        let (mut client, mut receiver) = pair(1 << 20).await;
        let large = [&300_000i32.to_be_bytes()[..], &[0; 300_000]].concat();
        let sending = tokio::spawn(async move { client.write_all(&large).await.map(|()| client) });
        assert_eq!(receiver.next().await.expect("a frame").bytes.len(), 300_000);
        assert!(receiver.buffer.is_roomy());
        receiver.buffer.shrink();
        assert!(!receiver.buffer.is_roomy());
        let mut client = sending.await.expect("no panic").expect("sent");
        client.write_all(&[0, 0, 0, 1, 9]).await.expect("sent");
        assert_eq!(receiver.next().await.expect("a frame").bytes[..], [9]);
        assert!(!receiver.buffer.is_roomy());
    }

    #[tokio::test]
    async fn the_header_has_the_shorter_deadline() {
        let (mut client, mut receiver) = pair(1000).await;
        assert!(receiver.buffer.deadline().is_none());
        let before = Instant::now();
        client.write_all(&100i32.to_be_bytes()).await.expect("sent");
        receiver.read().await.expect("read");
        let header = receiver.buffer.deadline().expect("a deadline");
        assert!(header <= Instant::now() + HEADER_DEADLINE && header >= before + HEADER_DEADLINE);
        client.write_all(&[0; 20]).await.expect("sent");
        receiver.read().await.expect("read");
        assert!(receiver.buffer.deadline().expect("a deadline") >= before + FRAME_DEADLINE);
    }
}
