//! The standard codecs: both ways, in the forms that other libraries write, and with a limit.

use std::io::Write;

use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use millstream_record::codec::{Codec, CodecError, compress, compress_into, decompress};

use crate::allocations::watch;
use crate::support::Random;

const COMPRESSED: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

/// Inputs around the block sizes of the formats, from all zeros to noise.
fn inputs() -> Vec<Vec<u8>> {
    let mut random = Random(21);
    let mut inputs = vec![Vec::new()];
    for len in [1, 2, 100, 32 << 10, (32 << 10) + 1, (64 << 10) - 1, 64 << 10, (64 << 10) + 1, 300_000] {
        inputs.push(vec![0; len]);
        inputs.push((0..len).map(|_| random.next() as u8).collect());
        inputs.push((0..len).map(|i| (i / 7 % 251) as u8).collect());
    }
    inputs
}

fn is_corrupt(result: &Result<Vec<u8>, CodecError>) -> bool {
    matches!(result, Err(CodecError::Corrupt { .. }))
}

#[test]
fn names_and_ids_are_kafkas() {
    for (id, name) in ["none", "gzip", "snappy", "lz4", "zstd"].into_iter().enumerate() {
        let codec = Codec::from_attributes(id as i16 | 0x38).unwrap();
        assert_eq!((codec.id(), codec.name(), codec.to_string().as_str()), (id as i16, name, name));
        assert_eq!(name.parse(), Ok(codec));
    }
    assert_eq!("uncompressed".parse(), Ok(Codec::None));
    let error = "brotli".parse::<Codec>().unwrap_err();
    assert_eq!(error.to_string(), "compression codec \"brotli\" is unknown: use none, gzip, snappy, lz4 or zstd");
}

#[test]
fn every_input_comes_back_and_the_cap_is_exact() {
    for input in inputs() {
        for codec in Codec::ALL {
            let compressed = compress(codec, None, &input).unwrap();
            assert_eq!(decompress(codec, &compressed, input.len()).as_ref(), Ok(&input), "{codec}");
            assert_eq!(decompress(codec, &compressed, usize::MAX).as_ref(), Ok(&input), "{codec}");
            if let Some(max) = input.len().checked_sub(1) {
                for max in [max, max / 2, 0] {
                    let result = decompress(codec, &compressed, max);
                    assert_eq!(result, Err(CodecError::TooLarge { max }), "{codec} {}", input.len());
                }
            }
            let mut behind = b"before".to_vec();
            compress_into(codec, None, &input, &mut behind).unwrap();
            assert_eq!(behind, [b"before", &*compressed].concat());
        }
    }
}

#[test]
fn every_level_is_read_back() {
    let input = vec![b"levels of compression, ".as_slice(); 500].concat();
    for codec in Codec::ALL {
        let Some(levels) = codec.levels() else {
            assert_eq!(compress(codec, Some(1), &input), Err(CodecError::Level { codec, level: 1 }));
            continue;
        };
        for level in [*levels.start(), 1, 3, 9, *levels.end()] {
            let compressed = compress(codec, Some(level), &input).unwrap();
            assert_eq!(decompress(codec, &compressed, input.len()).as_ref(), Ok(&input), "{codec} {level}");
        }
        for level in [levels.start() - 1, levels.end() + 1] {
            assert_eq!(compress(codec, Some(level), &input), Err(CodecError::Level { codec, level }));
        }
    }
}

#[test]
fn snappy_is_read_raw_and_in_several_streams() {
    for input in inputs() {
        let raw = snap::raw::Encoder::new().compress_vec(&input).unwrap();
        assert_eq!(decompress(Codec::Snappy, &raw, input.len()).as_ref(), Ok(&input));
        let framed = compress(Codec::Snappy, None, &input).unwrap();
        assert_eq!(framed[..16], *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
        let twice = [&*framed, &*framed].concat();
        let expected = [&*input, &*input].concat();
        assert_eq!(decompress(Codec::Snappy, &twice, expected.len()), Ok(expected));
    }
}

#[test]
fn lz4_is_read_in_every_form_of_the_frame() {
    for input in inputs() {
        for mode in [BlockMode::Independent, BlockMode::Linked] {
            for size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB] {
                for checksums in [false, true] {
                    let info = FrameInfo::new()
                        .block_mode(mode)
                        .block_size(size)
                        .block_checksums(checksums)
                        .content_checksum(checksums)
                        .content_size(checksums.then_some(input.len() as u64));
                    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
                    encoder.write_all(&input).unwrap();
                    let frame = encoder.finish().unwrap();
                    assert_eq!(decompress(Codec::Lz4, &frame, input.len()).as_ref(), Ok(&input));
                }
            }
        }
        // We write what Java's reader accepts: version 1, independent blocks of 64 KiB, no checksums.
        let ours = compress(Codec::Lz4, None, &input).unwrap();
        assert_eq!(ours[..7], [0x04, 0x22, 0x4D, 0x18, 0x60, 0x40, 0x82]);
    }
}

