//! The default plug-ins that work by a schema, which may ask for very much of them.

use std::time::{Duration, Instant};

use millstream_plugins::DEFAULTS;
use millstream_stage::{Columns, Engine, EngineConfig, Fault, Kind, Library, RecordsBuf, Stage, StageSpec};

use crate::components::stage;

fn values<'a>(rows: impl IntoIterator<Item = &'a [u8]>) -> RecordsBuf {
    let mut records = RecordsBuf::new(Columns { values: true, ..Columns::NONE });
    rows.into_iter().for_each(|row| records.push(0, None, Some(row), []).unwrap());
    records
}

/// The bytes of a batch.
const SIZE: usize = 64 << 10;

/// Returns a stage of a schema of 64 fields. A byte of a record becomes its field's name, `:null,` and two quotes.
fn with_names_of(length: usize) -> Stage {
    let field =
        |number: usize| format!(r#"{{"name":"f{number:0>length$}","type":["null","int"]}}"#, length = length - 1);
    let fields: Vec<String> = (0..64).map(field).collect();
    stage("avro", &format!(r#"{{"id":1,"schema":{{"type":"record","name":"R","fields":[{}]}}}}"#, fields.join(",")))
}

#[test]
fn a_deserializer_makes_up_to_32_bytes_of_each() {
    // All branches are null.
    let record = [&[0, 0, 0, 0, 1][..], &[0; 64]].concat();
    let records = values(std::iter::repeat_n(&record[..], SIZE / record.len()));
    let changed = with_names_of(25).deserialize("topic", &records.as_records()).unwrap();
    let values = changed.values.unwrap();
    let size: usize = (0..records.as_records().rows as usize).filter_map(|row| values.get(row)).map(<[u8]>::len).sum();
    assert!(size > 28 * SIZE, "{size}");
    let error = with_names_of(48).deserialize("topic", &records.as_records()).unwrap_err();
    assert!(matches!(error.fault, Fault::ResponseTooLarge { .. }), "{error}");
}

#[test]
fn a_schema_that_doubles_at_every_level_is_stopped_at_the_deadline() {
    let library = Library::new(Engine::new(EngineConfig::default()).unwrap());
    for plugin in &DEFAULTS {
        library.add_embedded(plugin.name, plugin.needs_deadline, || plugin.component());
    }
    let deeper = r##"{"properties":{"a":{"$ref":"#/$defs/tree"}}}"##;
    let schema = format!(
        r##"json-schema{{"schema":{{"$defs":{{"tree":{{"allOf":[{deeper},{deeper}]}}}},"$ref":"#/$defs/tree"}}}}"##
    );
    let filter = library.resolve(&StageSpec::parse(&schema).unwrap(), Kind::Filter).unwrap();
    let nested = |depth: usize| [r#"{"a":"#.repeat(depth), "1".to_owned(), "}".repeat(depth)].concat();
    let keep = filter.filter("topic", &values([nested(3).as_bytes()]).as_records()).unwrap();
    assert!(keep.get(0));
    let begun = Instant::now();
    let error = filter.filter("topic", &values([nested(60).as_bytes()]).as_records()).unwrap_err();
    assert!(matches!(error.fault, Fault::Deadline { .. }), "{error}");
    // Its processor time is 20 ms; the rest is for a busy machine.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn only_plugins_out_of_proportion_have_a_deadline() {
    let with: Vec<&str> = DEFAULTS.iter().filter(|plugin| plugin.needs_deadline).map(|plugin| plugin.name).collect();
    assert_eq!(with, ["json-schema"]);
}
