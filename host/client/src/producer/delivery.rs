//! The results of records, and the future that returns one to the caller.
//!
//! The results of a chunk are in one vector, so that a record costs one slot instead of a channel of its own.

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
    /// The offset; -1 with `acks=0`, and for a duplicate whose offset the broker no longer knows.
    pub offset: i64,
    /// The record's timestamp in milliseconds since the epoch: the producer's, or the broker's if the topic has
    /// `message.timestamp.type=LogAppendTime`.
    pub timestamp: i64,
}

/// Called once with the result of a record.
pub(crate) type Callback = Box<dyn FnOnce(Result<RecordMetadata, Error>) + Send>;

/// Where a row was stored; the topic is that of the chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
}

/// The state of a row's result.
pub(crate) enum Row {
    /// The caller does not want the result.
    Ignored,
    /// A [`Delivery`] exists and was not polled yet.
    Pending,
    Waiting(Waker),
    Callback(Callback),
    Done(Result<Stored, Error>),
    /// The [`Delivery`] has returned the result.
    Taken,
}

/// The results of a chunk's rows.
pub(crate) struct ChunkResults {
    /// Increases in the order in which chunks were opened; `flush` waits by it.
    pub(crate) number: u64,
    topic: Arc<str>,
    rows: Mutex<Vec<Row>>,
    open: AtomicUsize,
}

impl ChunkResults {
    pub(crate) fn new(number: u64, topic: Arc<str>) -> Self {
        Self { number, topic, rows: Mutex::default(), open: AtomicUsize::new(0) }
    }

    /// Adds a row and returns its index.
    pub(crate) fn push(&self, row: Row) -> u32 {
        let mut rows = self.rows.lock();
        rows.push(row);
        self.open.fetch_add(1, Ordering::Relaxed);
        (rows.len() - 1) as u32
    }

    /// Sets the result of `row` and wakes its waiter. Returns true if it was the last open row.
    pub(crate) fn finish(&self, row: u32, result: Result<Stored, Error>) -> bool {
        let mut rows = self.rows.lock();
        let slot = &mut rows[row as usize];
        match std::mem::replace(slot, Row::Taken) {
            Row::Ignored => {}
            Row::Pending => *slot = Row::Done(result),
            Row::Waiting(waker) => {
                *slot = Row::Done(result);
                drop(rows);
                waker.wake();
            }
            Row::Callback(callback) => {
                // A callback may call the producer: never under the lock.
                drop(rows);
                callback(result.map(|stored| self.metadata(stored)));
            }
            done @ (Row::Done(_) | Row::Taken) => {
                debug_assert!(false, "a row gets one result");
                *slot = done;
                return false;
            }
        }
        self.open.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Notes that the delivery of this row was dropped.
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

/// Resolves to the result of a record. Dropping it does not cancel the record.
#[must_use = "await the delivery to learn whether the record was stored, or use send_and_forget"]
pub struct Delivery {
    results: Arc<ChunkResults>,
    row: u32,
}

impl Delivery {
    pub(crate) fn new(results: Arc<ChunkResults>, row: u32) -> Self {
        Self { results, row }
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery").field("topic", &self.results.topic).field("row", &self.row).finish()
    }
}

impl Future for Delivery {
    type Output = Result<RecordMetadata, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut rows = self.results.rows.lock();
        let slot = &mut rows[self.row as usize];
        match slot {
            Row::Done(_) => match std::mem::replace(slot, Row::Taken) {
                Row::Done(result) => Poll::Ready(result.map(|stored| self.results.metadata(stored))),
                _ => unreachable!("matched above"),
            },
            Row::Waiting(waker) => {
                waker.clone_from(context.waker());
                Poll::Pending
            }
            Row::Taken => panic!("a delivery was polled after it was ready"),
            _ => {
                *slot = Row::Waiting(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.results.abandon(self.row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(offset: i64) -> Stored {
        Stored { partition: 3, offset, timestamp: 7 }
    }

    #[tokio::test]
    async fn a_delivery_resolves_before_and_after_its_result() {
        let results = Arc::new(ChunkResults::new(0, "t".into()));
        let early = Delivery::new(results.clone(), results.push(Row::Pending));
        let late = Delivery::new(results.clone(), results.push(Row::Pending));
        let waiting = tokio::spawn(early);
        tokio::task::yield_now().await;
        assert!(!results.finish(0, Ok(stored(10))));
        assert!(results.finish(1, Err(Error::Closed)));
        let metadata = waiting.await.unwrap().unwrap();
        assert_eq!((metadata.partition, metadata.offset, metadata.timestamp), (3, 10, 7));
        assert!(matches!(late.await, Err(Error::Closed)));
    }

    #[test]
    fn callbacks_run_once_and_dropped_deliveries_are_forgotten() {
        let results = Arc::new(ChunkResults::new(0, "t".into()));
        let (sender, receiver) = std::sync::mpsc::channel();
        let row = results.push(Row::Callback(Box::new(move |result| sender.send(result.unwrap().offset).unwrap())));
        drop(Delivery::new(results.clone(), results.push(Row::Pending)));
        results.push(Row::Ignored);
        assert!(!results.finish(row, Ok(stored(5))));
        assert!(!results.finish(1, Ok(stored(6))));
        assert!(results.finish(2, Ok(stored(7))));
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [5]);
    }
}
