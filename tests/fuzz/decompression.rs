//! The codecs, as the broker and the client decompress what others have compressed.

use bolero::{TypeGenerator, produce};
use millstream_record::Codec;
use millstream_record::codec::{CodecError, check_framing, compress, decompress};

use crate::TEST_TIME;
use crate::allocations::peak;
use crate::damage::{Damage, damaged};

/// What a decoder may hold beside its output.
const FIXED: usize = 512 << 10;

/// A payload of any codec.
#[derive(Clone, Debug, TypeGenerator)]
struct Frame {
    #[generator(0..5usize)]
    codec: usize,
    #[generator(produce::<Vec<Part>>().with().len(0..5usize))]
    content: Vec<Part>,
    level: Option<i32>,
    form: Form,
}

/// Bytes that repeat.
#[derive(Clone, Debug, TypeGenerator)]
struct Part {
    #[generator(produce::<Vec<u8>>().with().len(0..48usize))]
    bytes: Vec<u8>,
    #[generator(0..2000usize)]
    times: usize,
}

/// The forms in which other libraries write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TypeGenerator)]
enum Form {
    /// As this library writes.
    Own,
    /// Several frames, members or streams, one after the other.
    Several,
    /// A raw block of snappy.
    Raw,
}

impl Frame {
    fn codec(&self) -> Codec {
        Codec::ALL[self.codec]
    }

    fn content(&self) -> Vec<u8> {
        self.content.iter().flat_map(|part| part.bytes.repeat(part.times)).collect()
    }

    /// Returns the compressed bytes, and what they decompress to.
    fn compressed(&self) -> (Vec<u8>, Vec<u8>) {
        let (codec, content) = (self.codec(), self.content());
        // The highest levels take long for long contents.
        let level = self.level.filter(|_| content.len() < 8 << 10).and_then(|level| {
            let levels = codec.levels()?;
            let least = *levels.start().max(&-50);
            Some(least + level.rem_euclid(levels.end() - least + 1))
        });
        let one = compress(codec, level, &content).expect("every content can be compressed");
        match self.form {
            Form::Raw if codec == Codec::Snappy => {
                (snap::raw::Encoder::new().compress_vec(&content).expect("it fits"), content)
            }
            // An LZ4 payload is one frame.
            Form::Several if codec != Codec::Lz4 => (one.repeat(2), content.repeat(2)),
            _ => (one, content),
        }
    }
}

#[test]
fn what_was_compressed_comes_back_and_the_limit_is_exact() {
    bolero::check!().with_test_time(TEST_TIME).with_type().for_each(|frame: &Frame| {
        let (codec, (compressed, content)) = (frame.codec(), frame.compressed());
        check(codec, &compressed, content.len());
        assert!(decompress(codec, &compressed, content.len()).as_ref() == Ok(&content), "{codec}");
        if let Some(max) = content.len().checked_sub(1) {
            for max in [max, max / 2, 0] {
                check(codec, &compressed, max);
                assert_eq!(decompress(codec, &compressed, max).err(), Some(CodecError::TooLarge { max }), "{codec}");
            }
        }
        assert!(check_framing(codec, &compressed).is_ok_and(|most| most >= content.len() as u64), "{codec}");
    });
}

#[test]
fn damaged_frames_respect_the_limit() {
    type Input = (Frame, Vec<Damage>, u32);
    bolero::check!().with_test_time(TEST_TIME).with_type().for_each(|(frame, damages, max): &Input| {
        let (compressed, content) = frame.compressed();
        let damages = &damages[..damages.len().min(4)];
        check(frame.codec(), &damaged(&compressed, damages), *max as usize % (2 * content.len() + 100));
    });
}

#[test]
fn bytes_of_no_codec_respect_the_limit() {
    bolero::check!().with_test_time(TEST_TIME).for_each(|bytes: &[u8]| {
        let (max, bytes) = bytes.split_first().map_or((0, bytes), |(first, rest)| (usize::from(*first) << 8, rest));
        for codec in Codec::ALL {
            check(codec, bytes, max);
            // Behind the start of a real frame.
            let start = compress(codec, None, b"a start").expect("every content can be compressed");
            for len in [4, 7, 10, 16] {
                check(codec, &[&start[..len.min(start.len())], bytes].concat(), max);
            }
        }
    });
}

/// Decompresses with a limit. The output and the memory stay below it, and a shorter limit changes nothing else.
fn check(codec: Codec, bytes: &[u8], max: usize) {
    let (held, result) = peak(|| decompress(codec, bytes, max));
    assert!(held <= 2 * max + FIXED, "{codec}: {held} bytes were held for a limit of {max}");
    match result {
        Ok(output) => {
            assert!(output.len() <= max, "{codec}");
            let most = check_framing(codec, bytes);
            assert!(most.as_ref().is_ok_and(|most| *most >= output.len() as u64), "{codec}: {most:?}");
            if let Some(less) = output.len().checked_sub(1) {
                assert_eq!(decompress(codec, bytes, less).err(), Some(CodecError::TooLarge { max: less }), "{codec}");
            }
        }
        Err(error) => assert!(
            matches!(error, CodecError::TooLarge { max: limit } if limit == max)
                || matches!(error, CodecError::Corrupt { codec: of, .. } if of == codec),
            "{error:?}"
        ),
    }
}
