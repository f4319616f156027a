//! Rows 23 to 26, 30 and 31: responses that break the contract.

use millstream_stage::{Fault, Stage};

use crate::guests::{Guest, IMPORT_COUNT, KEYS, VALUES};
use crate::support::{assert_trapped, call, engine, stage, three};

/// Overwrites a word of the response.
fn patch(address: u32, value: u32) -> String {
    format!("(i32.store (i32.const {address}) (i32.const {value}))")
}

/// The address of a list's data in the response, and its length.
const LIST: u32 = 2052;
const LENGTH: u32 = 2056;

fn is_bad(row: Option<u32>) -> impl Fn(&Fault) -> bool {
    move |fault| matches!(fault, Fault::BadResponse { row: bad, .. } if *bad == row)
}

fn is_too_large(fault: &Fault) -> bool {
    matches!(fault, Fault::ResponseTooLarge { .. })
}

fn is_trap(fault: &Fault) -> bool {
    matches!(fault, Fault::Trap { .. })
}

#[test]
fn row_23_output_larger_than_its_bound() {
    let partitioner = Guest::partitioner().memory("256");
    assert_trapped(&partitioner.hook_with_rows("partitioned", &patch(LENGTH, 1 << 20)), is_too_large);
    let filter = Guest::filter().memory("256");
    assert_trapped(&filter.hook_with_rows("filtered", &patch(LENGTH, 1 << 20)), is_too_large);
    // New values of 1 MiB for three small ones.
    let serializer = Guest::serializer().memory("256");
    assert_trapped(&serializer.hook_with_rows("serialized", &patch(2088, 1 << 20)), is_too_large);
}

#[test]
fn row_23_errors_that_overlap_are_counted_each() {
    // 500 row errors that all share one text of 4 KiB: 2 MB in the host.
    let fill = "(i32.store8 (i32.const 2048) (i32.const 1))
        (i32.store8 (i32.const 2052) (i32.const 0))
        (i32.store (i32.const 2056) (i32.const 1048576))
        (i32.store (i32.const 2060) (i32.const 500))
        (local.set $row (i32.const 1048576))
        (loop $next
          (i32.store offset=0 (local.get $row) (i32.const 0))
          (i32.store offset=4 (local.get $row) (i32.const 65536))
          (i32.store offset=8 (local.get $row) (i32.const 4096))
          (local.set $row (i32.add (local.get $row) (i32.const 12)))
          (br_if $next (i32.lt_u (local.get $row) (i32.const 1054576))))";
    let guest = Guest::partitioner().memory("256").hook_with_rows("partitioned", fill);
    assert_trapped(&guest, is_too_large);
}

#[test]
fn row_24_pointer_or_length_out_of_bounds() {
    for code in [
        patch(LIST, 0xffff_fff0),
        patch(LIST, 131_072),
        patch(LENGTH, 0xffff_ffff),
        patch(LENGTH, 0x4000_0001),
        patch(LIST, 4097),
    ] {
        let guest = Guest::partitioner().hook_with_rows("partitioned", &code);
        assert_trapped(&guest, is_trap);
    }
    // The address of the response itself.
    for code in ["(return (i32.const -4))", "(return (i32.const 2049))"] {
        let guest = Guest::partitioner().hook_with_rows("partitioned", code);
        assert_trapped(&guest, is_trap);
    }
    // An address for the host to write to.
    for code in ["(return (i32.const -8))", "(return (i32.const 131070))"] {
        let guest = Guest::filter()
            .hook("module", "(global $rows (mut i32) (i32.const 0))")
            .hook("configure", "(global.set $rows (i32.const 1))")
            .hook("realloc", &format!("(if (global.get $rows) (then {code}))"));
        // The probe has lists too, so the plug-in is rejected before it is used.
        let plugin = engine().load(&guest.build()).expect("a guest that loads");
        let error = Stage::new(plugin, "{}").expect_err("a hostile guest");
        assert!(is_trap(&error.fault), "{error}");
    }
    // A tag that is neither ok nor error.
    let code = "(i32.store8 (i32.const 2048) (i32.const 2))";
    assert_trapped(&Guest::partitioner().hook_with_rows("partitioned", code), is_trap);
}

