//! Makes the calls of each kind and checks their responses. A response is used only if all of it is right: a batch is
//! never half done.

use crate::batch::{Bitmap, Changed, ColumnBuf, Records, bitmap_bytes};
use crate::contract::{GuestError, Kind, RowError};
use crate::error::Fault;
use crate::host_imports::escape;
use crate::instance::{Bounds, Functions, Instance};

/// The bytes that the error of one row may take, in addition to the limit of the response.
const ROW_ERROR_BYTES: usize = 256;

/// The message of a bad row without one. The SDK omits the messages after the first rows.
const MESSAGE_OMITTED: &str = "rejected by the stage; its message was omitted because many rows failed";

impl Instance {
    /// Returns one partition a row, each below `partitions`.
    pub(crate) fn partition(
        &mut self,
        topic: &str,
        partitions: u32,
        load: &[u64],
        records: Records<'_>,
    ) -> Result<Vec<u32>, Fault> {
        const CALL: &str = "partition";
        let Functions::Partitioner { partition } = &self.functions else {
            return Err(self.wrong_kind(Kind::Partitioner));
        };
        let partition = *partition;
        let rows = records.rows as usize;
        let work_bytes = self.check_input(topic, &records, load.len() * 8)?;
        let bytes_max = rows * 4 + self.limits().output_slack_bytes;
        let parameters = (topic, partitions, load, records);
        let bounds = Bounds { call: CALL, work_bytes, response_bytes_max: bytes_max + rows * ROW_ERROR_BYTES };
        let (response,) = self.call(bounds, &partition, parameters)?;
        let response = response.map_err(|error| guest_error(CALL, error, rows))?;
        if response.len() != rows {
            let problem = format!("{} partitions for {rows} rows", response.len());
            return Err(bad(CALL, None, problem));
        }
        // Never folded into range: a partitioner that is wrong once is wrong. One pass without branches checks all
        // rows; the wrong row is searched only if there is one.
        let is_good = response.iter().copied().max().is_none_or(|most| most < partitions);
        if !is_good && let Some(row) = response.iter().position(|&chosen| chosen >= partitions) {
            let problem = format!("partition {} of {partitions}", response[row]);
            return Err(bad(CALL, Some(row as u32), problem));
        }
        Ok(response)
    }

    /// Returns the new columns of records that are produced.
    pub(crate) fn serialize(&mut self, topic: &str, records: Records<'_>) -> Result<Changed, Fault> {
        let bytes_max = self.limits().output_bytes_max(records.size_bytes());
        self.change("serialize", topic, records, bytes_max)
    }

    /// Returns the new columns of records that are consumed.
    pub(crate) fn deserialize(&mut self, topic: &str, records: Records<'_>) -> Result<Changed, Fault> {
        let bytes_max = self.limits().deserialized_bytes_max(records.size_bytes());
        self.change("deserialize", topic, records, bytes_max)
    }

    fn change(
        &mut self,
        call: &'static str,
        topic: &str,
        records: Records<'_>,
        bytes_max: usize,
    ) -> Result<Changed, Fault> {
        let function = match &self.functions {
            Functions::Serializer { serialize, .. } if call == "serialize" => *serialize,
            Functions::Serializer { deserialize, .. } => *deserialize,
            _ => return Err(self.wrong_kind(Kind::Serializer)),
        };
        let rows = records.rows as usize;
        let work_bytes = self.check_input(topic, &records, 0)?;
        let response_bytes_max = bytes_max.saturating_add(rows * ROW_ERROR_BYTES);
        let bounds = Bounds { call, work_bytes, response_bytes_max };
        let (response,) = self.call(bounds, &function, (topic, records))?;
        let changed = response.map_err(|error| guest_error(call, error, rows))?;
        let columns = || [("key", &changed.keys), ("value", &changed.values)];
        let size: usize = columns().iter().filter_map(|(_, column)| column.as_ref()).map(ColumnBuf::size_bytes).sum();
        if size > bytes_max {
            let max_bytes = bytes_max;
            return Err(Fault::ResponseTooLarge { call, max_bytes });
        }
        for (name, column) in columns() {
            let Some(column) = column else { continue };
            column.check(rows).map_err(|error| bad(call, error.row(), format!("new {name}s: {error}")))?;
        }
        Ok(changed)
    }

    /// Returns the compressed bytes.
    pub(crate) fn compress(&mut self, data: &[u8]) -> Result<Vec<u8>, Fault> {
        const CALL: &str = "compress";
        let Functions::Compressor { compress, .. } = &self.functions else {
            return Err(self.wrong_kind(Kind::Compressor));
        };
        let compress = *compress;
        self.check_fits(data.len())?;
        let response_bytes_max = self.limits().output_bytes_max(data.len());
        let bounds = Bounds { call: CALL, work_bytes: data.len(), response_bytes_max };
        let (response,) = self.call(bounds, &compress, (data,))?;
        response.map_err(|message| Fault::Batch(escape(&message)))
    }

