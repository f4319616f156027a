//! Rows 1 to 5, 9 and 10: guests that do not end.

use std::time::{Duration, Instant};

use millstream_stage::{Engine, EngineConfig, Fault, Kind, LoadError, Stage};
use wasm_encoder::{ComponentInstanceSection, ComponentSection, ComponentSectionId, RawSection};

use crate::guests::{Guest, IMPORT_COUNT};
use crate::support::{
    assert_not_loaded, assert_not_started, assert_trapped, assert_trapped_in, call, engine, patient_engine, stage,
};

const FOREVER: &str = "(loop $forever (br $forever))";

/// A passed deadline is noticed within a few ticks; other tests may keep the machine busy.
const SOON: Duration = Duration::from_secs(5);

fn is_deadline(fault: &Fault) -> bool {
    matches!(fault, Fault::Deadline { limit, .. } if *limit == Duration::from_millis(20))
}

/// Returns every function that a host calls, each with a guest and kind that have it.
fn hooks() -> [(Guest, Kind, &'static str); 7] {
    [
        (Guest::partitioner(), Kind::Partitioner, "partition"),
        (Guest::serializer(), Kind::Serializer, "serialize"),
        (Guest::serializer(), Kind::Serializer, "deserialize"),
        (Guest::compressor(), Kind::Compressor, "compress"),
        (Guest::compressor(), Kind::Compressor, "decompress"),
        (Guest::filter(), Kind::Filter, "filter"),
        (Guest::filter(), Kind::Filter, "configure"),
    ]
}

#[test]
fn row_01_loop_in_a_hook() {
    let guest = Guest::partitioner().hook_with_rows("partition", FOREVER);
    let begun = Instant::now();
    assert_trapped(&guest, is_deadline);
    assert!(begun.elapsed() < SOON);
}

#[test]
fn row_01_loop_in_every_hook_even_without_rows() {
    for (guest, kind, hook) in hooks() {
        assert_not_started(&guest.hook(hook, FOREVER), kind, is_deadline);
    }
}

#[test]
fn row_01_loop_of_tail_calls() {
    let table = "(type $spin (func)) (table $spin funcref (elem $around)) (func $around (return_call $spin))
        (func $spin (return_call_indirect $spin (type $spin) (i32.const 0)))";
    let guest = Guest::partitioner().hook("module", table).hook_with_rows("partition", "(call $spin)");
    assert_trapped(&guest, is_deadline);
}

#[test]
fn row_01_calls_that_double() {
    // It never goes deep, but has 2^60 calls.
    let double = "(func $double (param $depth i32)
        (if (local.get $depth) (then
          (call $double (i32.sub (local.get $depth) (i32.const 1)))
          (call $double (i32.sub (local.get $depth) (i32.const 1))))))";
    let guest =
        Guest::partitioner().hook("module", double).hook_with_rows("partition", "(call $double (i32.const 60))");
    assert_trapped(&guest, is_deadline);
}

#[test]
fn row_01_an_instance_that_was_stopped_leaves_its_memory_usable() {
    // Fewer instances fit than are stopped, so each place in memory is used again.
    let engine = Engine::new(EngineConfig { instances: 2, ..EngineConfig::default() }).expect("an engine");
    let guest = Guest::partitioner().hook_with_rows("partition", FOREVER).build();
    let stage = Stage::new(engine.load(&guest).expect("a guest"), "{}").expect("a stage");
    for _ in 0..8 {
        let fault = call(&stage).expect_err("a loop").fault;
        assert!(is_deadline(&fault), "{fault}");
    }
    drop(stage);
    let good = engine.load(&Guest::filter().build()).expect("a good guest");
    call(&Stage::new(good, "{}").expect("a stage")).expect("a good response");
}