#[test]
fn row_25_column_ends_that_go_backwards_or_past_the_data() {
    // The ends of the values are returned unchanged: 3, 8, 13. The middle one is overwritten.
    let middle =
        |end: u32| format!("(i32.store (i32.add (i32.load (i32.const 2092)) (i32.const 4)) (i32.const {end}))");
    for (hook, end) in [("serialized", 2), ("serialized", 14), ("serialized", u32::MAX), ("deserialized", 2)] {
        let guest = Guest::serializer().hook_with_rows(hook, &middle(end));
        assert_trapped(&guest, is_bad(Some(1)));
    }
}

#[test]
fn row_25_wrong_row_count() {
    for count in [0, 2, 4] {
        let guest = Guest::partitioner().hook_with_rows("partitioned", &patch(LENGTH, count));
        assert_trapped(&guest, is_bad(None));
    }
    for bytes in [0, 2] {
        let guest = Guest::filter().hook_with_rows("filtered", &patch(LENGTH, bytes));
        assert_trapped(&guest, is_bad(None));
    }
    for (word, count) in [(2096, 2), (2096, 0), (2104, 2)] {
        let guest = Guest::serializer().hook_with_rows("serialized", &patch(word, count));
        assert_trapped(&guest, is_bad(None));
    }
}

#[test]
fn row_25_errors_for_rows_that_do_not_exist() {
    // One error, for row 3 of 3, at 3072.
    let error = |row: u32, count: u32| {
        format!(
            "(i32.store8 (i32.const 2048) (i32.const 1))
             (i32.store8 (i32.const 2052) (i32.const 0))
             (i32.store (i32.const 2056) (i32.const 3072))
             (i32.store (i32.const 2060) (i32.const {count}))
             (i32.store (i32.const 3072) (i32.const {row}))
             (i32.store (i32.const 3076) (i32.const 192))
             (i32.store (i32.const 3080) (i32.const 3))"
        )
    };
    let guest = |row, count| Guest::filter().text("bad").hook_with_rows("filtered", &error(row, count));
    assert_trapped(&guest(3, 1), is_bad(None));
    assert_trapped(&guest(u32::MAX, 1), is_bad(None));
    assert_trapped(&guest(0, 0), is_bad(None));
    // A guest may reject a row that exists: that is not a trap, and its instance is kept.
    let stage = stage(&guest(2, 1));
    let error = call(&stage).expect_err("a bad row");
    assert_eq!(error.rows(), [2]);
    assert!(error.to_string().contains("row 2: bad"), "{error}");
    assert_eq!((stage.stats().errors, stage.stats().traps), (1, 0));
}

#[test]
fn row_26_partition_that_does_not_exist() {
    for (partition, row) in [(4, 1), (u32::MAX, 2)] {
        let choose = format!(
            "(i32.store (i32.add (i32.load (i32.const 2052)) (i32.const {})) (i32.const {partition}))",
            row * 4
        );
        let guest = Guest::partitioner().hook_with_rows("partitioned", &choose);
        assert_trapped(&guest, is_bad(Some(row)));
    }
}

/// The probe's inputs are longer than this and those of the tests shorter. The guest is hostile only to short ones, so
/// it passes the probe.
const IF_SHORT: &str = "(i32.lt_u (local.get $length) (i32.const 20))";

#[test]
fn row_30_compressor_that_loses_bytes() {
    let lossy = [
        // The last byte is lost.
        "(i32.store (i32.const 2056) (local.get $length))",
        // One byte is different.
        "(i32.store8 (i32.add (local.get $out) (i32.const 3)) (i32.const 0))",
        // One byte more than there was.
        "(i32.store (i32.const 2056) (i32.add (local.get $length) (i32.const 2)))",
    ];
    for code in lossy {
        let code = format!("(if {IF_SHORT} (then {code}))");
        let guest = Guest::compressor().hook("compressed", &code);
        assert_trapped(&guest, |fault| matches!(fault, Fault::Lossy { .. } | Fault::ResponseTooLarge { .. }));
    }
}

