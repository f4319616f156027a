//! A compressor: compresses the records of a batch, and decompresses them.
#![forbid(unsafe_code)]

use millstream_sdk::{Compressor, Format, Result};
use serde::Deserialize;

/// The configuration: no fields, so a user writes just {{name}}.
#[derive(Deserialize)]
pub struct {{type}} {}

impl Compressor for {{type}} {
    /// A private format, which only this plug-in reads. Kafka's codecs are `Format::Gzip` and so on.
    const FORMAT: Format = Format::Private("{{name}}");

    /// Writes each run of equal bytes as the byte and the length of the run.
    fn compress(&mut self, data: &[u8]) -> Result<Vec<u8>> {
        let runs = data.chunk_by(|a, b| a == b).flat_map(|run| run.chunks(255));
        Ok(runs.flat_map(|run| [run[0], run.len() as u8]).collect())
    }

    /// Returns at most `max` bytes, whatever size the data claims.
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
