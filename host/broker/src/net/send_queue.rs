//! The output of a connection: bytes in memory, and ranges of segment files that the kernel sends.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;

use bytes::{Buf, Bytes};
use millstream_log::LogSlice;
use millstream_wire::{Frame, Piece};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::message_memory::{MessageMemory, Share, UNCOUNTED_MAX};

/// The most bytes of one sendfile call, so that a connection does not occupy its worker for long.
const SENDFILE_BYTES_MAX: usize = 1 << 20;

/// The largest file range that is copied into memory. It leaves in the same call as what is around it, which costs
/// less than calls of its own. It is the size of a page.
const COPIED_MAX: usize = 4 << 10;

/// The most buffers of one call.
const SLICES_MAX: usize = 64;

/// A response that is ready to be sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    parts: Vec<Part>,
    /// The bytes in memory.
    memory: usize,
    share: Share,
}

#[derive(Debug)]
enum Part {
    Memory {
        bytes: Bytes,
        /// The share of the response, if this is its last part in memory.
        share: Share,
    },
    File {
        slice: LogSlice,
        sent: usize,
        /// The position up to which the range is in the page cache.
        warm: usize,
    },
}

impl Outgoing {
    /// Makes a response whose holes are filled by `files`, in order. A response without holes has no files.
    pub(crate) fn new(frame: Frame, files: Vec<LogSlice>) -> Self {
        let mut files = files.into_iter();
        let mut memory = 0;
        let parts = frame.pieces.into_iter().map(|piece| match piece {
            Piece::Bytes(bytes) => {
                memory += bytes.len();
                Part::Memory { bytes, share: Share::default() }
            }
            Piece::External(len) => {
                let slice = files.next().expect("a file range for every hole");
                assert_eq!(slice.len, len, "a file range fills its hole");
                Part::File { slice, sent: 0, warm: 0 }
            }
        });
        let parts = parts.collect();
        Self { parts, memory, share: Share::default() }
    }

    /// Takes over the share of its request, as far as it needs it.
    pub(crate) fn holding(mut self, mut share: Share) -> Self {
        if !share.is_empty() {
            share.shrink(if self.memory > UNCOUNTED_MAX { self.memory } else { 0 });
            self.share = share;
        }
        self
    }

    /// Copies small file ranges that are in the page cache into memory, as long as the response needs no share.
    pub(crate) fn copy_small_ranges(&mut self) {
        for part in &mut self.parts {
            let Part::File { slice, .. } = part else { continue };
            let is_small = slice.len <= COPIED_MAX && self.memory + slice.len <= UNCOUNTED_MAX;
            if is_small
                && !slice.is_unchecked()
                && let Some(bytes) = read_cached(slice)
            {
                self.memory += bytes.len();
                *part = Part::Memory { bytes, share: Share::default() };
            }
        }
    }

    /// Makes its share cover it at once, if it is large and memory is free. Returns whether that worked.
    pub(crate) fn try_cover(&mut self, memory: &MessageMemory) -> bool {
        self.memory <= UNCOUNTED_MAX || memory.try_cover(&mut self.share, self.memory)
    }

    /// Makes its share cover it, once there is memory.
    pub(crate) async fn cover(&mut self, memory: &MessageMemory) {
        if !self.try_cover(memory) {
            memory.cover(&mut self.share, self.memory).await;
        }
    }

    /// Returns the bytes of the response, with those of the file ranges.
    #[cfg(test)]
    pub(crate) fn to_bytes(&self) -> Bytes {
        let parts = self.parts.iter().map(|part| match part {
            Part::Memory { bytes, .. } => bytes.clone(),
            Part::File { slice, .. } => slice.read_to_bytes().expect("the range is in the file"),
        });
        parts.flatten().collect()
    }
}

/// The responses of one connection that wait to be sent, in order.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    parts: VecDeque<Part>,
    /// The bytes in memory.
    memory: usize,
}

