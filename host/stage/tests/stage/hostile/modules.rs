//! Rows 11 to 17: modules that the scan rejects, before anything is compiled.

use millstream_stage::scan::inspect;
use millstream_stage::{Figure, Kind, Limits, LoadError, Measure, Refusal, Stage};
use wasm_encoder::{Component, ComponentSection, ComponentSectionId, RawSection};

use crate::guests::Guest;
use crate::support::{assert_not_loaded, call, engine};

/// Returns a component around a core module in text form.
fn component(module: &str) -> Vec<u8> {
    let text = format!("(component (core module {module}))");
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(bytes: &[u8]) -> Refusal {
    match assert_not_loaded(Kind::Filter, bytes) {
        LoadError::Refused(refusals) => refusals.first().clone(),
        error => panic!("rejected, but not by the scan: {error}"),
    }
}

fn too_large(bytes: &[u8]) -> (Measure, u64, u64) {
    match refused(bytes) {
        Refusal::TooLarge(Figure { measure, have, max }) => (measure, have, max),
        refusal => panic!("{refusal}"),
    }
}

/// Checks that the rejection names the feature.
fn names(bytes: &[u8], feature: &str) {
    let text = refused(bytes).to_string();
    assert!(text.contains(feature), "{text}");
}

#[test]
fn row_11_features_that_plug_ins_may_not_use() {
    names(&component("(memory 1) (memory 1)"), "several memories");
    names(&component("(memory i64 1)"), "64-bit memories");
    names(&component("(memory 1 1 shared)"), "shared memories");
    names(&component("(import \"a\" \"b\" (memory i64 1))"), "64-bit memories");
    names(&component("(table i64 1 funcref)"), "64-bit tables");
    names(&component("(tag)"), "exceptions");
    names(&component("(type (struct (field i32)))"), "gc");
    names(&component("(func (param externref))"), "gc types");
    names(&component("(func (drop (ref.null extern)))"), "gc types");
    names(&component("(table 1 externref)"), "gc types");
    names(
        &component(
            "(func (param v128 v128 v128) (result v128)
               (f32x4.relaxed_madd (local.get 0) (local.get 1) (local.get 2)))",
        ),
        "relaxed SIMD",
    );
    names(&component("(memory 1) (func (drop (i32.atomic.load (i32.const 0))))"), "threads");
    // Two modules of one component, one memory each.
    let two = "(component (core module (memory 1)) (core module (memory 1)))";
    names(&wat::parse_str(two).expect("a component"), "several memories");
}

#[test]
fn row_12_too_many_functions() {
    let functions = "(func)".repeat(10_001);
    assert_eq!(too_large(&component(&functions)), (Measure::Functions, 10_001, 10_000));
    // The limit applies to all modules of a component together.
    let half = format!("(core module {})", "(func)".repeat(5_001));
    let both = wat::parse_str(format!("(component {half} {half})")).expect("a component");
    assert_eq!(too_large(&both), (Measure::Functions, 10_002, 10_000));
}

#[test]
fn row_12_100_thousand_functions() {
    let functions = "(func)".repeat(100_000);
    assert_eq!(too_large(&component(&functions)).0, Measure::Functions);
}

#[test]
fn row_13_a_huge_function() {
    let body = format!("(func {})", "nop ".repeat(128 << 10));
    let (measure, have, max) = too_large(&component(&body));
    assert_eq!((measure, max), (Measure::BodyBytes, 128 << 10));
    assert!(have > max);
}

#[test]
fn row_14_too_many_locals() {
    let locals = format!("(func (local {}))", "i32 ".repeat(49_000));
    assert_eq!(too_large(&component(&locals)).0, Measure::Locals);
    // Two groups that are each within the limit.
    let groups = format!("(func (local {}) (local {}))", "i32 ".repeat(600), "i64 ".repeat(600));
    assert_eq!(too_large(&component(&groups)), (Measure::Locals, 1_200, 1_000));
}

#[test]
fn row_15_blocks_in_blocks() {
    let nested = |depth| format!("(func {} {})", "block ".repeat(depth), "end ".repeat(depth));
    assert_eq!(too_large(&component(&nested(2_001))), (Measure::BlockDepth, 2_001, 2_000));
    // Consecutive blocks are not nested.
    let flat = format!("(func {})", "block end ".repeat(5_000));
    assert_eq!(refused(&component(&flat)), Refusal::NoWorld);
}

#[test]
fn row_16_a_huge_br_table() {
    let table = format!("(func (br_table {} 0 (i32.const 0)))", "0 ".repeat(10_001));
    assert_eq!(too_large(&component(&table)).0, Measure::BranchTargets);
}

#[test]
fn row_17_many_or_large_segments_and_sections() {
    let segments = format!("(memory 1) {}", "(data (i32.const 0) \"x\")".repeat(100_001));
    assert_eq!(too_large(&component(&segments)), (Measure::DataSegments, 100_001, 100_000));
    let large = format!("(memory 1) (data \"{}\")", "x".repeat(4 << 20));
    assert_eq!(too_large(&component(&large)).0, Measure::SizeBytes);
    let custom = format!("(@custom \"name2\" \"{}\")", "x".repeat((1 << 20) + 1));
    assert_eq!(too_large(&component(&custom)).0, Measure::CustomBytes);
    // After a guest that is otherwise good, outside its module.
    let mut guest = Guest::filter().build();
    let section = (2u32 << 20) + 5;
    guest.push(0);
    for shift in [0, 7, 14, 21] {
        let more = if shift < 21 { 0x80 } else { 0 };
        guest.push((section >> shift) as u8 & 0x7f | more);
    }
    guest.extend(b"\x04junk");
    guest.extend(std::iter::repeat_n(0, 2 << 20));
    assert_eq!(too_large(&guest).0, Measure::CustomBytes);
}

/// Returns a component inside of a component, and so on.
fn nested(components: u32) -> Vec<u8> {
    (0..components).fold(Vec::new(), |inner, _| {
        let mut outer = Component::new();
        if !inner.is_empty() {
            outer.section(&RawSection { id: ComponentSectionId::Component.into(), data: &inner });
        }
        outer.finish()
    })
}

#[test]
fn components_in_components_run_up_to_the_limit_of_parts() {
    let mut guest = Guest::filter().build();
    let found = inspect(&guest, &Limits::default());
    let room = 256 - u32::try_from(found.figure(Measure::Parts)).expect("a few");
    RawSection { id: ComponentSectionId::Component.into(), data: &nested(room) }.append_to_component(&mut guest);
    call(&Stage::new(engine().load(&guest).expect("256 parts"), "{}").expect("a stage")).expect("a good response");
}

#[test]
fn many_parts_and_types_are_rejected() {
    let modules = "(core module)".repeat(256);
    let modules = wat::parse_str(format!("(component {modules})")).expect("a component");
    assert_eq!(too_large(&modules).0, Measure::Parts);
    assert_eq!(too_large(&nested(257)).0, Measure::Parts);
    let types = "(type (func))".repeat(10_001);
    assert_eq!(too_large(&component(&types)).0, Measure::Items);
}
