//! Hot reload: new versions take over while batches flow.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::guests::{self, Guest};
use crate::support::{batch, call, engine, stage, three};
use millstream_stage::{Fault, Kind, Library, Origin, RecordsBuf, ResolveError, Stage, StageSpec, WatchEvent, Watcher};

/// Returns a partitioner whose version number is the partition of all rows.
fn version(number: u32) -> Guest {
    Guest::partitioner()
        .version(&format!("1.0.{number}"))
        .number(number)
        .hook("choose", "(return (global.get $number))")
}

/// Gives the compiler more work, but not the guest: a call takes no longer.
fn slow_to_compile(guest: Guest) -> Guest {
    let busy: String = (0..2_000)
        .map(|i| format!("(local.set 0 (i64.xor (i64.mul (local.get 0) (local.get 0)) (i64.const {i})))"))
        .collect();
    let functions: String =
        (0..10).map(|i| format!("(func (export \"busy{i}\") (param i64) (result i64) {busy} (local.get 0))")).collect();
    guest.hook("module", &functions)
}

#[test]
fn each_batch_is_processed_by_one_version_and_no_call_waits_for_a_compilation() {
    const SWAPS: u32 = 50;
    let stage = stage(&version(0));
    let batch = batch(&["value"; 200]);
    let is_done = AtomicBool::new(false);
    let calls = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = 0;
                    while !is_done.load(Ordering::Relaxed) {
                        let pinned = stage.pin();
                        let answer =
                            pinned.partition("topic", 100, &[0; 100], &batch.as_records()).expect("a response");
                        let number = answer[0];
                        assert_eq!(answer.len(), 200);
                        assert!(answer.iter().all(|row| *row == number), "{answer:?}");
                        assert_eq!(pinned.plugin().version(), format!("1.0.{number}"));
                        // A caller never sees an older version again.
                        assert!(number >= seen, "{number} after {seen}");
                        seen = number;
                        calls.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for number in 1..=SWAPS {
            let guest = version(number);
            let is_slow = number % 10 == 0;
            let bytes = if is_slow { slow_to_compile(guest).build() } else { guest.build() };
            let before = calls.load(Ordering::Relaxed);
            let plugin = engine().load(&bytes).expect("a version");
            let during = calls.load(Ordering::Relaxed) - before;
            assert!(!is_slow || during > 0, "calls waited while version {number} was compiled");
            let swapped = stage.swap(plugin).expect("a version that starts");
            assert_eq!(swapped.after, format!("1.0.{number}"));
            // Every version is used for a while.
            let served = calls.load(Ordering::Relaxed) + 8;
            while calls.load(Ordering::Relaxed) < served {
                assert!(!callers.iter().any(|caller| caller.is_finished()), "a caller failed");
                std::thread::yield_now();
            }
        }
        is_done.store(true, Ordering::Relaxed);
    });
    let stats = stage.stats();
    assert_eq!((stats.swaps, stats.errors), (u64::from(SWAPS), 0));
    assert_eq!(stats.calls, calls.load(Ordering::Relaxed));
    assert_eq!(stats.records, stats.calls * 200);
    assert_eq!(stats.version, "1.0.50");
    println!(
        "{} calls over {SWAPS} swaps, {} ns a record, longest pause of a swap {} ns",
        stats.calls,
        stats.nanos / stats.records,
        stats.swap_pause_max_nanos
    );
}

#[test]
fn an_old_version_drains() {
    let stage = stage(&version(1));
    let batch = three();
    let old = stage.pin();
    stage.swap(engine().load(&version(2).build()).expect("a version")).expect("it starts");
    let partition = |pinned: &millstream_stage::Pinned<'_>| {
        pinned.partition("topic", 9, &[0; 9], &batch.as_records()).expect("a response")
    };
    // A version that was pinned before the swap still works; a pin after it gets the new one.
    assert_eq!(partition(&old), [1, 1, 1]);
    assert_eq!(partition(&stage.pin()), [2, 2, 2]);
    assert_eq!(partition(&old), [1, 1, 1]);
}

