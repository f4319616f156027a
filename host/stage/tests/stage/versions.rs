//! Versions of a plug-in: activated everywhere or nowhere, counted, and rolled back when they fail.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use crate::guests::{Guest, IMPORT_LOG};
use crate::support::{batch, call, engine, three};
use millstream_stage::{
    Digest, Fault, FetchError, Kind, Level, Library, Origin, PublishError, ResolveError, Spike, SpikeLimits,
    SpikeReason, Stage, StageSpec, VersionSource, Watcher,
};

const NAME: &str = "good-partitioner";

fn version(number: u32) -> Guest {
    Guest::partitioner()
        .version(&format!("1.0.{number}"))
        .number(number)
        .hook("choose", "(return (global.get $number))")
}

/// Returns a version that traps on any row.
fn broken(number: u32) -> Guest {
    version(number).hook_with_rows("partition", "unreachable")
}

/// Returns a version that rejects every configuration but `{}`, at `/limit`.
fn picky(number: u32) -> Guest {
    let refuses = "(if (i32.gt_u (local.get $length) (i32.const 2)) (then
        (i32.store8 (i32.const 2048) (i32.const 1))
        (i32.store (i32.const 2052) (i32.const 192)) (i32.store (i32.const 2056) (i32.const 6))
        (i32.store (i32.const 2060) (i32.const 198)) (i32.store (i32.const 2064) (i32.const 9))
        (return (i32.const 2048))))";
    version(number).text("/limitmust be 7").hook("configure", refuses)
}

fn resolve(library: &Library, attachment: &str, text: &str) -> Result<Arc<Stage>, ResolveError> {
    library.resolve_for(attachment, &StageSpec::parse(text).expect("a stage"), Kind::Partitioner)
}

/// Returns the number of the version in use.
fn served_by(stage: &Stage) -> u32 {
    stage.partition("topic", 100, &[0; 100], &three().as_records()).expect("a response")[0]
}

#[test]
fn a_version_takes_over_everywhere_or_nowhere() {
    let library = Library::new(engine());
    library.publish(&version(1).build()).expect("a version");
    let orders = resolve(&library, "topic orders, stage.admit", NAME).expect("a stage");
    let trades = resolve(&library, "topic trades, stage.admit", &format!("{NAME}{{\"limit\":8}}")).expect("a stage");
    let error = library.publish(&picky(2).build()).expect_err("one stage rejects it");
    let PublishError::Refused(error) = error else { panic!("it loads: {error}") };
    assert_eq!(
        error.to_string(),
        "plug-in good-partitioner (version 1.0.2) cannot be activated: topic trades, stage.admit: \
         bad configuration at `/limit`: must be 7"
    );
    assert_eq!((served_by(&orders), served_by(&trades)), (1, 1));
    assert_eq!((orders.stats().swaps, trades.stats().swaps), (0, 0));
    let published = library.publish(&version(3).build()).expect("a version that serves both");
    let mut swapped: Vec<_> = published.swapped.iter().map(|swapped| &*swapped.attachment).collect();
    swapped.sort_unstable();
    assert_eq!(swapped, ["topic orders, stage.admit", "topic trades, stage.admit"]);
    assert_eq!((served_by(&orders), served_by(&trades)), (3, 3));
}

#[test]
fn a_prepared_change_has_no_effect_before_its_commit() {
    let library = Library::new(engine());
    library.publish(&version(1).build()).expect("a version");
    let early = resolve(&library, "early", NAME).expect("a stage");
    let plugin = library.load(NAME, &version(2).build()).expect("a version");
    drop(library.prepare(&plugin, Origin::Store { number: 2 }).expect("it serves"));
    assert_eq!(served_by(&early), 1);
    let activation = library.prepare(&plugin, Origin::Store { number: 2 }).expect("it serves");
    // A stage started between the two steps uses the old version until the commit, and the new one after it.
    let between = resolve(&library, "between", NAME).expect("a stage");
    assert_eq!((served_by(&early), served_by(&between)), (1, 1));
    assert_eq!(activation.commit().swapped.len(), 2);
    assert_eq!((served_by(&early), served_by(&between)), (2, 2));
    let late = resolve(&library, "late", NAME).expect("a stage");
    assert_eq!(served_by(&late), 2);

    // A stage that the next version rejects cannot be started while that version is prepared.
    let plugin = library.load(NAME, &picky(3).build()).expect("a version");
    let activation = library.prepare(&plugin, Origin::Store { number: 3 }).expect("it serves");
    let error = resolve(&library, "picked", &format!("{NAME}{{\"limit\":8}}")).expect_err("rejected");
    assert!(error.to_string().contains("`/limit`"), "{error}");
    activation.commit();
    assert_eq!((served_by(&early), served_by(&late)), (3, 3));
}

