//! `lz4`: a compressor that writes LZ4 frames, Kafka's codec 3.
#![forbid(unsafe_code)]

mod frame;

use std::fmt;

use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};
use millstream_sdk::{Compressor, Format, Result};
use serde::Deserialize;

use frame::{BLOCK_STORED, END, Frame, HEADER};

/// The bytes of every block but the last.
const BLOCK: usize = 64 << 10;

/// LZ4 frames of independent blocks of 64 KiB: the Java client cannot read others.
#[derive(Deserialize)]
pub struct Lz4 {
    /// Kept from batch to batch, like `compressed`.
    #[serde(skip)]
    table: CompressTable,
    /// Room for one compressed block.
    #[serde(skip)]
    compressed: Vec<u8>,
}

impl fmt::Debug for Lz4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lz4").finish_non_exhaustive()
    }
}

impl Compressor for Lz4 {
    const FORMAT: Format = Format::Lz4;

    fn compress(&mut self, data: &[u8]) -> Result<Vec<u8>> {
        self.compressed.resize(get_maximum_output_size(BLOCK), 0);
        let mut output = Vec::with_capacity(HEADER.len() + data.len() / 2);
        output.extend_from_slice(&HEADER);
        for block in data.chunks(BLOCK) {
            let size = compress_into_with_table(block, &mut self.compressed, &mut self.table)?;
            let (bytes, flag) = if size < block.len() { (&self.compressed[..size], 0) } else { (block, BLOCK_STORED) };
            output.extend_from_slice(&(u32::try_from(bytes.len())? | flag).to_le_bytes());
            output.extend_from_slice(bytes);
        }
        output.extend_from_slice(&END);
        Ok(output)
    }

    fn decompress(&mut self, data: &[u8], max: usize) -> Result<Vec<u8>> {
        Frame::read(data)?.decompress(max)
    }
}

millstream_sdk::compressor!(Lz4);
