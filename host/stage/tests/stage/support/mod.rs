//! Shared helpers of the sandbox's tests: an engine, batches, and the two ways in which a hostile guest must fail.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use millstream_stage::{
    Columns, Engine, EngineConfig, Fault, Kind, Library, Limits, LoadError, PublishError, RecordsBuf, Stage,
    StageError, StageSpec,
};

use crate::guests::Guest;

mod lines;

pub(crate) use lines::Lines;

/// Returns the engine of all tests of a process. Each engine reserves address space for its instances.
pub(crate) fn engine() -> Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new(EngineConfig::default()).expect("an engine")).clone()
}

/// Returns an engine whose deadline a busy machine does not reach before another limit.
pub(crate) fn patient_engine() -> Engine {
    let limits = Limits { deadline: Duration::from_secs(5), ..Limits::default() };
    Engine::new(EngineConfig { limits, instances: 4, ..EngineConfig::default() }).expect("an engine")
}

/// Returns a stage of this guest.
pub(crate) fn stage(guest: &Guest) -> Stage {
    stage_in(&engine(), guest)
}

fn stage_in(engine: &Engine, guest: &Guest) -> Stage {
    let plugin = engine.load(&guest.build()).unwrap_or_else(|error| panic!("{error}"));
    Stage::new(plugin, "{}").unwrap_or_else(|error| panic!("{error}"))
}

/// Returns a batch whose rows have these values, the key `k` and one header.
pub(crate) fn batch(values: &[&str]) -> RecordsBuf {
    let mut batch = RecordsBuf::new(Columns::ALL);
    for value in values {
        let header = [("name", Some(&b"value"[..]))];
        batch.push(7, Some(b"k"), Some(value.as_bytes()), header).expect("a small batch");
    }
    batch
}

/// Returns three rows, of which a good filter drops the second.
pub(crate) fn three() -> RecordsBuf {
    batch(&["one", "x-two", "three"])
}

/// Calls the stage with [`three`] rows, whatever its kind, and checks a good response.
pub(crate) fn call(stage: &Stage) -> Result<(), StageError> {
    let batch = three();
    let records = batch.as_records();
    match stage.kind() {
        Kind::Partitioner => {
            let answer = stage.partition("topic", 4, &[0; 4], &records)?;
            assert_eq!(answer.len(), 3);
        }
        Kind::Filter => {
            let kept = stage.filter("topic", &records)?;
            assert_eq!(kept.iter().collect::<Vec<_>>(), [0, 2]);
        }
        Kind::Serializer => {
            for changed in [stage.serialize("topic", &records)?, stage.deserialize("topic", &records)?] {
                assert_eq!(changed.keys, None);
                let values = changed.values.expect("new values");
                assert!(values.iter().eq(records.values.expect("values").iter()));
            }
        }
        Kind::Compressor => {
            let compressed = stage.compress(b"some bytes", 1)?;
            assert_eq!(stage.decompress(&compressed, 1, 10)?, b"some bytes");
        }
    }
    Ok(())
}

fn good(kind: Kind) -> Guest {
    match kind {
        Kind::Partitioner => Guest::partitioner(),
        Kind::Serializer => Guest::serializer(),
        Kind::Compressor => Guest::compressor(),
        Kind::Filter => Guest::filter(),
    }
}

/// Checks T: a live stage is swapped to the hostile guest, and calls fail as `is_expected` requires, every time. Each
/// failure costs an instance. A good version then replaces it and works.
pub(crate) fn assert_trapped(guest: &Guest, is_expected: impl Fn(&Fault) -> bool) {
    assert_trapped_in(&engine(), guest, is_expected);
}

/// Checks the same in another engine.
pub(crate) fn assert_trapped_in(engine: &Engine, guest: &Guest, is_expected: impl Fn(&Fault) -> bool) {
    let stage = stage_in(engine, guest);
    for attempt in 1..=2 {
        let error = call(&stage).expect_err("a hostile guest");
        assert!(is_expected(&error.fault), "attempt {attempt}: {error}");
        assert!(error.to_string().contains("1.0.0"), "{error}");
        let stats = stage.stats();
        assert_eq!((stats.errors, stats.traps), (attempt, attempt), "{error}");
    }
    let good = good(stage.kind()).version("2.0.0");
    stage.swap(engine.load(&good.build()).expect("a good guest")).expect("a good version");
    call(&stage).expect("the good version works");
    assert_eq!(stage.stats().version, "2.0.0");
}

/// Checks R: bytes that are not even loaded. Publishing them leaves the active version in use.
pub(crate) fn assert_not_loaded(kind: Kind, bytes: &[u8]) -> LoadError {
    let library = Library::new(engine());
    let good = good(kind);
    library.publish(&good.build()).expect("a good guest");
    let name = format!("good-{kind}");
    let spec = StageSpec::parse(&name).expect("a name");
    let stage = library.resolve(&spec, kind).expect("a good stage");
    let error = library.publish(bytes).expect_err("a hostile module");
    assert_eq!(stage.stats().swaps, 0);
    call(&stage).expect("the old version serves");
    match error {
        PublishError::Load(error) => error,
        PublishError::Refused(error) => panic!("it loads: {error}"),
    }
}

/// Checks R: a guest that loads, but does not start in the stage that would use it. The old version stays in use, also
/// for a later stage of that name.
pub(crate) fn assert_not_started(guest: &Guest, kind: Kind, is_expected: impl Fn(&Fault) -> bool) {
    let library = Library::new(engine());
    library.publish(&good(kind).build()).expect("a good guest");
    let name = format!("good-{kind}");
    let spec = StageSpec::parse(&name).expect("a name");
    let stage: Arc<Stage> = library.resolve(&spec, kind).expect("a good stage");
    let hostile = guest.clone().name(&name).version("6.6.6");
    let error = library.publish(&hostile.build()).expect_err("a guest that does not start");
    let PublishError::Refused(error) = error else {
        panic!("it loads, and one stage rejects it: {error}");
    };
    let [refused] = &error.refusals[..] else {
        panic!("one stage rejects it: {error}");
    };
    assert!(is_expected(&refused.error.fault), "{error}");
    let text = error.to_string();
    assert!(text.contains("6.6.6") && text.contains(&format!("the {kind} `{name}`")), "{error}");
    call(&stage).expect("the old version serves");
    let later = library.resolve(&spec, kind).expect("a good stage");
    assert_eq!(later.stats().version, "1.0.0");
}