#[test]
fn gzip_and_zstd_are_read_in_several_parts_and_zstd_as_a_stream() {
    for input in inputs() {
        for codec in [Codec::Gzip, Codec::Zstd] {
            let part = compress(codec, None, &input).unwrap();
            let expected = input.repeat(3);
            assert_eq!(decompress(codec, &part.repeat(3), expected.len()), Ok(expected), "{codec}");
        }
        // As Java's client writes it: without a content size, and with the window of its level, 8 MiB at 19.
        for level in [1, 3, 19].into_iter().filter(|level| *level < 19 || input.len() < 2) {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), level).unwrap();
            encoder.write_all(&input).unwrap();
            let stream = encoder.finish().unwrap();
            assert_eq!(decompress(Codec::Zstd, &stream, input.len()).as_ref(), Ok(&input), "{level}");
        }
    }
}

#[test]
fn a_cut_is_an_error_at_every_byte() {
    let mut random = Random(22);
    let noise: Vec<u8> = (0..300).map(|_| random.next() as u8).collect();
    for input in [noise, vec![7; 5_000], b"x".to_vec()] {
        for codec in COMPRESSED {
            let compressed = compress(codec, None, &input).unwrap();
            for cut in 0..compressed.len() {
                let result = decompress(codec, &compressed[..cut], 1 << 20);
                // A snappy stream has no end mark: it is whole after its header and after each chunk, of which there is
                // one.
                if codec == Codec::Snappy && cut == 16 {
                    assert_eq!(result, Ok(Vec::new()));
                } else {
                    assert!(is_corrupt(&result), "{codec} cut at {cut}: {result:?}");
                }
            }
            let trailing = [&*compressed, b"trailing"].concat();
            assert!(is_corrupt(&decompress(codec, &trailing, 1 << 20)), "{codec}");
        }
    }
}

/// Returns the largest allowed allocation: what the limit allows, and a vector's growth by doubling.
fn allowed(max: usize) -> usize {
    2 * max + (64 << 10)
}

#[test]
fn bombs_stop_at_the_cap() {
    let max = 1 << 20;
    let zeros = vec![0; 64 << 20];
    for codec in COMPRESSED {
        let bomb = compress(codec, None, &zeros).unwrap();
        let (result, seen) = watch(|| decompress(codec, &bomb, max));
        assert_eq!(result, Err(CodecError::TooLarge { max }), "{codec}");
        assert!(seen.largest <= allowed(max), "{codec} {seen:?}");
    }
    // zstd without a content size has to be decompressed.
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    encoder.write_all(&zeros).unwrap();
    let bomb = encoder.finish().unwrap();
    let (result, seen) = watch(|| decompress(Codec::Zstd, &bomb, max));
    assert_eq!(result, Err(CodecError::TooLarge { max }));
    assert!(seen.largest <= allowed(max), "{seen:?}");
}

