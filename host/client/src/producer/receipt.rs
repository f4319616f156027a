//! What became of the records that were gathered together.
//!
//! One receipt serves a whole chunk of rows, so that a record costs one slot in a vector rather than
//! a channel of its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::error::Error;

/// Where a record was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordMetadata {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset; -1 with `acks=0`, and for a duplicate that the broker no longer remembers.
    pub offset: i64,
    /// The record's timestamp in milliseconds since the epoch: the producer's, or the broker's
    /// where the topic has `message.timestamp.type=LogAppendTime`.
    pub timestamp: i64,
}

/// Called once with the verdict on a record.
pub(crate) type Callback = Box<dyn FnOnce(Result<RecordMetadata, Error>) + Send>;

/// Where one row was stored; the topic is the receipt's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
}

/// Who wants to know about a row, and the verdict once it is there.
pub(crate) enum Row {
    /// Nobody: fire and forget.
    Ignored,
    /// A [`Delivery`] that was not polled yet.
    Pending,
    Waiting(Waker),
    Callback(Callback),
    Done(Result<Stored, Error>),
    /// The verdict was handed over.
    Taken,
}

/// The verdicts of a chunk's rows.
pub(crate) struct Receipt {
    /// Rising in the order in which chunks were opened: what `flush` waits by.
    pub(crate) number: u64,
    topic: Arc<str>,
    rows: Mutex<Vec<Row>>,
    open: AtomicUsize,
}

impl Receipt {
    pub(crate) fn new(number: u64, topic: Arc<str>) -> Self {
        Self { number, topic, rows: Mutex::default(), open: AtomicUsize::new(0) }
    }

    /// Adds a row; its number is the answer.
    pub(crate) fn push(&self, row: Row) -> u32 {
        let mut rows = self.rows.lock();
        rows.push(row);
        self.open.fetch_add(1, Ordering::Relaxed);
        (rows.len() - 1) as u32
    }

    /// Gives `row` its verdict and tells whoever waits. True when it was the last one open.
    pub(crate) fn finish(&self, row: u32, verdict: Result<Stored, Error>) -> bool {
        let mut rows = self.rows.lock();
        let slot = &mut rows[row as usize];
        match std::mem::replace(slot, Row::Taken) {
            Row::Ignored => {}
            Row::Pending => *slot = Row::Done(verdict),
            Row::Waiting(waker) => {
                *slot = Row::Done(verdict);
                drop(rows);
                waker.wake();
            }
            Row::Callback(callback) => {
                // A callback may call the producer: never under the lock.
                drop(rows);
                callback(verdict.map(|stored| self.metadata(stored)));
            }
            done @ (Row::Done(_) | Row::Taken) => {
                debug_assert!(false, "a row has one verdict");
                *slot = done;
                return false;
            }
        }
        self.open.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Nobody waits for this row any more.
    fn abandon(&self, row: u32) {
        let mut rows = self.rows.lock();
        let slot = &mut rows[row as usize];
        match slot {
            Row::Pending | Row::Waiting(_) => *slot = Row::Ignored,
            Row::Done(_) => *slot = Row::Taken,
            Row::Ignored | Row::Callback(_) | Row::Taken => {}
        }
    }

    fn metadata(&self, stored: Stored) -> RecordMetadata {
        let Stored { partition, offset, timestamp } = stored;
        RecordMetadata { topic: self.topic.clone(), partition, offset, timestamp }
    }
}

/// The verdict on a record, to be awaited. Dropping it does not take the record back.
#[must_use = "await the delivery to learn whether the record was stored, or use send_and_forget"]
pub struct Delivery {
    receipt: Arc<Receipt>,
    row: u32,
}

impl Delivery {
    pub(crate) fn new(receipt: Arc<Receipt>, row: u32) -> Self {
        Self { receipt, row }
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery").field("topic", &self.receipt.topic).field("row", &self.row).finish()
    }
}

impl Future for Delivery {
    type Output = Result<RecordMetadata, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut rows = self.receipt.rows.lock();
        let slot = &mut rows[self.row as usize];
        match slot {
            Row::Done(_) => match std::mem::replace(slot, Row::Taken) {
                Row::Done(verdict) => Poll::Ready(verdict.map(|stored| self.receipt.metadata(stored))),
                _ => unreachable!("matched above"),
            },
            Row::Waiting(waker) => {
                waker.clone_from(context.waker());
                Poll::Pending
            }
            Row::Taken => panic!("a delivery was polled after its verdict"),
            _ => {
                *slot = Row::Waiting(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.receipt.abandon(self.row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(offset: i64) -> Stored {
        Stored { partition: 3, offset, timestamp: 7 }
    }

    #[tokio::test]
    async fn a_delivery_resolves_before_and_after_its_verdict() {
        let receipt = Arc::new(Receipt::new(0, "t".into()));
        let early = Delivery::new(receipt.clone(), receipt.push(Row::Pending));
        let late = Delivery::new(receipt.clone(), receipt.push(Row::Pending));
        let waiting = tokio::spawn(early);
        tokio::task::yield_now().await;
        assert!(!receipt.finish(0, Ok(stored(10))));
        assert!(receipt.finish(1, Err(Error::Closed)));
        let metadata = waiting.await.unwrap().unwrap();
        assert_eq!((metadata.partition, metadata.offset, metadata.timestamp), (3, 10, 7));
        assert!(matches!(late.await, Err(Error::Closed)));
    }

    #[test]
    fn callbacks_run_once_and_dropped_deliveries_are_forgotten() {
        let receipt = Arc::new(Receipt::new(0, "t".into()));
        let (sender, receiver) = std::sync::mpsc::channel();
        let row = receipt.push(Row::Callback(Box::new(move |verdict| sender.send(verdict.unwrap().offset).unwrap())));
        drop(Delivery::new(receipt.clone(), receipt.push(Row::Pending)));
        receipt.push(Row::Ignored);
        assert!(!receipt.finish(row, Ok(stored(5))));
        assert!(!receipt.finish(1, Ok(stored(6))));
        assert!(receipt.finish(2, Ok(stored(7))));
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [5]);
    }
}
