//! A compressor: makes the records of a batch smaller, and reads them back.
#![forbid(unsafe_code)]

use millstream_sdk::{Compressor, Format, Result};
use serde::Deserialize;

/// The configuration: no fields, so a user writes {{name}} alone.
#[derive(Deserialize)]
pub struct {{type}} {}

impl Compressor for {{type}} {
    /// A format of its own, that only this plug-in reads. Kafka's codecs are `Format::Gzip` and so on.
    const FORMAT: Format = Format::Private("{{name}}");

    /// Runs of a byte become the byte and the length of the run.
    fn compress(&mut self, data: &[u8]) -> Result<Vec<u8>> {
        let runs = data.chunk_by(|a, b| a == b).flat_map(|run| run.chunks(255));
        Ok(runs.flat_map(|run| [run[0], run.len() as u8]).collect())
    }

    /// At most `max` bytes, whatever the data claims.
    fn decompress(&mut self, data: &[u8], max: usize) -> Result<Vec<u8>> {
        let mut output = Vec::new();
        for run in data.chunks(2) {
            let [byte, length] = run else { return Err("half a run".into()) };
            if output.len() + usize::from(*length) > max {
                return Err(format!("the output is over {max} bytes").into());
            }
            output.resize(output.len() + usize::from(*length), *byte);
        }
        Ok(output)
    }
}

millstream_sdk::compressor!({{type}});