impl SendQueue {
    pub(crate) fn push(&mut self, mut outgoing: Outgoing) {
        if !outgoing.share.is_empty() {
            // Its parts in memory are mostly slices of one buffer, which is freed with the last of them.
            let is_memory = |part: &&mut Part| matches!(part, Part::Memory { .. });
            if let Some(Part::Memory { share, .. }) = outgoing.parts.iter_mut().rev().find(is_memory) {
                *share = outgoing.share;
            }
        }
        self.memory += outgoing.memory;
        self.parts.extend(outgoing.parts);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Returns the number of parts that wait.
    pub(crate) fn len(&self) -> usize {
        self.parts.len()
    }

    /// Returns the bytes that wait in memory.
    pub(crate) fn memory(&self) -> usize {
        self.memory
    }

    /// Returns whether responses have shares of the memory.
    pub(crate) fn has_share(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Memory { share, .. } if !share.is_empty()))
    }

    /// Sends a part of the queue, and returns its bytes. Fails with `WouldBlock` if the client has to read first.
    pub(crate) async fn send_some(&mut self, stream: &TcpStream) -> io::Result<usize> {
        self.warm_up().await?;
        stream.try_io(Interest::WRITABLE, || self.try_send(stream))
    }

    /// Brings a file range into the page cache, on a thread that may block, unless its next chunk is there already.
    /// Otherwise sendfile would wait for the disk on a worker that serves other connections too.
    ///
    /// What comes from the disk is checked: it may be damaged. The response has begun, so the connection ends then. The
    /// log knows its damage, and leaves it out of later responses.
    async fn warm_up(&mut self) -> io::Result<()> {
        let Some(Part::File { slice, sent, warm }) = self.parts.front_mut() else { return Ok(()) };
        if *warm > *sent {
            return Ok(());
        }
        let chunk = (slice.len - *sent).min(SENDFILE_BYTES_MAX);
        let start = slice.position + *sent as u64;
        *warm = *sent + chunk;
        if slice.is_unchecked() || !is_cached(&slice.file, start, chunk) {
            let cold = slice.clone();
            tokio::task::spawn_blocking(move || cold.verify()).await?.map_err(io::Error::other)?;
            *warm = slice.len;
        }
        Ok(())
    }

    fn try_send(&mut self, stream: &TcpStream) -> io::Result<usize> {
        match self.parts.front_mut() {
            None => Ok(0),
            Some(Part::Memory { .. }) => self.try_send_memory(stream),
            Some(Part::File { slice, sent, warm }) => {
                let mut position = slice.position + *sent as u64;
                let wanted = *warm - *sent;
                let count = rustix::fs::sendfile(stream.as_fd(), &*slice.file, Some(&mut position), wanted)?;
                if count == 0 {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "a segment file is shorter than its index says",
                    ));
                }
                *sent += count;
                if *sent == slice.len {
                    self.parts.pop_front();
                }
                Ok(count)
            }
        }
    }

    /// Sends all buffers up to the next file range in one call. With MSG_MORE the kernel keeps a head before a file
    /// range until the two fill a packet.
    fn try_send_memory(&mut self, stream: &TcpStream) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        let mut more = false;
        for part in &self.parts {
            match part {
                Part::Memory { bytes, .. } if count < SLICES_MAX => {
                    slices[count] = IoSlice::new(bytes);
                    count += 1;
                }
                _ => {
                    more = true;
                    break;
                }
            }
        }
        let flags = SendFlags::NOSIGNAL | if more { SendFlags::MORE } else { SendFlags::empty() };
        let sent = sendmsg(stream.as_fd(), &slices[..count], &mut SendAncillaryBuffer::default(), flags)?;
        self.advance(sent);
        Ok(sent)
    }

    fn advance(&mut self, mut sent: usize) {
        self.memory -= sent;
        while let Some(Part::Memory { bytes, .. }) = self.parts.front_mut() {
            if bytes.len() > sent {
                bytes.advance(sent);
                return;
            }
            sent -= bytes.len();
            self.parts.pop_front();
        }
    }
}

/// Reads a range, if all of it is in the page cache.
fn read_cached(slice: &LogSlice) -> Option<Bytes> {
    let mut bytes = vec![0; slice.len];
    let mut buffer = [io::IoSliceMut::new(&mut bytes)];
    // Another result is for sendfile: it brings the range into the cache, or says what is wrong.
    let read = preadv2(&*slice.file, &mut buffer, slice.position, ReadWriteFlags::NOWAIT);
    (read == Ok(slice.len)).then(|| bytes.into())
}

/// Returns whether both ends of a range are in the page cache. That is enough for a range that was written or read in
/// order.
fn is_cached(file: &File, start: u64, len: usize) -> bool {
    let probe = |at: u64| {
        let mut byte = [0];
        let mut buffer = [io::IoSliceMut::new(&mut byte)];
        // If the file system cannot tell, the page counts as cached: sendfile works either way.
        !matches!(preadv2(file, &mut buffer, at, ReadWriteFlags::NOWAIT), Err(Errno::AGAIN))
    };
    probe(start) && probe(start + len as u64 - 1)
}
