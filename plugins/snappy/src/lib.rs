//! `snappy`: a compressor that writes Kafka's codec 2 as the Java client does: raw snappy in the frame of the library
//! snappy-java (xerial). It also reads raw snappy without the frame, which other clients write.
#![forbid(unsafe_code)]

use millstream_sdk::{Compressor, Format, Result};
use serde::Deserialize;
use snap::raw::{Decoder, Encoder, decompress_len, max_compress_len};

/// The header of snappy-java's `SnappyOutputStream`: the magic, the version 1, and the oldest readable version 1,
/// big-endian.
const HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const MAGIC: &[u8] = HEADER.split_at(8).0;

/// The block size of snappy-java, in bytes.
const BLOCK: usize = 32 * 1024;

/// Blocks of 32 KiB, each after its length in four bytes, big-endian.
#[derive(Debug, Deserialize)]
pub struct Snappy {
    /// Kept from block to block, for its table.
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
            // A stream may follow another, and snappy-java reads both.
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

/// Decompresses a block and appends it to `output`. The length that the block claims is checked before any allocation.
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
