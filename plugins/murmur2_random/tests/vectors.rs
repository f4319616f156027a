//! Every line of vectors.jsonl, natively and in the sandbox.

use millstream_plugin_murmur2_random::Murmur2Random;
use millstream_sdk::testkit::Testkit;

#[test]
fn the_sandbox_returns_what_the_code_returns() {
    Testkit::partitioner::<Murmur2Random>(env!("CARGO_MANIFEST_DIR")).check_file("tests/vectors.jsonl");
}