#[test]
fn a_new_version_has_all_instances_that_were_ever_used_at_once() {
    let compressor = |number: u32| Guest::compressor().version(&format!("1.0.{number}")).build();
    let stage = stage(&Guest::compressor());
    assert_eq!(stage.stats().waits, 0, "the first instance is made with the stage");
    // It takes a second instance at once, to check the result of the first.
    stage.compress(b"value", 1).expect("a result");
    let stats = stage.stats();
    assert!(stats.waits == 1 && stats.wait_max_nanos > 0, "{stats:?}");
    // The version in between is not called.
    for number in 1..=3 {
        stage.swap(engine().load(&compressor(number)).expect("a version")).expect("it starts");
    }
    stage.compress(b"value", 1).expect("a result");
    assert_eq!(stage.stats().waits, 1);
}

#[test]
fn a_stage_keeps_its_kind_and_its_configuration() {
    let stage = stage(&version(1));
    let filter = engine().load(&Guest::filter().build()).expect("a filter");
    let error = stage.swap(filter).expect_err("another kind");
    assert!(matches!(error.fault, Fault::WrongKind { have: Kind::Filter, .. }), "{error}");
    // Rejects every configuration, at the field `/limit`.
    let refuses = "(i32.store8 (i32.const 2048) (i32.const 1))
        (i32.store (i32.const 2052) (i32.const 192)) (i32.store (i32.const 2056) (i32.const 6))
        (i32.store (i32.const 2060) (i32.const 198)) (i32.store (i32.const 2064) (i32.const 9))
        (return (i32.const 2048))";
    let guest = version(2).text("/limitmust be 7").hook("configure", refuses);
    let plugin = engine().load(&guest.build()).expect("a version");
    let error = stage.swap(plugin.clone()).expect_err("its configuration");
    let text = error.to_string();
    assert!(text.contains("`/limit`") && text.contains("must be 7"), "{text}");
    assert_eq!((stage.stats().swaps, stage.stats().version.as_str()), (0, "1.0.1"));
    let error = Stage::new(plugin, r#"{"limit":8}"#).expect_err("its configuration");
    assert!(matches!(error.fault, Fault::Config { .. }) && !error.fault.is_trap());
}

#[test]
fn a_library_gives_stages_by_name_version_and_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let library = Library::new(engine());
    let embedded: &'static [u8] = version(1).build().leak();
    library.add_embedded("good-partitioner", false, move || embedded);
    library.publish(&version(2).version("2.4.0").build()).expect("a version");
    let resolve = |text: &str, kind| library.resolve(&StageSpec::parse(text).expect("a stage"), kind);
    let version_of = |text| resolve(text, Kind::Partitioner).map(|stage| stage.stats().version);
    assert_eq!(version_of("good-partitioner").expect("the newest"), "2.4.0");
    assert_eq!(version_of("good-partitioner@1").expect("a pinned one"), "1.0.1");
    assert_eq!(version_of("good-partitioner@2.4").expect("a pinned one"), "2.4.0");
    let text = version_of("good-partitioner@3").expect_err("no such version").to_string();
    assert!(text.contains("2.4.0") && text.contains("1.0.1"), "{text}");
    let text = version_of("nobody").expect_err("no such name").to_string();
    assert!(text.contains("good-partitioner"), "{text}");
    let error = resolve("good-partitioner", Kind::Filter).expect_err("another kind");
    assert!(matches!(error, ResolveError::WrongKind { .. }), "{error}");
    // By its path: it does not become active under its name.
    let path = folder.path().join("mine.wasm");
    std::fs::write(&path, version(7).build()).expect("a file");
    let by_path = path.display().to_string();
    assert_eq!(version_of(&by_path).expect("a file"), "1.0.7");
    assert_eq!(version_of("good-partitioner").expect("the newest"), "2.4.0");
    let missing = folder.path().join("missing.wasm").display().to_string();
    let text = version_of(&missing).expect_err("no such file").to_string();
    assert!(text.contains("missing.wasm"), "{text}");
    // A file that may never end is not read.
    let text = version_of("/dev/zero").expect_err("a device").to_string();
    assert!(text.contains("not a regular file"), "{text}");
    let chain = format!("{by_path} | good-partitioner@1{{\"a\":\" | \"}}");
    let chain = library.resolve_chain(&chain, Kind::Partitioner).expect("a chain");
    assert_eq!(chain[1].config(), r#"{"a":" | "}"#);
    let listed = library.list().expect("all load");
    let origins: Vec<_> = listed.iter().map(|(origin, plugin)| (origin, plugin.version())).collect();
    assert_eq!(origins, [(&Origin::Embedded, "1.0.1"), (&Origin::Published, "2.4.0")]);
}

#[test]
fn a_stage_that_is_pinned_does_not_follow() {
    let library = Library::new(engine());
    library.publish(&version(1).build()).expect("a version");
    let resolve = |text: &str| {
        let spec = StageSpec::parse(text).expect("a stage");
        library.resolve(&spec, Kind::Partitioner).expect("a stage")
    };
    let (follows, pinned) = (resolve("good-partitioner"), resolve("good-partitioner@1.0.1"));
    let published = library.publish(&version(2).build()).expect("a version");
    assert_eq!(published.swapped.len(), 1);
    assert_eq!(follows.stats().version, "1.0.2");
    assert_eq!(pinned.stats().version, "1.0.1");
}

/// Waits for the watcher's next event, with a limit far longer than it takes.
fn next(events: &mpsc::Receiver<WatchEvent>) -> WatchEvent {
    events.recv_timeout(Duration::from_secs(60)).expect("an event")
}

#[test]
fn a_file_that_changes_is_swapped_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("partitioner.wasm");
    std::fs::write(&path, version(1).build()).expect("a file");
    std::fs::write(folder.path().join("broken.wasm"), b"nothing").expect("a file");
    std::fs::write(folder.path().join("readme.txt"), b"nothing").expect("a file");
    let library = std::sync::Arc::new(Library::new(engine()));
    let bad = library.add_folder(folder.path()).expect("a folder");
    assert!(matches!(&bad[..], [(path, _)] if path.ends_with("broken.wasm")), "{bad:?}");
    std::fs::remove_file(folder.path().join("broken.wasm")).expect("it was there");
    let spec = StageSpec::parse("good-partitioner").expect("a name");
    let stage = library.resolve(&spec, Kind::Partitioner).expect("a stage");
    let (sender, events) = mpsc::channel();
    let watcher = Watcher::start(library.clone(), move |event| drop(sender.send(event))).expect("a watcher");

    // Written in place, as a compiler does.
    std::fs::write(&path, version(2).build()).expect("a file");
    let WatchEvent::Reloaded { published, .. } = next(&events) else {
        panic!("it is a good version");
    };
    assert_eq!(published.swapped[0].after, "1.0.2");
    assert_eq!(stage.stats().version, "1.0.2");

    // Broken: the old version stays in use.
    std::fs::write(&path, b"\0asm broken").expect("a file");
    let WatchEvent::Refused { problem, .. } = next(&events) else {
        panic!("it is broken");
    };
    assert!(problem.contains("binary format"), "{problem}");
    assert_eq!(stage.stats().version, "1.0.2");
    call(&stage).expect("the old version");

    // Renamed over, as an editor or a package manager does.
    let aside = folder.path().join("aside.tmp");
    std::fs::write(&aside, version(3).build()).expect("a file");
    std::fs::rename(&aside, &path).expect("renamed");
    assert!(matches!(next(&events), WatchEvent::Reloaded { .. }));
    assert_eq!(stage.stats().version, "1.0.3");

    // A file by its path, in a folder that is not watched yet.
    let elsewhere = tempfile::tempdir().expect("a folder");
    let mine = elsewhere.path().join("mine.wasm");
    std::fs::write(&mine, version(7).build()).expect("a file");
    let spec = StageSpec::parse(&mine.display().to_string()).expect("a file");
    let by_path = library.resolve(&spec, Kind::Partitioner).expect("a stage");
    std::fs::write(&mine, version(8).build()).expect("a file");
    assert!(matches!(next(&events), WatchEvent::Reloaded { .. }));
    assert_eq!(by_path.stats().version, "1.0.8");
    assert_eq!(stage.stats().version, "1.0.3", "another file's name is not taken over");
    drop(watcher);
}