#[test]
fn stages_that_start_during_activations_use_the_last_version() {
    let library = Library::new(engine());
    library.publish(&version(0).build()).expect("a version");
    let plugins: Vec<_> =
        (1..=20).map(|number| library.load(NAME, &version(number).build()).expect("a version")).collect();
    let stages = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..40 {
                    let stage = resolve(&library, "one of many", NAME).expect("a stage");
                    stages.lock().expect("a list").push(stage);
                }
            });
        }
        for (plugin, number) in plugins.iter().zip(1..) {
            library.prepare(plugin, Origin::Store { number }).expect("it serves").commit();
        }
    });
    let stages = stages.into_inner().expect("a list");
    assert!(stages.len() == 80 && stages.iter().all(|stage| served_by(stage) == 20));
}

/// Keeps versions in memory, and counts how often one is fetched.
#[derive(Default)]
struct Kept {
    versions: BTreeMap<u32, Vec<u8>>,
    active: u32,
    fetched: AtomicU64,
}

impl VersionSource for Kept {
    fn names(&self) -> Vec<String> {
        vec![NAME.to_owned()]
    }

    fn versions(&self, name: &str) -> Vec<(u32, Digest)> {
        let digest = |(number, bytes): (&u32, &Vec<u8>)| (*number, Digest::of(bytes));
        if name == NAME { self.versions.iter().map(digest).collect() } else { Vec::new() }
    }

    fn active(&self, name: &str) -> Option<u32> {
        (name == NAME).then_some(self.active)
    }

    fn bytes(&self, _name: &str, number: u32) -> Result<Vec<u8>, FetchError> {
        self.fetched.fetch_add(1, Ordering::Relaxed);
        if number == 9 { Err(FetchError::new("the cluster is away")) } else { Ok(self.versions[&number].clone()) }
    }
}

#[test]
fn numbered_versions_are_fetched_when_they_are_wanted() {
    let library = Library::new(engine());
    library.add_embedded(NAME, false, || version(50).build().leak());
    let versions = (1..=9).map(|number| (number, version(number).build())).collect();
    let kept = Arc::new(Kept { versions, active: 3, ..Kept::default() });
    library.set_source(kept.clone());
    let fetched = || kept.fetched.load(Ordering::Relaxed);
    let follows = resolve(&library, "a", NAME).expect("the active one");
    assert_eq!((served_by(&follows), fetched()), (3, 1));
    let pinned = resolve(&library, "b", &format!("{NAME}@3")).expect("a pinned one");
    assert_eq!((served_by(&pinned), fetched()), (3, 1));
    let old = resolve(&library, "c", &format!("{NAME}@1")).expect("a pinned one");
    assert_eq!((served_by(&old), fetched()), (1, 2));
    let embedded = resolve(&library, "d", &format!("{NAME}@0")).expect("the embedded one");
    assert_eq!((served_by(&embedded), fetched()), (50, 2));
    let text = resolve(&library, "e", &format!("{NAME}@12")).expect_err("no such version").to_string();
    assert!(text.contains("no version 12") && text.contains("1, 2, 3"), "{text}");
    let text = resolve(&library, "f", &format!("{NAME}@9")).expect_err("it cannot be fetched").to_string();
    assert!(text.contains("good-partitioner@9") && text.contains("the cluster is away"), "{text}");

    let plugin = library.version(NAME, 4).expect("a version");
    library.prepare(&plugin, Origin::Store { number: 4 }).expect("it serves").commit();
    let versions = [&follows, &pinned, &old, &embedded].map(|stage| served_by(stage));
    assert_eq!(versions, [4, 3, 1, 50]);
    // Back to the version that is part of the program.
    let plugin = library.version(NAME, 0).expect("the embedded one");
    library.prepare(&plugin, Origin::Embedded).expect("it serves").commit();
    assert_eq!(served_by(&follows), 50);
    let numbers: Vec<_> = library.counts().iter().map(|counts| (counts.number, counts.stages)).collect();
    assert!(numbers.contains(&(Some(0), 2)) && numbers.contains(&(Some(3), 1)), "{numbers:?}");
}

