//! Checks that plug-ins report very many bad records without a trap, and no more than fits.

use millstream_stage::{Columns, Fault, RecordsBuf};

use crate::components::stage;

#[test]
fn a_batch_of_small_records_that_are_all_bad_is_no_trap() {
    const ROWS: u32 = 50_000;
    let filter = stage("json-compare", r#"{"path":"/n","op":">","value":0}"#);
    let mut records = RecordsBuf::new(Columns { values: true, ..Columns::NONE });
    for _ in 0..ROWS {
        records.push(0, None, Some(b"xxxxxxxxxxxxxxxx"), []).unwrap();
    }
    let error = filter.filter("topic", &records.as_records()).unwrap_err();
    let Fault::Rows(bad) = error.fault else { panic!("{error}") };
    assert_eq!(bad.len(), ROWS as usize);
    assert!(bad[0].message.contains("JSON"), "{}", bad[0].message);
    assert_eq!(
        bad[ROWS as usize - 1].message,
        "rejected by the stage; its message was omitted because many rows failed"
    );
}
