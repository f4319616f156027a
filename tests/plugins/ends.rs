//! Checks that the default plug-ins end by themselves, whatever their input, in a time that grows only with the input.
//! As part of the binary they have no deadline. Here they have one far above what they need, so that a plug-in without
//! an end fails.

use std::time::Duration;

use millstream_record::codec::{self, Codec};
use millstream_stage::{Columns, Engine, EngineConfig, Fault, Limits, RecordsBuf, StageError};

use crate::components::stage_of;

const SIZE: usize = 1 << 20;

/// Returns an engine whose plug-ins have this much processor time for each 256 KiB.
fn engine(deadline: Duration) -> Engine {
    let limits = Limits { deadline, ..Limits::default() };
    Engine::new(EngineConfig { limits, ..EngineConfig::default() }).unwrap()
}

/// Enough for the slowest case, gzip at its highest level on text of two letters: 0.6 s.
const PLENTY: Duration = Duration::from_secs(30);

/// Checks that a call ended by itself, with a result or with an error of the stage.
#[track_caller]
fn ended<R>(what: &str, outcome: Result<R, StageError>) {
    if let Err(error) = outcome {
        assert!(matches!(error.fault, Fault::Batch(_) | Fault::Rows(_)), "{what}: {error}");
    }
}

/// Checks that a call ended by itself, which may be because its memory was full: a message of nothing has two bytes,
/// and takes a hundred in memory.
#[track_caller]
fn ended_or_full<R>(what: &str, outcome: Result<R, StageError>) {
    if let Err(error) = outcome {
        assert!(!matches!(error.fault, Fault::Deadline { .. } | Fault::Stack { .. }), "{what}: {error}");
    }
}

fn repeated(piece: &[u8]) -> Vec<u8> {
    piece.repeat(SIZE / piece.len())
}

fn values<'a>(rows: impl IntoIterator<Item = &'a [u8]>) -> RecordsBuf {
    let mut records = RecordsBuf::new(Columns { values: true, ..Columns::NONE });
    rows.into_iter().for_each(|row| records.push(0, None, Some(row), []).unwrap());
    records
}

#[test]
fn decompressors_end_on_pieces_that_hold_nothing() {
    // Whole streams that are empty or nearly empty, one after the other, and empty blocks within one stream.
    let mut inputs: Vec<(&str, Vec<u8>)> = Vec::new();
    for (name, codec) in [("gzip", Codec::Gzip), ("snappy", Codec::Snappy), ("lz4", Codec::Lz4), ("zstd", Codec::Zstd)]
    {
        for content in [&b""[..], b"a", b"a text that repeats itself, a text that repeats itself"] {
            inputs.push((name, repeated(&codec::compress(codec, None, content).unwrap())));
        }
        inputs.push((name, codec::compress(codec, None, &vec![0; 16 * SIZE]).unwrap()));
    }
    let blocks = |header: &[u8], block: &[u8]| [header, &repeated(block)].concat();
    let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    // Stored and empty; with fixed codes and empty (3 + 7 bits, eight of them).
    inputs.push(("gzip", blocks(&gzip, &[0, 0, 0, 0xff, 0xff])));
    inputs.push(("gzip", blocks(&gzip, &[0x02, 0x08, 0x20, 0x80, 0x00, 0x02, 0x08, 0x20, 0x80, 0x00])));
    let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
    // Raw and empty; a byte that stands for 128 KiB of itself.
    inputs.push(("zstd", blocks(&zstd, &[0, 0, 0])));
    inputs.push(("zstd", blocks(&zstd, &[0x02, 0x00, 0x10, b'z'])));
    // Empty frames to skip.
    inputs.push(("zstd", repeated(&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0])));
    let lz4 = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
    // Stored, one byte each; one byte that the rest of the block repeats, without an end.
    inputs.push(("lz4", blocks(&lz4, &[1, 0, 0, 0x80, b'z'])));
    inputs.push(("lz4", blocks(&[&lz4[..], &[0, 0, 1, 0, 0x1f, b'z', 1, 0]].concat(), &[0xff])));
    inputs.sort_by_key(|(name, _)| *name);
    let engine = engine(PLENTY);
    for inputs in inputs.chunk_by(|(one, _), (other, _)| one == other) {
        decompress_all(&engine, inputs);
    }
}

fn decompress_all(engine: &Engine, inputs: &[(&str, Vec<u8>)]) {
    let stage = stage_of(engine, inputs[0].0, "{}");
    for (name, input) in inputs {
        let what = format!("{name}, {} bytes from {:x?}", input.len(), &input[..20]);
        for max in [0, 100, SIZE] {
            ended(&what, stage.decompress(input, 1, max));
        }
    }
}

