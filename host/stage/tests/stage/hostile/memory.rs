//! Rows 6 to 8 and 33: guests that ask for too much memory, or for memory of others.

use millstream_stage::{Fault, Kind, LoadError, Measure, Refusal};

use crate::guests::{Guest, IMPORT_COUNT};
use crate::support::{assert_not_loaded, assert_trapped, batch, call, engine, stage};

/// Grows until the host rejects it, and counts the pages at that point.
const BOMB: &str = r#"
    (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
    (call $count (i32.const 192) (i32.const 5) (i64.extend_i32_u (memory.size)))"#;

#[test]
fn row_06_grow_bomb_is_stopped() {
    let guest = Guest::partitioner().import(IMPORT_COUNT).text("pages").hook_with_rows("partition", BOMB);
    let stage = stage(&guest);
    call(&stage).expect("a guest that gets no memory continues");
    assert_eq!(stage.counters()["pages"], 256, "16 MiB and no more");
}

#[test]
fn row_06_the_failed_allocation_is_out_of_memory() {
    let guest = Guest::partitioner()
        .hook_with_rows("partition", "(loop $more (drop (call $allocate (i32.const 65536))) (br $more))");
    assert_trapped(&guest, |fault| matches!(fault, Fault::Memory { limit_bytes, .. } if *limit_bytes == 16 << 20));
}

#[test]
fn row_06_a_batch_that_does_not_fit_is_not_a_trap() {
    let stage = stage(&Guest::filter());
    let large = "v".repeat(17 << 20);
    let error = stage.filter("topic", &batch(&[&large]).as_records()).expect_err("too large");
    assert!(matches!(error.fault, Fault::InputTooLarge { .. }), "{error}");
    assert_eq!(stage.stats().traps, 0);
    call(&stage).expect("a batch that fits");
}

/// Returns the first limit for which a file is rejected.
fn over_limit(error: LoadError) -> (Measure, u64, u64) {
    match error {
        LoadError::Refused(refusals) => match refusals.first() {
            Refusal::TooLarge(figure) => (figure.measure, figure.have, figure.max),
            refusal => panic!("{refusal}"),
        },
        error => panic!("{error}"),
    }
}

#[test]
fn row_07_memory_minimum_of_4_gib() {
    let guest = Guest::filter().memory("65536");
    let error = assert_not_loaded(Kind::Filter, &guest.build());
    assert_eq!(over_limit(error), (Measure::MemoryBytesMin, 4 << 30, 16 << 20));
}

#[test]
fn row_08_table_minimum_of_10_million() {
    let guest = Guest::filter().hook("module", "(table 10000000 funcref)");
    let error = assert_not_loaded(Kind::Filter, &guest.build());
    assert_eq!(over_limit(error), (Measure::TableElementsMin, 10_000_000, 10_000));
}

#[test]
fn row_08_table_grow_of_5_million_fails() {
    let grow = "(if (i32.ne (i32.const -1)
          (table.grow $table (ref.null func) (i32.const 5000000)))
        (then unreachable))";
    let guest = Guest::partitioner().hook("module", "(table $table 1 funcref)").hook("partition", grow);
    call(&stage(&guest)).expect("a guest that gets no memory continues");
}

/// Traps unless all memory after its own data is zero, then fills it with a secret.
const PEEK: &str = r#"
    (local.set $row (i32.const 65536))
    (loop $next
      (if (i32.load (local.get $row)) (then unreachable))
      (local.set $row (i32.add (local.get $row) (i32.const 4)))
      (br_if $next (i32.lt_u (local.get $row) (i32.const 1048576))))
    (memory.fill (i32.const 65536) (i32.const 170) (i32.const 983040))
    (local.set $row (i32.const 0))"#;

#[test]
fn row_33_fresh_memory_is_zero() {
    // More instances in turn than the pool has used slots, in one plug-in and in two that share nothing.
    let one = Guest::partitioner().memory("16").hook_with_rows("partition", PEEK);
    let two = one.clone().name("other");
    for guest in [&one, &two, &one, &two] {
        let plugin = engine().load(&guest.build()).expect("a guest");
        for _ in 0..20 {
            let stage = millstream_stage::Stage::new(plugin.clone(), "{}").expect("a stage");
            call(&stage).expect("no other data is there");
            let error = call(&stage).expect_err("its own data is there");
            assert!(matches!(error.fault, Fault::Trap { .. }), "{error}");
            call(&stage).expect("a new instance starts with zeros");
        }
    }
}