#[test]
fn row_02_loop_in_a_nested_component() {
    let start = format!("(core module $m (func $start {FOREVER}) (start $start)) (core instance (instantiate $m))");
    let around = format!("(component (component $inner {start}) (instance (instantiate $inner)))");
    for nested in [format!("(component {start})"), around] {
        let mut guest = Guest::filter().build();
        let nested = wat::parse_str(nested).expect("a component");
        RawSection { id: ComponentSectionId::Component.into(), data: &nested }.append_to_component(&mut guest);
        let mut instance = ComponentInstanceSection::new();
        instance.instantiate::<_, &str>(0, []);
        instance.append_to_component(&mut guest);
        let error = assert_not_loaded(Kind::Filter, &guest);
        assert!(matches!(&error, LoadError::Start(fault) if is_deadline(fault)), "{error}");
    }
}

#[test]
fn row_02_loop_in_the_start_section() {
    let start = format!("(func $start {FOREVER}) (start $start)");
    let guest = Guest::filter().hook("module", &start);
    let begun = Instant::now();
    let error = assert_not_loaded(Kind::Filter, &guest.build());
    assert!(begun.elapsed() < SOON);
    let LoadError::Start(fault) = &error else {
        panic!("{error}");
    };
    assert!(is_deadline(fault), "{error}");
}

#[test]
fn row_03_initialize_that_never_returns() {
    let initialize = format!(r#"(func (export "_initialize") {FOREVER})"#);
    let guest = Guest::filter().hook("module", &initialize);
    let error = assert_not_loaded(Kind::Filter, &guest.build());
    assert!(matches!(&error, LoadError::Start(fault) if is_deadline(fault)), "{error}");
}

#[test]
fn row_03_realloc_that_never_returns() {
    let guest = Guest::filter().hook("realloc", FOREVER);
    assert_not_started(&guest, Kind::Filter, is_deadline);
}

#[test]
fn row_03_describe_that_never_returns() {
    let guest = Guest::filter().hook("describe", FOREVER);
    let error = assert_not_loaded(Kind::Filter, &guest.build());
    assert!(matches!(&error, LoadError::Start(fault) if is_deadline(fault)), "{error}");
}

#[test]
fn row_04_recursion() {
    let dive = "(func $dive (result i32) (i32.add (call $dive) (i32.const 1)))";
    let guest = Guest::filter().hook("module", dive).hook_with_rows("filter", "(drop (call $dive))");
    assert_trapped(&guest, |fault| matches!(fault, Fault::Stack { limit_bytes, .. } if *limit_bytes == 256 << 10));
}

#[test]
fn row_05_recursion_through_a_host_call() {
    let dive = r#"(func $dive (param $depth i64) (result i64)
        (call $count (i32.const 192) (i32.const 4) (i64.const 1))
        (i64.add (call $dive (i64.add (local.get $depth) (i64.const 1))) (i64.const 1)))"#;
    let guest = Guest::filter()
        .import(IMPORT_COUNT)
        .text("deep")
        .hook("module", dive)
        .hook_with_rows("filter", "(drop (call $dive (i64.const 0)))");
    // The stack frames of host calls come on top of a nearly full guest stack; the smallest stack of a thread must hold
    // both.
    let thread = std::thread::Builder::new().stack_size(1 << 20);
    let dive = move || assert_trapped_in(&patient_engine(), &guest, |fault| matches!(fault, Fault::Stack { .. }));
    let run = thread.spawn(dive).expect("a thread");
    run.join().expect("the host's stack holds");
}

#[test]
fn row_09_a_huge_fill_is_bounded_by_the_memory() {
    let fill = "(memory.fill (i32.const 4096) (i32.const 255) (i32.const 16773120))";
    let guest = Guest::partitioner().memory("256").hook_with_rows("partition", fill);
    let whole = stage(&guest);
    // A fill cannot be interrupted; of the largest memory it takes some milliseconds.
    call(&whole).expect("a fill of 16 MiB");
    let past = fill.replace("16773120", "16773121");
    let guest = Guest::partitioner().memory("256").hook_with_rows("partition", &past);
    assert_trapped(&guest, |fault| matches!(fault, Fault::Trap { .. }));
}