/// A few bytes that claim a huge size never cause such an allocation, whatever the limit.
#[test]
fn claims_are_not_believed() {
    let xerial =
        |block: &[u8]| [b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01", &(block.len() as u32).to_be_bytes()[..], block].concat();
    let four_gib_snappy = [0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0, b'a'];
    // Magic; single segment with a content size of eight bytes; the size; a raw block "abc".
    let four_gib_zstd =
        [&[0x28, 0xB5, 0x2F, 0xFD, 0xE0], &(4u64 << 30).to_le_bytes()[..], &[0x19, 0, 0], b"abc"].concat();
    let mut four_gib_lz4 = vec![0x04, 0x22, 0x4D, 0x18, 0x68, 0x70];
    four_gib_lz4.extend((4u64 << 30).to_le_bytes());
    four_gib_lz4.push((twox_hash::XxHash32::oneshot(0, &four_gib_lz4[4..]) >> 8) as u8);
    four_gib_lz4.extend([1, 0, 0, 0, 0x00, 0, 0, 0, 0]);
    for (codec, input) in [
        (Codec::Snappy, four_gib_snappy.to_vec()),
        (Codec::Snappy, xerial(&four_gib_snappy)),
        (Codec::Snappy, [b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".as_slice(), &[0x7F, 0xFF, 0xFF, 0xFF, 1]].concat()),
        (Codec::Zstd, four_gib_zstd),
        (Codec::Lz4, four_gib_lz4),
    ] {
        for max in [1 << 20, usize::MAX] {
            let (result, seen) = watch(|| decompress(codec, &input, max));
            assert!(result.is_err(), "{codec} {result:?}");
            assert!(seen.largest <= 4 << 20, "{codec} {seen:?}");
        }
    }
    assert_eq!(decompress(Codec::Snappy, &four_gib_snappy, 1 << 20), Err(CodecError::TooLarge { max: 1 << 20 }));
}

#[test]
fn a_zstd_window_of_two_gib_costs_nothing() {
    for exponent in [0u8, 17, 21] {
        let frame = [&[0x28, 0xB5, 0x2F, 0xFD, 0x00, exponent << 3, 0x19, 0, 0], &b"abc"[..]].concat();
        let (result, seen) = watch(|| decompress(Codec::Zstd, &frame, 1 << 20));
        assert_eq!(result, Ok(b"abc".to_vec()));
        assert!(seen.largest <= 1 << 10, "{seen:?}");
    }
}

/// Returns raw LZ4 blocks in a frame.
fn lz4_frame(flags: u8, blocks: &[&[u8]]) -> Vec<u8> {
    let mut frame = vec![0x04, 0x22, 0x4D, 0x18, flags, 0x40];
    frame.push((twox_hash::XxHash32::oneshot(0, &frame[4..]) >> 8) as u8);
    for block in blocks {
        frame.extend((block.len() as u32).to_le_bytes());
        frame.extend_from_slice(block);
    }
    frame.extend([0; 4]);
    frame
}

#[test]
fn an_lz4_match_that_reaches_before_the_start_is_an_error() {
    const INDEPENDENT: u8 = 0x60;
    const LINKED: u8 = 0x40;
    let literals = [0x40, b'a', b'b', b'c', b'd'];
    // Token: no literals, a match of four; its offset; then five literals, as a block must end.
    let matched = |offset: u16| {
        let [low, high] = offset.to_le_bytes();
        [0x00, low, high, 0x50, b'1', b'2', b'3', b'4', b'5']
    };
    for offset in [0, 1, 4, 5, 1000, u16::MAX] {
        let alone = lz4_frame(INDEPENDENT, &[&matched(offset)]);
        assert!(is_corrupt(&decompress(Codec::Lz4, &alone, 1 << 20)), "{offset}");
        // An independent block may not reach into the one before it either.
        let second = lz4_frame(INDEPENDENT, &[&literals, &matched(offset)]);
        assert!(is_corrupt(&decompress(Codec::Lz4, &second, 1 << 20)), "{offset}");
        let linked = lz4_frame(LINKED, &[&literals, &matched(offset)]);
        let linked = decompress(Codec::Lz4, &linked, 1 << 20);
        match offset {
            4 => assert_eq!(linked, Ok(b"abcdabcd12345".to_vec())),
            1 => assert_eq!(linked, Ok(b"abcddddd12345".to_vec())),
            _ => assert!(is_corrupt(&linked), "{offset} {linked:?}"),
        }
    }
}

#[test]
fn damaged_input_never_panics_nor_passes_the_cap() {
    let mut random = Random(23);
    let max = 100_000;
    for codec in COMPRESSED {
        for round in 0..3_000 {
            let mut input = compress(codec, None, &random.bytes(2_000)).unwrap();
            for _ in 0..1 + random.below(6) {
                let at = random.below(input.len());
                match random.below(4) {
                    0 => input[at] ^= 1 << random.below(8),
                    1 => input[at] = [0, 0xFF, 0x7F, 0x80][random.below(4)],
                    2 => input.truncate(at.max(1)),
                    _ => input.insert(at, random.next() as u8),
                }
            }
            let (result, seen) = watch(|| decompress(codec, &input, max));
            assert!(result.is_err() || result.is_ok_and(|out| out.len() <= max), "{codec} {round}");
            assert!(seen.largest <= allowed(max), "{codec} {round} {seen:?}");
        }
        for _ in 0..3_000 {
            let noise = random.bytes(200);
            let (_, seen) = watch(|| decompress(codec, &noise, max));
            assert!(seen.largest <= allowed(max), "{codec} {seen:?}");
        }
    }
}
