//! Every line of vectors.jsonl, natively and in the sandbox.

use millstream_plugin_sample::Sample;
use millstream_sdk::testkit::Testkit;

#[test]
fn the_sandbox_returns_what_the_code_returns() {
    Testkit::filter::<Sample>(env!("CARGO_MANIFEST_DIR")).check_file("tests/vectors.jsonl");
}
