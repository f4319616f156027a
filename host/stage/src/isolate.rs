//! Finds the rows that a batch fails for, so that one poison record does not affect its neighbours.
//!
//! If the stage names its bad rows, it is called again for the others. If it does not (a trap, a passed deadline, a bad
//! response, a rejected batch), the batch is retried once on a fresh instance. An earlier call may have damaged the old
//! one. Then it is split in halves, larger parts first. The number of calls is bounded: rows that are undecided after
//! the last call count as bad.

use std::collections::VecDeque;

use crate::batch::{Bitmap, Records};
use crate::contract::RowError;
use crate::error::{Fault, StageError};

/// The most calls to find the bad rows of one batch, after the call that failed. One bad row of 1,000 takes 21 calls,
/// ten take about 150.
pub const ISOLATION_CALLS_MAX: usize = 256;

/// The calls that a call past its deadline counts as: it costs a thousand times as much as one that fails at once.
const DEADLINE_CALLS: usize = 8;

/// Holds the decisions of a filter for a batch that may have bad rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Isolated {
    /// The rows that the filter keeps. A bad row is not among them.
    pub keep: Bitmap,
    /// The rows that the stage fails for, in order, and why.
    pub bad: Vec<RowError>,
}

/// Finds the bad rows of `records`, for which a stage failed with `error`. `ask` is called with parts of the batch,
/// each time on a fresh instance. `take` is called with the rows of a part, in order, and the response for them.
///
/// # Errors
/// A fault that no row is to blame for: the host is out of instances, the stage does not start, or the caller left out
/// a column. Nothing of the batch may be used.
pub(crate) fn search<R>(
    records: &Records<'_>,
    error: StageError,
    mut ask: impl FnMut(&Records<'_>) -> Result<R, StageError>,
    mut take: impl FnMut(&[u32], R),
) -> Result<Vec<RowError>, StageError> {
    let mut search = Search { left: ISOLATION_CALLS_MAX, parts: VecDeque::new(), bad: Vec::new() };
    let all: Vec<u32> = (0..records.rows).collect();
    let mut last_fault = error.fault.to_string();
    if error.fault.is_trap() {
        search.check_blame(&error)?;
        search.parts.push_back(all);
    } else {
        search.divide(all, error)?;
    }
    while let Some(rows) = search.parts.pop_front() {
        let Some(left) = search.left.checked_sub(1) else {
            search.give_up(&rows, &last_fault);
            continue;
        };
        search.left = left;
        match ask_for(records, &rows, &mut ask) {
            Ok(response) => take(&rows, response),
            Err(error) => {
                last_fault = error.fault.to_string();
                search.divide(rows, error)?;
            }
        }
    }
    search.bad.sort_by_key(|bad| bad.row);
    Ok(search.bad)
}

/// Calls the stage for some rows of the batch. Consecutive rows are not copied.
fn ask_for<R>(
    records: &Records<'_>,
    rows: &[u32],
    ask: &mut impl FnMut(&Records<'_>) -> Result<R, StageError>,
) -> Result<R, StageError> {
    match (rows.first(), rows.last()) {
        (Some(&first), Some(&last)) if (last - first) as usize + 1 == rows.len() => {
            ask(&records.slice(first as usize..last as usize + 1).as_records())
        }
        _ => ask(&records.pick(rows).as_records()),
    }
}

struct Search {
    /// The number of calls that are left.
    left: usize,
    /// The undecided rows, in the parts of the next calls; larger parts first.
    parts: VecDeque<Vec<u32>>,
    bad: Vec<RowError>,
}

impl Search {
    /// Decides which of `rows` are bad, and which to call the stage for again, after a call failed.
    fn divide(&mut self, rows: Vec<u32>, error: StageError) -> Result<(), StageError> {
        self.check_blame(&error)?;
        match error.fault {
            Fault::Rows(named) => {
                // They are in order, each once.
                let mut named = named.into_iter().peekable();
                let mut rest = Vec::with_capacity(rows.len());
                for (place, row) in rows.into_iter().enumerate() {
                    match named.next_if(|bad| bad.row as usize == place) {
                        Some(bad) => self.bad.push(RowError { row, message: bad.message }),
                        None => rest.push(row),
                    }
                }
                if !rest.is_empty() {
                    self.parts.push_back(rest);
                }
            }
            fault => {
                if let Fault::Deadline { .. } = fault {
                    self.left = self.left.saturating_sub(DEADLINE_CALLS - 1);
                }
                if let [row] = rows[..] {
                    self.bad.push(RowError { row, message: fault.to_string() });
                } else {
                    let (first, second) = rows.split_at(rows.len() / 2);
                    self.parts.extend([first, second].into_iter().filter(|half| !half.is_empty()).map(<[u32]>::to_vec));
                }
            }
        }
        Ok(())
    }

    /// Returns the error if no row is to blame for it.
    fn check_blame(&self, error: &StageError) -> Result<(), StageError> {
        if error.fault.is_about_rows() { Ok(()) } else { Err(error.clone()) }
    }

    fn give_up(&mut self, rows: &[u32], fault: &str) {
        let count = rows.len();
        let message =
            format!("one of {count} rows of which some fail ({ISOLATION_CALLS_MAX} calls did not find which): {fault}");
        self.bad.extend(rows.iter().map(|&row| RowError { row, message: message.clone() }));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::batch::RecordsBuf;
    use crate::contract::Columns;

    const VALUES: Columns = Columns { values: true, ..Columns::NONE };

    fn batch(rows: u32) -> RecordsBuf {
        let mut batch = RecordsBuf::new(VALUES);
        for row in 0..rows {
            batch.push(0, None, Some(&row.to_le_bytes()), []).unwrap();
        }
        batch
    }

    fn error(fault: Fault) -> StageError {
        StageError { plugin: "p".into(), version: "1".into(), number: None, fault }
    }

    fn trap() -> Fault {
        Fault::Trap { call: "filter", reason: "unreachable".to_owned() }
    }

    /// Searches with a stage that fails with `fault` for parts that hold a row of `poison`: the bad rows,
    /// the others, and the calls it took.
    fn found(rows: u32, poison: &[u32], fault: &Fault) -> (Vec<u32>, BTreeSet<u32>, usize) {
        let batch = batch(rows);
        let mut calls = 0;
        let mut good = BTreeSet::new();
        let ask = |part: &Records<'_>| {
            calls += 1;
            assert_eq!(part.missing(VALUES), None);
            let row = |bytes: Option<&[u8]>| u32::from_le_bytes(bytes.unwrap().try_into().unwrap());
            let rows: Vec<u32> = part.values.unwrap().iter().map(row).collect();
            if rows.iter().any(|row| poison.contains(row)) { Err(error(fault.clone())) } else { Ok(rows) }
        };
        let take = |rows: &[u32], response: Vec<u32>| {
            assert_eq!(rows, response);
            good.extend(rows);
        };
        let bad = search(&batch.as_records(), error(fault.clone()), ask, take).unwrap();
        (bad.iter().map(|bad| bad.row).collect(), good, calls)
    }

    #[test]
    fn the_bad_rows_are_found_and_the_others_decided() {
        for poison in [&[0][..], &[999], &[500], &[3, 4], &[1, 333, 500, 501, 700, 704, 900, 997, 998, 999]] {
            let (bad, good, calls) = found(1_000, poison, &trap());
            assert_eq!(bad, poison);
            assert_eq!(good.len(), 1_000 - poison.len());
            assert!(calls <= 21 * poison.len(), "{calls} calls for {poison:?}");
        }
        let (bad, good, calls) = found(1, &[0], &trap());
        assert_eq!((bad, good.len(), calls), (vec![0], 0, 1));
    }

    #[test]
    fn a_batch_that_goes_well_the_second_time_has_no_bad_rows() {
        let (bad, good, calls) = found(100, &[], &trap());
        assert_eq!((bad.len(), good.len(), calls), (0, 100, 1));
    }

    #[test]
    fn calls_are_bounded_and_what_is_not_decided_is_bad() {
        let every_other: Vec<u32> = (0..2_000).filter(|row| row % 2 == 0).collect();
        let (bad, good, calls) = found(2_000, &every_other, &trap());
        assert_eq!((bad.len(), good.len(), calls), (2_000, 0, ISOLATION_CALLS_MAX));
        let deadline = Fault::Deadline { call: "filter", limit: Duration::from_millis(20) };
        let (bad, good, calls) = found(1_000, &[77], &deadline);
        assert_eq!((bad, good.len()), (vec![77], 999));
        assert!(calls <= 21);
        let (.., calls) = found(2_000, &every_other, &deadline);
        assert!(calls <= ISOLATION_CALLS_MAX / DEADLINE_CALLS + 1, "{calls}");
    }

    #[test]
    fn rows_that_are_named_are_taken_out_at_once() {
        let batch = batch(10);
        let named = |rows: &[u32]| {
            Fault::Rows(rows.iter().map(|&row| RowError { row, message: format!("no {row}") }).collect())
        };
        let mut asked = Vec::new();
        // In the second call row 4 of what is left is bad, which is row 5 of the batch.
        let ask = |part: &Records<'_>| {
            asked.push(part.rows);
            if part.rows == 8 { Err(error(named(&[3]))) } else { Ok(()) }
        };
        let mut taken = Vec::new();
        let bad = search(&batch.as_records(), error(named(&[0, 2])), ask, |rows, ()| taken.extend_from_slice(rows));
        let bad: Vec<_> = bad.unwrap().into_iter().map(|bad| (bad.row, bad.message)).collect();
        let text = |text: &str| text.to_owned();
        assert_eq!(bad, [(0, text("no 0")), (2, text("no 2")), (5, text("no 3"))]);
        assert_eq!(taken, [1, 3, 4, 6, 7, 8, 9]);
        assert_eq!(asked, [8, 7]);
    }

    #[test]
    fn no_row_is_blamed_for_a_fault_of_the_host() {
        let batch = batch(10);
        for fault in [Fault::Exhausted(7), Fault::Trap { call: "configure", reason: String::new() }] {
            let failed = search(&batch.as_records(), error(trap()), |_| Err::<(), _>(error(fault.clone())), |_, ()| ());
            assert_eq!(failed.unwrap_err().fault, fault);
            let ask = |_: &Records<'_>| -> Result<(), _> { panic!("nothing is asked") };
            assert!(search(&batch.as_records(), error(fault), ask, |_, ()| ()).is_err());
        }
    }
}