    /// Returns the decompressed bytes, at most `bytes_max`.
    pub(crate) fn decompress(&mut self, data: &[u8], bytes_max: usize) -> Result<Vec<u8>, Fault> {
        const CALL: &str = "decompress";
        let Functions::Compressor { decompress, .. } = &self.functions else {
            return Err(self.wrong_kind(Kind::Compressor));
        };
        let decompress = *decompress;
        self.check_fits(data.len())?;
        // The guest gets the limit in 32 bits, which its memory never exceeds.
        let limit = u32::try_from(bytes_max).unwrap_or(u32::MAX);
        let max_bytes = limit as usize;
        // The guest has to work through what it may produce, as far as its memory can hold that.
        let work_bytes = data.len().max(max_bytes.min(self.limits().memory_bytes));
        let response_bytes_max = max_bytes.saturating_add(self.limits().output_slack_bytes);
        let bounds = Bounds { call: CALL, work_bytes, response_bytes_max };
        let (response,) = self.call(bounds, &decompress, (data, limit))?;
        let bytes = response.map_err(|message| Fault::Batch(escape(&message)))?;
        if bytes.len() > max_bytes {
            let call = CALL;
            return Err(Fault::ResponseTooLarge { call, max_bytes });
        }
        Ok(bytes)
    }

    /// Returns the rows to keep.
    pub(crate) fn filter(&mut self, topic: &str, records: Records<'_>) -> Result<Bitmap, Fault> {
        const CALL: &str = "filter";
        let Functions::Filter { filter } = &self.functions else {
            return Err(self.wrong_kind(Kind::Filter));
        };
        let filter = *filter;
        let rows = records.rows as usize;
        let work_bytes = self.check_input(topic, &records, 0)?;
        let response_bytes_max = bitmap_bytes(rows) + self.limits().output_slack_bytes + rows * ROW_ERROR_BYTES;
        let bounds = Bounds { call: CALL, work_bytes, response_bytes_max };
        let (response,) = self.call(bounds, &filter, (topic, records))?;
        let bits = response.map_err(|error| guest_error(CALL, error, rows))?;
        let bytes = bits.len();
        Bitmap::new(rows, bits).ok_or_else(|| {
            let want = bitmap_bytes(rows);
            let problem = format!("a bitmap of {bytes} bytes for {rows} rows, which need {want}");
            bad(CALL, None, problem)
        })
    }

    /// Returns the bytes that are copied to the guest, which must fit.
    fn check_input(&self, topic: &str, records: &Records<'_>, more_bytes: usize) -> Result<usize, Fault> {
        let bytes = records.size_bytes() + topic.len() + more_bytes;
        self.check_fits(bytes)?;
        Ok(bytes)
    }

    /// Rejects input that cannot fit, so that the caller can split a large batch before it traps.
    fn check_fits(&self, bytes: usize) -> Result<(), Fault> {
        let max_bytes = self.limits().memory_bytes;
        if bytes > max_bytes {
            return Err(Fault::InputTooLarge { bytes, max_bytes });
        }
        Ok(())
    }

    fn wrong_kind(&self, want: Kind) -> Fault {
        let have = match self.functions {
            Functions::Partitioner { .. } => Kind::Partitioner,
            Functions::Serializer { .. } => Kind::Serializer,
            Functions::Compressor { .. } => Kind::Compressor,
            Functions::Filter { .. } => Kind::Filter,
        };
        Fault::WrongKind { have, want }
    }
}

fn bad(call: &'static str, row: Option<u32>, problem: String) -> Fault {
    Fault::BadResponse { call, row, problem }
}

/// Checks an error that the guest returned: rows that exist, in order, each once.
fn guest_error(call: &'static str, error: GuestError, rows: usize) -> Fault {
    let mut bad_rows: Vec<RowError> = match error {
        GuestError::Batch(message) => return Fault::Batch(escape(&message)),
        GuestError::Rows(bad_rows) => bad_rows,
    };
    for bad in &mut bad_rows {
        bad.message = if bad.message.is_empty() { MESSAGE_OMITTED.to_owned() } else { escape(&bad.message) };
    }
    bad_rows.sort_by_key(|bad| bad.row);
    bad_rows.dedup_by_key(|bad| bad.row);
    match bad_rows.last() {
        None => bad(call, None, "an error that names no row".to_owned()),
        Some(last) if last.row as usize >= rows => {
            let problem = format!("an error for row {} of {rows}", last.row);
            bad(call, None, problem)
        }
        Some(_) => Fault::Rows(bad_rows),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_rows_are_checked_and_put_in_order() {
        let row = |row| RowError { row, message: format!("bad {row}") };
        let fault = |rows: &[u32], count| {
            let rows = rows.iter().copied().map(row).collect();
            guest_error("filter", GuestError::Rows(rows), count)
        };
        assert_eq!(fault(&[3, 1, 3], 4), Fault::Rows(vec![row(1), row(3)]));
        assert!(matches!(fault(&[4], 4), Fault::BadResponse { .. }));
        assert!(matches!(fault(&[], 4), Fault::BadResponse { .. }));
        assert!(matches!(fault(&[0], 0), Fault::BadResponse { .. }));
    }
}
