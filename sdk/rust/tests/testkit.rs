//! The test kit finds a difference between the native half and the sandbox, in a plug-in that has one.

/// The source of the plug-in, and not its crate: every new plug-in gets a copy of the manifest of the SDK, which
/// must name nothing outside of that copy.
#[path = "seeded/src/lib.rs"]
#[allow(unreachable_pub, reason = "it is also the root of a crate")]
mod plugin;

use millstream_sdk::testkit::{Failure, Testkit};
use plugin::Half;
use serde_json::{Value, json};

fn run(vectors: &[Value]) -> Result<(), Failure> {
    Testkit::filter::<Half>(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/seeded")).run(vectors)
}

/// Returns a value that is long enough for the hash to pass 32 bits.
fn long_values() -> Value {
    (0..64).map(|number| json!({"value": format!("{number} is a number at the front of a long value")})).collect()
}

#[test]
fn a_difference_is_caught() {
    let failure = run(&[json!({"call": "filter", "records": long_values()})]).unwrap_err();
    let Failure::Different { native, sandbox, .. } = &failure else { panic!("{failure}") };
    assert_ne!(native, sandbox);
    assert!(native["keep"].is_array() && sandbox["keep"].is_array(), "both halves succeeded: {failure}");
}

#[test]
fn equal_results_pass() {
    run(&[
        json!({"call": "filter", "records": [{"value": "a"}, {"value": "b"}, {"value": "c"}]}),
        json!({"call": "filter", "records": [{"value": "b"}, {}], "expect": {"error": {"rows": [{"row": 1}]}}}),
        json!({"call": "filter", "records": [{"value": "panic"}], "expect": {"error": {
            "trap": "assertion `left != right` failed: told to\n  left: [112, 97, 110, 105, 99]\n \
                     right: [112, 97, 110, 105, 99]",
        }}}),
        json!({"call": "filter", "records": [{"value": "b"}], "expect": {"keep": [0]}}),
    ])
    .unwrap();
}

#[test]
fn an_unexpected_result_is_caught() {
    let failure = run(&[json!({"call": "filter", "records": [{"value": "b"}], "expect": {"keep": []}})]).unwrap_err();
    assert!(matches!(&failure, Failure::Unexpected { result, .. } if *result == json!({"keep": [0]})), "{failure}");
}

#[test]
fn an_invalid_vector_is_named() {
    let failure = run(&[json!({"call": "partition", "partitions": 1})]).unwrap_err();
    assert!(failure.to_string().contains("does not have that function"), "{failure}");
    let failure = run(&[json!({"call": "filter", "recrods": []})]).unwrap_err();
    assert!(failure.to_string().contains("unknown field `recrods`"), "{failure}");
}