/// The error for a plug-in without an active version does not say that the plug-in is missing.
#[test]
fn a_plugin_without_an_active_version_is_named_as_such() {
    let library = Library::new(engine());
    let versions = (1..=2).map(|number| (number, version(number).build())).collect();
    library.set_source(Arc::new(Kept { versions, active: 0, ..Kept::default() }));
    let text = resolve(&library, "a", NAME).expect_err("nothing serves").to_string();
    assert!(text.contains("no version of plug-in `good-partitioner` is active"), "{text}");
    assert!(text.contains("good-partitioner@2"), "{text}");
    for wanted in ["0", "x", "7"] {
        let text = resolve(&library, "a", &format!("{NAME}@{wanted}")).expect_err("no such version").to_string();
        assert_eq!(text, format!("plug-in `good-partitioner` has no version {wanted}; it has: 1, 2"));
    }
    let text = resolve(&library, "b", "other").expect_err("no such plug-in").to_string();
    assert_eq!(text, "there is no plug-in `other`; known plug-ins: good-partitioner");
    // A name whose versions are all deleted is not suggested.
    library.set_source(Arc::new(Kept::default()));
    let text = resolve(&library, "c", NAME).expect_err("no such plug-in").to_string();
    assert_eq!(text, "there is no plug-in `good-partitioner`; known plug-ins: ");
}

#[test]
fn a_version_is_known_by_the_name_that_it_is_stored_under() {
    let library = Library::new(engine());
    let plugin = library.load("region", &version(1).build()).expect("a version");
    library.prepare(&plugin, Origin::Store { number: 1 }).expect("it serves").commit();
    let stage = resolve(&library, "a", "region").expect("a stage");
    assert_eq!((stage.stats().plugin.as_str(), served_by(&stage)), ("region", 1));
    assert_eq!(plugin.description().name, NAME);
}

#[test]
fn counts_are_those_of_a_version_in_all_stages_and_outlive_it() {
    let library = Library::new(engine());
    library.publish(&version(1).build()).expect("a version");
    let stages: Vec<_> = (0..3).map(|_| resolve(&library, "a", NAME).expect("a stage")).collect();
    stages.iter().for_each(|stage| call(stage).expect("a response"));
    library.publish(&version(2).build()).expect("a version");
    served_by(&stages[0]);
    let counts = library.counts();
    let [one, two] = &counts[..] else { panic!("two versions: {counts:?}") };
    assert_eq!((one.version.as_str(), one.counts.calls, one.counts.records, one.stages), ("1.0.1", 3, 9, 0));
    assert_eq!((two.version.as_str(), two.counts.calls, two.counts.records, two.stages), ("1.0.2", 1, 3, 3));
    assert!(one.counts.nanos > 0 && one.counts.errors == 0);
    // The same bytes again: their counts continue.
    library.publish(&version(1).build()).expect("a version");
    served_by(&stages[0]);
    assert_eq!(library.counts().iter().map(|counts| counts.counts.calls).sum::<u64>(), 5);
}

/// Returns a library that records its spikes.
fn watched() -> (Library, Arc<Mutex<Vec<Spike>>>) {
    let library = Library::new(engine());
    let spikes = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&spikes);
    library.on_spike(move |spike| heard.lock().expect("a list").push(spike));
    (library, spikes)
}

/// Calls the stage until it has trapped as often as allowed.
fn trap_three_times(stage: &Stage) {
    for _ in 0..3 {
        let error = call(stage).expect_err("a version that traps");
        assert!(matches!(error.fault, Fault::Trap { .. }), "{error}");
    }
}

