//! Every config key that acts is named in a test.

use std::fs;

use super::{files, root};

/// Returns the keys that act, as the tables of the broker list them.
fn acting_keys() -> Vec<String> {
    let tables = ["host/broker/src/config/broker_keys.rs", "host/broker/src/config/topic_keys.rs"];
    let tables = tables.map(|table| fs::read_to_string(root().join(table)).expect("a table of keys"));
    let rows = tables.iter().flat_map(|table| table.lines()).filter(|line| !line.contains("Inert"));
    rows.filter_map(key_of).map(str::to_owned).collect()
}

/// Returns the key of a row of a table, which begins as `NAME "name" Type`.
fn key_of(row: &str) -> Option<&str> {
    let (name, rest) = row.split_once(" \"")?;
    let is_row = name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    rest.split_once('"').filter(|_| is_row).map(|(key, _)| key)
}

/// Returns the code of all tests in one text: the files of tests, and the unit tests at the end of other files.
fn code_of_tests() -> String {
    let texts = files(&[".rs", ".py", ".mjs", ".java"]).into_iter().map(|name| {
        let text = fs::read_to_string(root().join(&name)).expect("a text");
        let is_test = name.components().any(|part| part.as_os_str() == "tests")
            || name.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"));
        if is_test { text } else { text.split_once("#[cfg(test)]").map_or_else(String::new, |(_, tests)| tests.into()) }
    });
    texts.collect()
}

#[test]
fn acting_config_keys_are_tested() {
    let keys = acting_keys();
    assert!(keys.len() > 60, "the tables were not understood: {keys:?}");
    let code = code_of_tests();
    let is_tested = |key: &String| code.contains(&format!("\"{key}\"")) || code.contains(&format!("{key}="));
    let untested: Vec<_> = keys.iter().filter(|key| !is_tested(key)).collect();
    assert!(untested.is_empty(), "no test names these configs: {untested:?}");
}