/// Kubernetes changes the files of a ConfigMap with one link on the path to all of them.
#[test]
fn a_file_behind_a_link_that_changes_is_another_one() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().expect("a folder");
    for version in ["one", "two"] {
        std::fs::create_dir(folder.path().join(version)).expect("a folder");
        std::fs::write(folder.path().join(version).join("mine.wasm"), version).expect("a file");
    }
    let data = folder.path().join("..data");
    symlink("one", &data).expect("a link");
    symlink("..data/mine.wasm", folder.path().join("mine.wasm")).expect("a link");
    let (sender, files) = mpsc::channel();
    let _watcher = Watcher::folder(folder.path(), move |path| {
        let _ = sender.send(std::fs::read_to_string(path).expect("a file"));
    });
    let wait_for = |version: &str| {
        while files.recv_timeout(Duration::from_secs(60)).expect("a change is seen") != version {}
    };
    wait_for("one");
    let next = folder.path().join("..next");
    symlink("two", &next).expect("a link");
    std::fs::rename(next, data).expect("a link");
    wait_for("two");
}

#[test]
fn idle_instances_make_room_for_others() {
    let config = millstream_stage::EngineConfig { instances: 2, ..Default::default() };
    let engine = millstream_stage::Engine::new(config).expect("an engine");
    let plugin = engine.load(&version(1).build()).expect("a version");
    let stages: Vec<Stage> = (0..5).map(|_| Stage::new(plugin.clone(), "{}").expect("a stage")).collect();
    for _ in 0..3 {
        stages.iter().for_each(|stage| call(stage).expect("a response"));
    }
    // A compressor needs two at once, for its check.
    let compressor = engine.load(&Guest::compressor().build()).expect("a compressor");
    call(&Stage::new(compressor, "{}").expect("a stage")).expect("two instances");
}