#[test]
fn row_28_trap_on_the_nth_call() {
    // Every instance traps at its fourth call, and again at its eighth: a good start, and then a spike.
    let count = "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
        (if (i32.ge_u (global.get $calls) (i32.const 4)) (then unreachable))";
    let (library, spikes) = watched();
    library.publish(&version(1).build()).expect("a good version");
    let stages = ["a", "b"].map(|name| resolve(&library, name, NAME).expect("a stage"));
    stages.iter().for_each(|stage| call(stage).expect("the good version"));
    let guest = version(2).hook("module", "(global $calls (mut i32) (i32.const 0))").hook_with_rows("partition", count);
    library.publish(&guest.build()).expect("it begins well");
    let mut errors = 0;
    for round in 0..20 {
        for stage in &stages {
            errors += u32::from(call(stage).is_err());
        }
        assert!(round < 3 || errors > 0);
    }
    // The third trap in all stages together is the last.
    assert_eq!(errors, 3);
    assert!(stages.iter().all(|stage| stage.stats().version == "1.0.1"));
    let spikes = spikes.lock().expect("a list");
    let [spike] = &spikes[..] else { panic!("once: {spikes:?}") };
    assert_eq!((spike.version.as_str(), spike.rolled_back_to.as_deref()), ("1.0.2", Some("1.0.1")));
    assert!(matches!(spike.reason, SpikeReason::Traps { traps: 3, .. }));
    // A stage that starts later does not get it either.
    let later = resolve(&library, "later", NAME).expect("a stage");
    assert_eq!(served_by(&later), 1);
}

#[test]
fn row_28_trap_only_after_a_reload() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("partitioner.wasm");
    let write = |guest: Guest| std::fs::write(&path, guest.build()).expect("a file");
    let (library, spikes) = watched();
    let library = Arc::new(library);
    write(version(1));
    assert!(library.add_folder(folder.path()).expect("a folder").is_empty());
    let by_name = resolve(&library, "a", NAME).expect("a stage");
    let by_path = resolve(&library, "b", &path.display().to_string()).expect("a stage");
    let (sender, events) = mpsc::channel();
    let _watcher = Watcher::start(Arc::clone(&library), move |event| drop(sender.send(event))).expect("a watcher");
    let next = || events.recv_timeout(Duration::from_secs(60)).expect("an event");
    write(broken(2));
    next();
    assert_eq!(by_name.stats().version, "1.0.2");
    trap_three_times(&by_name);
    assert_eq!((served_by(&by_name), served_by(&by_path)), (1, 1));
    // The file still holds the bad version, which is not activated again.
    assert!(library.reload(&path).expect("nothing new").is_none());
    let again = resolve(&library, "c", &path.display().to_string()).expect("a stage");
    assert_eq!(served_by(&again), 1);
    // The next version gets a new chance, and so does a rollback from it.
    write(version(3));
    next();
    assert_eq!((served_by(&by_name), served_by(&by_path)), (3, 3));
    write(broken(4));
    next();
    trap_three_times(&by_path);
    assert_eq!((served_by(&by_name), served_by(&by_path)), (3, 3));
    let back: Vec<_> = spikes.lock().expect("a list").iter().map(|spike| spike.rolled_back_to.clone()).collect();
    assert_eq!(back, [Some("1.0.1".to_owned()), Some("1.0.3".to_owned())]);
}

#[test]
fn the_owner_of_a_store_rolls_back_its_versions() {
    let (library, spikes) = watched();
    for (guest, number) in [(version(1), 1), (broken(2), 2)] {
        let plugin = library.load(NAME, &guest.build()).expect("a version");
        library.prepare(&plugin, Origin::Store { number }).expect("it starts").commit();
    }
    let stage = resolve(&library, "a", NAME).expect("a stage");
    trap_three_times(&stage);
    trap_three_times(&stage);
    {
        let spikes = spikes.lock().expect("a list");
        let [spike] = &spikes[..] else { panic!("once: {spikes:?}") };
        assert_eq!((spike.number, spike.rolled_back_to.as_deref()), (Some(2), None));
    }
    let good = library.version(NAME, 1).expect("it is kept");
    library.prepare(&good, Origin::Store { number: 1 }).expect("it serves").commit();
    assert_eq!(served_by(&stage), 1);
}

#[test]
fn the_first_version_has_none_to_roll_back_to() {
    let (library, spikes) = watched();
    library.publish(&broken(1).build()).expect("a version");
    let stage = resolve(&library, "a", NAME).expect("a stage");
    trap_three_times(&stage);
    trap_three_times(&stage);
    assert_eq!(spikes.lock().expect("a list").len(), 1);
    assert_eq!(stage.stats().version, "1.0.1");
}

