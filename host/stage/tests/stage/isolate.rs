//! One bad record does not affect its neighbours: the rows that a stage fails for are found, with real guests.

use std::time::{Duration, Instant};

use crate::guests::Guest;
use crate::support::{batch, stage};
use millstream_stage::{ISOLATION_CALLS_MAX, Isolated, RecordsBuf, Stage};

/// Runs `code` in a filter for every row whose value begins with a `p`.
fn poisoned(code: &str) -> Guest {
    let walk = format!(
        "(block $checked
          (loop $check
            (br_if $checked (i32.ge_u (local.get $row) (local.get $rows)))
            (local.set $end (i32.load (i32.add (i32.load offset=60 (local.get $p))
              (i32.shl (local.get $row) (i32.const 2)))))
            (if (i32.lt_u (local.get $start) (local.get $end))
              (then (if (i32.eq (i32.const 112)
                  (i32.load8_u (i32.add (i32.load offset=52 (local.get $p)) (local.get $start))))
                (then {code}))))
            (local.set $start (local.get $end))
            (local.set $row (i32.add (local.get $row) (i32.const 1)))
            (br $check)))
        (local.set $start (i32.const 0)) (local.set $row (i32.const 0))"
    );
    Guest::filter().hook("filter", &walk)
}

/// Returns `count` rows: those in `poison` begin with a p, every tenth of the others with an x.
fn rows(count: usize, poison: &[usize]) -> RecordsBuf {
    let values: Vec<&str> = (0..count)
        .map(|row| match row {
            row if poison.contains(&row) => "poison",
            row if row % 10 == 0 => "x",
            _ => "good",
        })
        .collect();
    batch(&values)
}

fn isolated(stage: &Stage, batch: &RecordsBuf) -> Isolated {
    let (pinned, records) = (stage.pin(), batch.as_records());
    match pinned.filter_first("topic", &records) {
        Ok(keep) => Isolated { keep, bad: Vec::new() },
        Err(error) => pinned.filter_search("topic", &records, error).expect("rows are to blame"),
    }
}

/// Checks that exactly the poison is found, and all other rows are decided as usual.
fn assert_found(stage: &Stage, count: usize, poison: &[usize]) -> Isolated {
    let found = isolated(stage, &rows(count, poison));
    let bad: Vec<usize> = found.bad.iter().map(|bad| bad.row as usize).collect();
    assert_eq!(bad, poison);
    for row in 0..count {
        assert_eq!(found.keep.get(row), !poison.contains(&row) && row % 10 != 0, "row {row}");
    }
    found
}

#[test]
fn a_row_that_traps_is_found() {
    let stage = stage(&poisoned("unreachable"));
    assert!(assert_found(&stage, 1_000, &[]).bad.is_empty());
    assert_eq!(stage.stats().calls, 1);
    for row in [0, 7, 500, 999] {
        let found = assert_found(&stage, 1_000, &[row]);
        assert!(found.bad[0].message.contains("trapped in `filter`"), "{}", found.bad[0].message);
    }
    assert_found(&stage, 1, &[0]);
    assert_found(&stage, 1_000, &[3, 4, 250, 251, 500, 777, 990, 991, 992, 999]);
    // Every third row is more than the number of calls allows for. What is decided is right, and the others count as
    // bad.
    let many: Vec<usize> = (0..1_000).step_by(3).collect();
    let found = isolated(&stage, &rows(1_000, &many));
    assert!(many.iter().all(|row| found.bad.iter().any(|bad| bad.row as usize == *row)));
    assert!(found.keep.iter().all(|row| found.bad.iter().all(|bad| bad.row as usize != row)));
}

#[test]
fn a_stage_that_always_traps_gets_a_bounded_number_of_calls() {
    let stage = stage(&Guest::filter().hook_with_rows("filter", "unreachable"));
    let found = isolated(&stage, &rows(1_000, &[]));
    assert_eq!((found.bad.len(), found.keep.count()), (1_000, 0));
    assert!(stage.stats().calls <= ISOLATION_CALLS_MAX as u64 + 1);
    let undecided = found.bad.iter().filter(|bad| bad.message.contains("did not find which")).count();
    assert!(undecided > 0 && undecided <= 1_000, "{undecided}");
}

#[test]
fn a_row_that_does_not_end_is_found() {
    let stage = stage(&poisoned("(loop $forever (br $forever))"));
    let begun = Instant::now();
    let found = assert_found(&stage, 1_000, &[613]);
    assert!(found.bad[0].message.contains("deadline"), "{}", found.bad[0].message);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let found = isolated(&stage, &rows(400, &(0..400).collect::<Vec<_>>()));
    assert_eq!(found.bad.len(), 400);
}

#[test]
fn named_rows_are_left_out() {
    // An error that names row 1, while there are more than two rows.
    let refuse = "(if (i32.gt_u (local.get $rows) (i32.const 2)) (then
        (i32.store8 (i32.const 2048) (i32.const 1))
        (i32.store8 (i32.const 2052) (i32.const 0))
        (i32.store (i32.const 2056) (i32.const 3000))
        (i32.store (i32.const 2060) (i32.const 1))
        (i32.store (i32.const 3000) (i32.const 1))
        (i32.store (i32.const 3004) (i32.const 192))
        (i32.store (i32.const 3008) (i32.const 9))
        (return (i32.const 2048))))";
    let stage = stage(&Guest::filter().text("not today").hook_with_rows("filter", refuse));
    let found = isolated(&stage, &batch(&["a", "b", "c", "x", "d"]));
    let bad: Vec<_> = found.bad.iter().map(|bad| (bad.row, bad.message.as_str())).collect();
    assert_eq!(bad, [(1, "not today"), (2, "not today"), (3, "not today")]);
    assert_eq!(found.keep.iter().collect::<Vec<_>>(), [0, 4]);
    assert_eq!(stage.stats().calls, 4);
}

#[test]
fn a_batch_is_retried_once_on_a_fresh_instance() {
    // The second call of every instance traps.
    let once = "(if (global.get $called) (then unreachable)) (global.set $called (i32.const 1))";
    let guest =
        Guest::filter().hook("module", "(global $called (mut i32) (i32.const 0))").hook_with_rows("filter", once);
    let stage = stage(&guest);
    for _ in 0..5 {
        assert_found(&stage, 100, &[]);
    }
    let stats = stage.stats();
    assert!(stats.traps >= 2 && stats.calls == 5 + stats.traps, "{stats:?}");
}

#[test]
fn other_calls_are_isolated_the_same_way() {
    let trap = "(if (i32.eq (local.get $rows) (i32.const 4)) (then unreachable))";
    let stage = stage(&Guest::serializer().hook("serialize", trap));
    let batch = batch(&["a", "b", "c", "d"]);
    let mut values = vec![String::new(); 4];
    let bad = stage.pin().isolate(
        &batch.as_records(),
        |pinned, part| pinned.serialize("topic", part),
        |rows, changed| {
            for (at, row) in rows.expect("a part").iter().enumerate() {
                let column = changed.values.as_ref().expect("new values");
                values[*row as usize] = String::from_utf8_lossy(column.get(at).expect("a value")).into_owned();
            }
        },
    );
    assert_eq!(bad, Ok(Vec::new()));
    assert_eq!(values, ["a", "b", "c", "d"]);
}
