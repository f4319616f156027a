//! Merges neighbouring data segments of a core module.
//!
//! Go's linker leaves out runs of zeros, which makes 37,000 segments of a small program. Each is work for the engine
//! whenever an instance starts. With the gaps filled there are some ten, and the file is a tenth larger.

use anyhow::Result;
use wasm_encoder::{ConstExpr, DataCountSection, DataSection, Module, RawSection};
use wasmparser::{Data, DataKind, Operator, Parser, Payload};

/// The longest gap that is filled with zeros, in bytes: about what the header of another segment costs.
const GAP_BYTES_MAX: u32 = 64;

/// A segment with its place in memory 0.
struct Segment {
    start: u32,
    bytes: Vec<u8>,
}

impl Segment {
    fn end(&self) -> u64 {
        u64::from(self.start) + self.bytes.len() as u64
    }
}

/// Returns where a segment begins, if the module says so as a number.
pub(super) fn start(data: &Data<'_>) -> Option<u32> {
    let DataKind::Active { memory_index: 0, offset_expr } = &data.kind else {
        return None;
    };
    let mut operators = offset_expr.get_operators_reader().into_iter();
    match (operators.next(), operators.next(), operators.next()) {
        (Some(Ok(Operator::I32Const { value })), Some(Ok(Operator::End)), None) => Some(value.cast_unsigned()),
        _ => None,
    }
}

/// Returns the module with neighbouring data segments merged. A module whose code names segments, or whose segments
/// overlap, stays as it is.
pub(super) fn merge(module: &[u8]) -> Result<Vec<u8>> {
    let unchanged = || Ok(module.to_vec());
    let Some(segments) = segments(module)? else {
        return unchanged();
    };
    let count = segments.len();
    let Some(merged) = merged(segments).filter(|merged| merged.len() < count) else {
        return unchanged();
    };
    replace(module, &merged)
}

/// Returns the segments of a module, if each has a known place and no code names one.
fn segments(module: &[u8]) -> Result<Option<Vec<Segment>>> {
    let mut segments = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::CodeSectionEntry(body) => {
                let mut operators = body.get_operators_reader()?;
                while !operators.eof() {
                    if let Operator::MemoryInit { .. } | Operator::DataDrop { .. } = operators.read()? {
                        return Ok(None);
                    }
                }
            }
            Payload::DataSection(section) => {
                for data in section {
                    let data = data?;
                    let Some(start) = start(&data) else {
                        return Ok(None);
                    };
                    segments.push(Segment { start, bytes: data.data.to_vec() });
                }
            }
            _ => {}
        }
    }
    Ok(Some(segments))
}

/// Merges segments in the order of their places. Returns `None` if two overlap: then their order in the file counts.
fn merged(mut segments: Vec<Segment>) -> Option<Vec<Segment>> {
    segments.sort_by_key(|segment| segment.start);
    let mut merged: Vec<Segment> = Vec::new();
    for segment in segments {
        let gap = merged.last().map(|last| u64::from(segment.start).checked_sub(last.end()));
        match (merged.last_mut(), gap) {
            (_, Some(None)) => return None,
            (Some(last), Some(Some(gap))) if gap <= GAP_BYTES_MAX.into() => {
                last.bytes.resize(last.bytes.len() + usize::try_from(gap).ok()?, 0);
                last.bytes.extend(segment.bytes);
            }
            _ => merged.push(segment),
        }
    }
    Some(merged)
}

/// Returns the module with other data segments.
fn replace(module: &[u8], segments: &[Segment]) -> Result<Vec<u8>> {
    let mut data = DataSection::new();
    for segment in segments {
        data.active(0, &ConstExpr::i32_const(segment.start.cast_signed()), segment.bytes.iter().copied());
    }
    let mut output = Module::new();
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload?;
        match &payload {
            Payload::DataSection(_) => {
                output.section(&data);
            }
            Payload::DataCountSection { .. } => {
                output.section(&DataCountSection { count: u32::try_from(segments.len())? });
            }
            // Every other section as it is.
            other => {
                if let Some((id, range)) = other.as_section() {
                    output.section(&RawSection { id, data: &module[range] });
                }
            }
        }
    }
    Ok(output.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(data: &str) -> Vec<u8> {
        wat::parse_str(format!("(module (memory 1) {data})")).unwrap()
    }

    fn found(module: &[u8]) -> Vec<(u32, Vec<u8>)> {
        segments(module).unwrap().unwrap().into_iter().map(|segment| (segment.start, segment.bytes)).collect()
    }

    #[test]
    fn neighbours_are_merged_with_zeros_between_them() {
        let module = module(r#"(data (i32.const 70) "b") (data (i32.const 4) "a") (data (i32.const 71) "c")"#);
        let merged = merge(&module).unwrap();
        assert_eq!(found(&merged), [(4, vec![b'a']), (70, b"bc".to_vec())], "a gap of 65 bytes stays");
        let module = self::module(r#"(data (i32.const 69) "b") (data (i32.const 4) "a")"#);
        let whole = found(&merge(&module).unwrap());
        assert_eq!(whole.len(), 1, "a gap of 64 bytes is filled");
        assert_eq!((whole[0].0, whole[0].1.len()), (4, 66));
    }

    #[test]
    fn the_other_sections_stay() {
        let text = r#"(module (memory (export "memory") 1) (global (mut i32) (i32.const 7))
            (func (export "f") (result i32) (i32.load (i32.const 8)))
            (data (i32.const 8) "ab") (data (i32.const 12) "cd") (@custom "note" "kept"))"#;
        let merged = merge(&wat::parse_str(text).unwrap()).unwrap();
        let expected = text
            .replace(r#"(data (i32.const 8) "ab") (data (i32.const 12) "cd")"#, r#"(data (i32.const 8) "ab\00\00cd")"#);
        assert_eq!(merged, wat::parse_str(expected).unwrap());
    }

    #[test]
    fn segments_that_overlap_or_are_named_stay() {
        for data in [
            r#"(data (i32.const 4) "abc") (data (i32.const 6) "d")"#,
            r#"(data (i32.const 4) "a") (data "b")"#,
            r#"(data (i32.const 4) "a") (data (i32.const 5) "b")
                (func (memory.init 1 (i32.const 0) (i32.const 0) (i32.const 0)))"#,
            r#"(global i32 (i32.const 9)) (data (i32.const 4) "a") (data (global.get 0) "b")"#,
            "",
        ] {
            let module = module(data);
            assert_eq!(merge(&module).unwrap(), module, "{data}");
        }
    }

    #[test]
    fn the_count_of_segments_is_corrected() {
        let text = r#"(module (memory 1) (func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0)))
            (data (i32.const 4) "a") (data (i32.const 5) "b"))"#;
        let mut with_count = Module::new();
        for payload in Parser::new(0).parse_all(&wat::parse_str(text).unwrap()) {
            let payload = payload.unwrap();
            if let Some((id, range)) = payload.as_section() {
                if matches!(payload, Payload::CodeSectionStart { .. }) {
                    with_count.section(&DataCountSection { count: 2 });
                }
                with_count.section(&RawSection { id, data: &wat::parse_str(text).unwrap()[range] });
            }
        }
        let merged = merge(&with_count.finish()).unwrap();
        wasmparser::Validator::new().validate_all(&merged).unwrap();
        assert_eq!(found(&merged), [(4, b"ab".to_vec())]);
    }
}