#[test]
fn one_poison_record_is_one_trap_however_often_it_is_retried() {
    let (library, spikes) = watched();
    library.publish(&version(1).build()).expect("a version");
    library.publish(&broken(2).build()).expect("a version");
    let stage = resolve(&library, "a", NAME).expect("a stage");
    let batch = batch(&["value"; 50]);
    let isolate = || {
        let call = |pinned: &millstream_stage::Pinned<'_>, part: &millstream_stage::Records<'_>| {
            pinned.partition("topic", 4, &[0; 4], part)
        };
        stage.pin().isolate(&batch.as_records(), call, |_, _| ()).expect("rows are to blame").len()
    };
    assert_eq!((isolate(), isolate()), (50, 50));
    assert!(spikes.lock().expect("a list").is_empty() && stage.stats().traps > 50);
    assert_eq!(isolate(), 50);
    assert_eq!(stage.stats().version, "1.0.1");
    let counts = library.counts();
    assert_eq!(counts.iter().map(|counts| counts.counts.bad_records).collect::<Vec<_>>(), [0, 150]);
}

#[test]
fn too_many_bad_records_are_a_spike_too() {
    // It rejects every batch.
    let refuse = "(i32.store8 (i32.const 2048) (i32.const 1)) (i32.store8 (i32.const 2052) (i32.const 1))
        (i32.store (i32.const 2056) (i32.const 192)) (i32.store (i32.const 2060) (i32.const 9))
        (return (i32.const 2048))";
    let (library, spikes) = watched();
    library.set_spike_limits(SpikeLimits { error_share: 0.2, sample_min: 100, ..SpikeLimits::default() });
    library.publish(&version(1).build()).expect("a version");
    let refusing = version(2).text("not today").hook_with_rows("partition", refuse);
    library.publish(&refusing.build()).expect("a version");
    let stage = resolve(&library, "a", NAME).expect("a stage");
    let batch = batch(&["value"; 20]);
    for _ in 0..5 {
        let error = stage.partition("topic", 4, &[0; 4], &batch.as_records()).expect_err("rejected");
        assert_eq!(error.fault, Fault::Batch("not today".to_owned()));
    }
    assert_eq!(stage.stats().version, "1.0.1");
    let spikes = spikes.lock().expect("a list");
    assert_eq!(spikes[0].reason.to_string(), "100 of 100 records failed in 60 s");
}

#[test]
fn log_lines_of_a_plug_in_reach_the_callback() {
    let library = Library::new(engine());
    let lines = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&lines);
    library.on_log(move |line| {
        heard.lock().expect("a list").push((line.version.to_string(), line.level, line.line.to_owned()));
    });
    let log = "(call $log (i32.const 1) (i32.const 192) (i32.const 5))";
    let guest = version(1).import(IMPORT_LOG).text("he\u{1b}lo").hook_with_rows("partition", log);
    library.publish(&guest.build()).expect("a version");
    let stage = resolve(&library, "a", NAME).expect("a stage");
    for _ in 0..200 {
        call(&stage).expect("a response");
    }
    let lines = lines.lock().expect("a list");
    assert_eq!(lines[0], (format!("{NAME} 1.0.1"), Level::Warn, "he\\u{1b}lo".to_owned()));
    assert!((50..200).contains(&lines.len()), "{}", lines.len());
}

#[test]
fn retries_do_not_change_the_failure_rate() {
    let (library, spikes) = watched();
    let filter = |version: &str| Guest::filter().version(version).text("poisoned");
    library.publish(&filter("1.0.0").build()).expect("a version");
    library.publish(&filter("2.0.0").naming_bad_rows().build()).expect("a version");
    let spec = StageSpec::parse("good-filter").expect("a stage");
    let stage = library.resolve(&spec, Kind::Filter).expect("a stage");
    let values: Vec<&str> = (0..100).map(|row| if row % 5 < 3 { "poison" } else { "good" }).collect();
    let batch = batch(&values);
    for _ in 0..10 {
        let (pinned, records) = (stage.pin(), batch.as_records());
        let error = pinned.filter_first("topic", &records).expect_err("rows are bad");
        let found = pinned.filter_search("topic", &records, error).expect("rows are to blame");
        assert_eq!((found.bad.len(), found.keep.iter().count()), (60, 40));
        assert_eq!(found.bad[0].message, "poisoned");
    }
    assert_eq!((stage.stats().calls, stage.stats().records), (20, 1_000));
    assert_eq!(spikes.lock().expect("a list")[0].reason.to_string(), "600 of 1000 records failed in 60 s");
    assert_eq!(stage.stats().version, "1.0.0");
}