#[test]
fn compressors_end_whatever_they_are_given() {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    // No repetition; few letters, so that matches are everywhere and short; matches that end late; noise.
    let few: Vec<u8> = std::iter::repeat_with(|| b'a' + next() % 2).take(SIZE / 4).collect();
    let late = [vec![b'a'; 300], vec![b'b']].concat().repeat(SIZE / 4 / 301);
    let noise: Vec<u8> = std::iter::repeat_with(&mut next).take(SIZE / 4).collect();
    let engine = engine(PLENTY);
    for (name, levels) in [("gzip", &[9][..]), ("zstd", &[9]), ("lz4", &[]), ("snappy", &[])] {
        let configs = levels.iter().map(|level| format!("{{\"level\":{level}}}"));
        for config in configs.chain(["{}".to_owned()]) {
            let stage = stage_of(&engine, name, &config);
            for (what, input) in [("zeros", &vec![0; SIZE / 4]), ("few", &few), ("late", &late), ("noise", &noise)] {
                ended(&format!("{name}{config}, {what}"), stage.compress(input, 1));
            }
        }
    }
}

#[test]
fn readers_of_json_end_on_text_without_end() {
    let engine = engine(PLENTY);
    let compare = stage_of(&engine, "json-compare", r#"{"path":"/a/0/b","op":"==","value":"x"}"#);
    let json = stage_of(&engine, "json", "{}");
    for piece in ["[", "{\"a\":", "{\"a\":[", "9", "-", "\\\\", "1e9", "[[],", "{\"a\":0,", " ", "\"\\u0000"] {
        for start in ["", "\"", "0.", "1e", "[\"", "{\"a\":[{\"b\":\""] {
            let text = [start.as_bytes(), &repeated(piece.as_bytes())].concat();
            let what = format!("{start}, then {piece} again and again");
            for rows in [values([&text[..]]), values(text.chunks(64))] {
                ended(&what, compare.filter("topic", &rows.as_records()));
                ended(&what, json.serialize("topic", &rows.as_records()));
            }
        }
    }
}

#[test]
fn readers_of_schemas_end_on_bytes_that_hold_nothing() {
    let engine = engine(PLENTY);
    let avro = |schema: &str| stage_of(&engine, "avro", &format!(r#"{{"id":1,"schema":{schema}}}"#));
    let nested =
        r#"{"type":"record","name":"R","fields":[{"name":"r","type":["null","R",{"type":"array","items":"R"}]}]}"#;
    let stages = [
        avro(nested),
        avro(r#"{"type":"array","items":"null"}"#),
        avro(r#"{"type":"map","values":{"type":"fixed","name":"F","size":0}}"#),
        stage_of(
            &engine,
            "protobuf",
            r#"{"id":1,"schema":"syntax = 'proto3'; message T { repeated T t = 1; map<string, T> m = 2; }"}"#,
        ),
    ];
    let header = [0, 0, 0, 0, 1];
    for piece in [&[0][..], &[1], &[2], &[4], &[0x0a], &[0x0a, 0], &[0x12, 0], &[0xff], &[0x80], &[3, 2, 0], &[0x0b]] {
        let bytes = [&header[..], &repeated(piece)].concat();
        // Blocks that promise 2^62 items.
        let promise = [&header[..], &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], &repeated(piece)].concat();
        for stage in &stages {
            for input in [&bytes, &promise] {
                let what = format!("{} after {:x?} and so on", stage.pin().plugin().name(), &input[5..9]);
                ended_or_full(&what, stage.deserialize("topic", &values([&input[..]]).as_records()));
                let short: Vec<Vec<u8>> =
                    input[5..].chunks(59).take(4_000).map(|row| [&header, row].concat()).collect();
                ended_or_full(&what, stage.deserialize("topic", &values(short.iter().map(Vec::as_slice)).as_records()));
            }
        }
    }
    for piece in ["[", "{\"r\":", "{\"t\":[", "9", "\\\\", "[[],", "{\"m\":{\"\":", "null,"] {
        let text = repeated(piece.as_bytes());
        for stage in &stages {
            for rows in [values([&text[..]]), values(text.chunks(64))] {
                ended_or_full(piece, stage.serialize("topic", &rows.as_records()));
            }
        }
    }
}

#[test]
fn a_text_that_nearly_is_everywhere_is_not_compared_everywhere() {
    // A comparison at every place would take minutes; the search takes some milliseconds.
    let engine = engine(Duration::from_secs(1));
    let near = "ab".repeat(SIZE / 5);
    let (pairs, single) = (repeated(b"ab"), repeated(b"a"));
    for text in [format!("{near}c"), format!("c{near}"), "a".repeat(SIZE / 3), near.clone()] {
        let contains = stage_of(&engine, "contains", &format!("{{\"text\":\"{text}\"}}"));
        for data in [&pairs, &single] {
            for length in [1, 100, SIZE / 3, SIZE] {
                let rows = values(data.chunks(length));
                ended(&format!("{}..., rows of {length}", &text[..2]), contains.filter("topic", &rows.as_records()));
            }
        }
    }
}
