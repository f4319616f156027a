//! `contains{"text":"error"}`: a filter that keeps the records whose value contains a text, byte for byte.
#![forbid(unsafe_code)]

mod search;

use millstream_sdk::{Batch, Bitmap, ConfigError, Error, Filter, Record, Result};
use serde::Deserialize;

use search::Search;

/// Keeps the records whose value contains a text. A record without a value is not kept.
#[derive(Debug, Deserialize)]
pub struct Contains {
    text: String,
    #[serde(skip)]
    search: Option<Search>,
}

impl Contains {
    fn search(&self) -> &Search {
        self.search.as_ref().expect("`prepare` made the search")
    }
}

impl Filter for Contains {
    fn prepare(&mut self) -> Result<(), ConfigError> {
        if self.text.is_empty() {
            return Err(ConfigError::new("/text", "the text is empty: every record would be kept"));
        }
        self.search = Some(Search::new(&self.text));
        Ok(())
    }

    fn keep(&self, record: &Record<'_>) -> Result<bool> {
        Ok(record.value().is_some_and(|value| self.search().find(value, 0).is_some()))
    }

    /// Searches the whole column as one text, so that the vector loop starts once for each hit and not for each row.
    fn keep_batch(&self, batch: &Batch<'_>, keep: &mut Bitmap) -> Result<(), Error> {
        let (data, ends) = (batch.values().data(), batch.values().ends());
        let (mut row, mut position) = (0, 0);
        while let Some(start) = self.search().find(data, position) {
            row += ends[row..].partition_point(|end| *end as usize <= start);
            if row == ends.len() {
                break;
            }
            if start + self.text.len() <= ends[row] as usize {
                keep.set(row);
            }
            // The hit is in this row, or starts here and ends in a later row, and so would any later hit in this row.
            // The search continues in the next row that is long enough: a hit across short rows costs its length each
            // time.
            row += 1;
            while ends.get(row).is_some_and(|end| ((end - ends[row - 1]) as usize) < self.text.len()) {
                row += 1;
            }
            position = ends[row - 1] as usize;
        }
        Ok(())
    }
}

millstream_sdk::filter!(Contains);

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_sdk::BatchBuf;

    fn contains(text: &str) -> Contains {
        let mut stage = Contains { text: text.into(), search: None };
        stage.prepare().unwrap();
        stage
    }

    #[test]
    fn the_column_and_the_rows_give_the_same_result() {
        let pieces = ["", "a", "aa", "ab", "ba", "aab", "bab", "abab", "aaaa", "b"];
        for text in ["a", "aa", "ab", "aba", "bb"] {
            let mut batch = BatchBuf::new("t");
            for (index, first) in pieces.iter().enumerate() {
                for second in pieces {
                    batch.push(
                        0,
                        None,
                        (index != 4).then_some([first.as_bytes(), second.as_bytes()].concat()).as_deref(),
                        &[],
                    );
                }
            }
            let (stage, batch) = (contains(text), batch.as_batch());
            let kept = millstream_sdk::filter::filter(&stage, &batch).unwrap();
            for record in batch.records() {
                assert_eq!(kept.get(record.row()), stage.keep(&record).unwrap(), "{text} in {record:?}");
            }
        }
    }
}
