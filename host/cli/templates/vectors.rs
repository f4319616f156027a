//! Runs every line of vectors.jsonl natively and in the sandbox, and compares.

use {{crate}}::{{type}};
use millstream_sdk::testkit::Testkit;

#[test]
fn the_sandbox_returns_what_the_code_returns() {
    Testkit::{{kind}}::<{{type}}>(env!("CARGO_MANIFEST_DIR")).check_file("tests/vectors.jsonl");
}
