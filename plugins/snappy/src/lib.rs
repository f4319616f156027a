//! `snappy`: a compressor that writes what Kafka's Java client does, codec 2: raw snappy in the frame of the
//! snappy-java (xerial) library. It reads raw snappy without the frame too, which other clients write.
#![forbid(unsafe_code)]

use millstream_sdk::{Compressor, Format, Result};
use serde::Deserialize;
use snap::raw::{Decoder, Encoder, decompress_len, max_compress_len};

/// snappy-java's `SnappyOutputStream`: the magic, then version 1, readable by version 1, both big-endian.
const HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const MAGIC: &[u8] = HEADER.split_at(8).0;

/// snappy-java's block size, in bytes.
const BLOCK: usize = 32 * 1024;

/// Blocks of 32 KiB, each behind its length in four bytes, big-endian.
#[derive(Debug, Deserialize)]
pub struct Snappy {
    /// Keeps its table from block to block.
    #[serde(skip)]
    encoder: Option<Encoder>,
}

impl Compressor for Snappy {
    const FORMAT: Format = Format::Snappy;

    fn compress(&mut self, data: &[u8]) -> Result<Vec<u8>> {
        let encoder = self.encoder.get_or_insert_with(Encoder::new);
        let mut output = Vec::with_capacity(HEADER.len() + data.len() / 2);
        output.extend_from_slice(&HEADER);
        for block in data.chunks(BLOCK) {
            let start = output.len() + 4;
            output.resize(start + max_compress_len(block.len()), 0);
            let length = encoder.compress(block, &mut output[start..])?;
            output[start - 4..start].copy_from_slice(&u32::try_from(length)?.to_be_bytes());
            output.truncate(start + length);
        }
        Ok(output)
    }

    fn decompress(&mut self, data: &[u8], max: usize) -> Result<Vec<u8>> {
        let mut output = Vec::new();
        if !data.starts_with(MAGIC) {
            append(data, &mut output, max)?;
            return Ok(output);
        }
        let mut rest = data;
        while !rest.is_empty() {
            // Streams may follow each other, as snappy-java reads them.
            if rest.starts_with(MAGIC) {
                rest = rest.get(HEADER.len()..).ok_or("the header is cut off")?;
                continue;
            }
            let (length, behind) = rest.split_first_chunk::<4>().ok_or("the length of a block is cut off")?;
            let length = usize::try_from(u32::from_be_bytes(*length))?;
            let (block, behind) = behind.split_at_checked(length).ok_or("a block is cut off")?;
            append(block, &mut output, max)?;
            rest = behind;
        }
        Ok(output)
    }
}

/// Decompresses a block behind `output`; the length that it claims is checked before anything is allocated.
fn append(block: &[u8], output: &mut Vec<u8>, max: usize) -> Result<()> {
    let length = decompress_len(block)?;
    let start = output.len();
    if length > max - start {
        return Err(format!("the output is over {max} bytes").into());
    }
    output.resize(start + length, 0);
    Decoder::new().decompress(block, &mut output[start..])?;
    Ok(())
}

millstream_sdk::compressor!(Snappy);
