//! Every line of vectors.jsonl, natively and in the sandbox.

use millstream_plugin_json_schema::JsonSchema;
use millstream_sdk::testkit::Testkit;

#[test]
fn the_sandbox_returns_what_the_code_returns() {
    Testkit::filter::<JsonSchema>(env!("CARGO_MANIFEST_DIR")).check_file("tests/vectors.jsonl");
}