#[test]
fn a_call_costs_little() {
    let stage = stage(&Guest::partitioner().columns(guests::KEYS));
    let mut batch = RecordsBuf::new(stage.pin().columns());
    for row in 0..1_000u64 {
        let key = [row.to_le_bytes(), row.to_be_bytes()].concat();
        batch.push(0, Some(&key), None, []).expect("a small batch");
    }
    let load = [0; 12];
    let once = || {
        let begun = Instant::now();
        let answer = stage.partition("topic", 12, &load, &batch.as_records()).expect("a response");
        assert_eq!(answer.len(), 1_000);
        begun.elapsed()
    };
    let fastest = (0..2_000).map(|_| once()).min().expect("calls");
    let empty = RecordsBuf::new(stage.pin().columns());
    let fastest_empty = (0..2_000)
        .map(|_| {
            let begun = Instant::now();
            stage.partition("topic", 12, &load, &empty.as_records()).expect("a response");
            begun.elapsed()
        })
        .min()
        .expect("calls");
    println!(
        "1,000 rows of 16 bytes: {} ns a call, {:.1} ns a row; no rows: {} ns a call",
        fastest.as_nanos(),
        fastest.as_nanos() as f64 / 1_000.0,
        fastest_empty.as_nanos(),
    );
    // Far above the real time, and far below the time of one call for each record.
    assert!(fastest < Duration::from_micros(200), "{fastest:?}");
}

#[test]
fn idle_instances_have_bounded_memory() {
    // Each instance has 2 pages, 128 KiB: two fit, and the third is created again for every call.
    let config = millstream_stage::EngineConfig { idle_memory_bytes: 256 << 10, ..Default::default() };
    let engine = millstream_stage::Engine::new(config).expect("an engine");
    // The first call of an instance adds to a counter.
    let count = "(if (i32.eqz (global.get $called)) (then
        (call $count (i32.const 192) (i32.const 5) (i64.const 1)) (global.set $called (i32.const 1))))";
    let guest = version(1)
        .import(guests::IMPORT_COUNT)
        .text("fresh")
        .hook("module", "(global $called (mut i32) (i32.const 0))")
        .hook_with_rows("partition", count);
    let plugin = engine.load(&guest.build()).expect("a version");
    let mut stages: Vec<Stage> = (0..3).map(|_| Stage::new(plugin.clone(), "{}").expect("a stage")).collect();
    for _ in 0..4 {
        stages.iter().for_each(|stage| call(stage).expect("a response"));
    }
    let fresh: Vec<u64> = stages.iter().map(|stage| stage.counters()["fresh"]).collect();
    assert_eq!(fresh, [1, 1, 4]);
    // A dropped stage makes room.
    stages.remove(0);
    for _ in 0..4 {
        call(&stages[1]).expect("a response");
    }
    assert_eq!(stages[1].counters()["fresh"], 5);
}
