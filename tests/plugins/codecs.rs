//! Each compressor writes what the native codec reads, and reads what the native codec writes.

use std::fmt::Write;

use millstream_record::codec::{self, Codec};
use millstream_stage::{Fault, Stage};

use crate::components::stage;

/// Returns inputs of different kinds: empty, tiny, text, incompressible, runs, and larger than a block of any codec.
fn inputs() -> Vec<Vec<u8>> {
    let mut text = String::new();
    for number in 0..4_000 {
        write!(text, "{{\"number\":{number},\"square\":{}}}", number * number).unwrap();
    }
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        // xorshift32
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    })
    .take(100_000)
    .collect();
    vec![Vec::new(), b"a".to_vec(), text.into_bytes(), noise, vec![b'z'; 300_000]]
}

#[track_caller]
fn agree(stage: &Stage, codec: Codec, level: Option<i32>) {
    for input in inputs() {
        let max = input.len().max(1);
        let compressed = stage.compress(&input, 1).unwrap();
        assert!(
            codec::decompress(codec, &compressed, max).unwrap() == input,
            "the native codec reads {} bytes",
            input.len()
        );
        let native = codec::compress(codec, level, &input).unwrap();
        assert!(stage.decompress(&native, 1, max).unwrap() == input, "the plug-in reads {} bytes", input.len());
        if input.len() > 1_000 {
            let error = stage.decompress(&native, 1, input.len() - 1).unwrap_err();
            assert!(!error.fault.is_trap(), "exceeding the cap is a reported error: {error}");
        }
    }
}

#[test]
fn gzip() {
    agree(&stage("gzip", "{}"), Codec::Gzip, None);
    agree(&stage("gzip", r#"{"level":1}"#), Codec::Gzip, Some(9));
}

#[test]
fn snappy() {
    agree(&stage("snappy", "{}"), Codec::Snappy, None);
}

#[test]
fn lz4() {
    agree(&stage("lz4", "{}"), Codec::Lz4, None);
}

#[test]
fn zstd() {
    agree(&stage("zstd", "{}"), Codec::Zstd, None);
    agree(&stage("zstd", r#"{"level":1}"#), Codec::Zstd, Some(19));
}

/// Cut, changed and foreign bytes are errors of the stage, which keeps working.
#[test]
fn bytes_of_no_codec_are_rejected() {
    for (name, codec) in [("gzip", Codec::Gzip), ("snappy", Codec::Snappy), ("lz4", Codec::Lz4), ("zstd", Codec::Zstd)]
    {
        let stage = stage(name, "{}");
        let good = codec::compress(codec, None, &b"some text that repeats itself ".repeat(50)).unwrap();
        for cut in [1, good.len() / 2, good.len() - 1] {
            let error = stage.decompress(&good[..cut], 1, 1 << 20).unwrap_err();
            assert!(matches!(error.fault, Fault::Batch(_)), "{name} cut at {cut}: {error}");
        }
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 0x55;
            // A format without a checksum may decompress to other bytes, but never to more than the cap.
            match stage.decompress(&bad, 1, 1 << 20) {
                Ok(output) => assert!(output.len() <= 1 << 20),
                Err(error) => assert!(!error.fault.is_trap(), "{name} changed at {position}: {error}"),
            }
        }
        assert!(stage.decompress(&good, 1, 1 << 20).is_ok(), "{name} still serves");
    }
}