#[test]
fn row_30_a_compressor_cannot_remember_what_it_lost() {
    // It keeps a copy of its input at 32768 and returns one byte; decompressing returns the copy.
    let keep = format!(
        "(if {IF_SHORT} (then
           (memory.copy (i32.const 32768) (local.get $data) (local.get $length))
           (i32.store (i32.const 32764) (local.get $length))
           (i32.store (i32.const 2056) (i32.const 1))))"
    );
    let give = "(if (i32.eq (local.get $length) (i32.const 1)) (then
           (i32.store (i32.const 2052) (i32.const 32768))
           (i32.store (i32.const 2056) (i32.load (i32.const 32764)))))";
    let guest = Guest::compressor().hook("compressed", &keep).hook("decompressed", give);
    assert_trapped(&guest, |fault| matches!(fault, Fault::Lossy { .. }));
}

#[test]
fn row_30_the_check_is_measured() {
    let stage = stage(&Guest::compressor());
    call(&stage).expect("a good compressor");
    let stats = stage.stats();
    assert!(stats.verify_nanos > 0 && stats.verify_nanos < stats.nanos, "{stats:?}");
}

#[test]
fn row_31_decompressor_that_makes_too_much() {
    // 4 GiB, which it does not have, and 1 MiB, which it has.
    for (length, is_expected) in
        [(u32::MAX, is_trap as fn(&Fault) -> bool), (1 << 20, is_too_large), (11, is_too_large)]
    {
        let code = format!("(if {IF_SHORT} (then {}))", patch(LENGTH, length));
        let guest = Guest::compressor().memory("256").hook("decompressed", &code);
        let stage = stage(&guest);
        let error = stage.decompress(b"Sten bytes.", 1, 10).expect_err("a bomb");
        assert!(is_expected(&error.fault), "{error}");
        assert_eq!(stage.stats().traps, 1);
    }
    let stage = stage(&Guest::compressor());
    assert_eq!(stage.decompress(b"Sten bytes.", 1, 10).expect("at the cap"), b"ten bytes.");
    let error = stage.decompress(b"Sten bytes.", 1, 9).expect_err("one byte over the cap");
    assert!(is_too_large(&error.fault), "{error}");
}

#[test]
fn only_declared_columns_are_copied() {
    // The guest counts which columns it gets: the tag of the option, and the rows of each.
    let report = "(call $count (i32.const 192) (i32.const 4)
          (i64.extend_i32_u (i32.load offset=28 (local.get $p))))
        (call $count (i32.const 196) (i32.const 4)
          (i64.extend_i32_u (i32.load8_u offset=32 (local.get $p))))
        (call $count (i32.const 200) (i32.const 4)
          (i64.extend_i32_u (i32.load8_u offset=60 (local.get $p))))
        (call $count (i32.const 204) (i32.const 4)
          (i64.extend_i32_u (i32.load8_u offset=88 (local.get $p))))";
    let guest = |columns| {
        Guest::partitioner()
            .import(IMPORT_COUNT)
            .text("timekeysvalshead")
            .columns(columns)
            .hook_with_rows("partition", report)
    };
    let counted = |columns| {
        let stage = stage(&guest(columns));
        stage.partition("topic", 1, &[0], &three().as_records()).expect("a response");
        let counters = stage.counters();
        ["time", "keys", "vals", "head"].map(|name| counters[name])
    };
    assert_eq!(counted(0), [0, 0, 0, 0]);
    assert_eq!(counted(KEYS), [0, 1, 0, 0]);
    assert_eq!(counted(crate::guests::TIMESTAMPS | VALUES), [3, 0, 1, 0]);
    assert_eq!(counted(crate::guests::HEADERS), [0, 0, 0, 1]);
    // A declared column is required.
    let stage = stage(&guest(KEYS));
    let without = millstream_stage::RecordsBuf::new(millstream_stage::Columns::NONE);
    let mut records = without.as_records();
    records.rows = 1;
    let error = stage.partition("topic", 1, &[0], &records).expect_err("no keys");
    assert!(matches!(error.fault, Fault::ColumnMissing { column: "keys" }), "{error}");
}

#[test]
fn row_29_responses_have_canonical_bits() {
    // Arithmetic on a NaN with a payload: the bits of the response are the same on every machine.
    let nan = "(call $count (i32.const 192) (i32.const 3) (i64.extend_i32_u
        (i32.reinterpret_f32 (f32.add (f32.const nan:0x200001) (f32.const 1)))))";
    let guest = Guest::partitioner().import(IMPORT_COUNT).text("nan").hook_with_rows("partition", nan);
    let stage = stage(&guest);
    call(&stage).expect("a response");
    assert_eq!(stage.counters()["nan"], 0x7fc0_0000);
}