#[test]
fn row_10_loop_of_fills() {
    let fills = "(loop $more
        (memory.fill (i32.const 4096) (i32.const 255) (i32.const 16773120))
        (br $more))";
    let guest = Guest::partitioner().memory("256").hook_with_rows("partition", fills);
    let begun = Instant::now();
    assert_trapped(&guest, is_deadline);
    assert!(begun.elapsed() < SOON);
}

#[test]
fn row_10_fills_without_a_loop() {
    // Three thousand fills of 16 MiB are 48 GB, and take several seconds.
    let fill = "(memory.fill (i32.const 4096) (i32.const 255) (i32.const 16773120))";
    let guest = Guest::partitioner().memory("256").hook_with_rows("partition", &fill.repeat(3_000));
    let stage = stage(&guest);
    let begun = millstream_stage::thread_time();
    let fault = call(&stage).expect_err("too much work").fault;
    assert!(is_deadline(&fault), "{fault}");
    let ran = millstream_stage::thread_time() - begun;
    assert!(ran < Duration::from_secs(1), "{ran:?}");
}

#[test]
fn row_27_trap_in_every_hook() {
    for (guest, kind, hook) in hooks().into_iter().chain([(Guest::filter(), Kind::Filter, "realloc")]) {
        let guest = guest.hook(hook, "unreachable");
        assert_not_started(&guest, kind, |fault| {
            let Fault::Trap { call, reason } = fault else {
                return false;
            };
            let is_named = *call == hook || hook == "realloc" && *call == "configure";
            is_named && reason.contains("unreachable")
        });
    }
    let guest = Guest::filter().hook("describe", "unreachable");
    let error = assert_not_loaded(Kind::Filter, &guest.build());
    assert!(matches!(&error, LoadError::Start(Fault::Trap { .. })), "{error}");
}

#[test]
fn row_27_trap_in_every_call() {
    for (guest, hook) in [
        (Guest::partitioner(), "partition"),
        (Guest::serializer(), "serialize"),
        (Guest::serializer(), "deserialize"),
        (Guest::filter(), "filter"),
    ] {
        let guest = guest.hook_with_rows(hook, "unreachable");
        assert_trapped(&guest, |fault| matches!(fault, Fault::Trap { call, .. } if *call == hook));
    }
    // A compressor has no rows; the host's probe is longer than the input of the test.
    let short = "(if (i32.lt_u (local.get $length) (i32.const 20)) (then unreachable))";
    for hook in ["compress", "decompress"] {
        let guest = Guest::compressor().hook(hook, short);
        assert_trapped(&guest, |fault| matches!(fault, Fault::Trap { call, .. } if *call == hook));
    }
}

#[test]
fn row_27_a_trap_after_the_response_counts_too() {
    // The guest's clean-up runs after its response was copied.
    let trap = r#"(func $trap (param i32) (if (global.get $armed) (then unreachable)))
        (global $armed (mut i32) (i32.const 0))"#;
    let guest = Guest::filter()
        .hook("module", trap)
        .hook_with_rows("filter", "(global.set $armed (i32.const 1))")
        .edit(r#""cabi_post_filter" (func $forget)"#, r#""cabi_post_filter" (func $trap)"#);
    assert_trapped(&guest, |fault| matches!(fault, Fault::Trap { .. }));
}

#[test]
fn row_27_a_stage_that_only_traps_is_dropped_at_once() {
    let guest = Guest::filter().hook_with_rows("filter", "unreachable");
    let plugin = engine().load(&guest.build()).expect("a guest");
    let stage = Stage::new(plugin, "{}").expect("a stage");
    assert!(call(&stage).is_err());
    drop(stage);
    call(&crate::support::stage(&Guest::filter())).expect("another stage works");
}
