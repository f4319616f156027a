//! Runs the vectors of a plug-in that is not in Rust, whose tests have no test kit.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use millstream_stage::Plugin;
use serde_json::Value;

use super::call::Session;

/// What a file of vectors has.
const ADVICE: &str =
    "write one in each line: a call, as `millstream plugin call` takes it, with the result in `expect`";

/// Runs every line of a file in the sandbox, and compares the results with `expect`. Returns the number of lines.
///
/// # Errors
/// The file cannot be read or has no vectors, a line is not a vector, or a result is not the expected one.
pub(crate) fn check(plugin: Plugin, file: &Path) -> Result<usize> {
    let shown = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read the vectors {shown}; {ADVICE}"))?;
    let mut session = Session::new(plugin);
    let mut checked = 0;
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = || format!("{shown}:{}", number + 1);
        let mut vector: Value = serde_json::from_str(line).with_context(place)?;
        let expected = vector.as_object_mut().and_then(|fields| fields.remove("expect"));
        let expected = expected.with_context(|| format!("{}: the vector has no `expect`", place()))?;
        let result = session.result(serde_json::from_value(vector).with_context(place)?)?;
        if !fits(&expected, &result) {
            bail!("{}: not the expected result\n  vector: {line}\n  result: {result}", place());
        }
        checked += 1;
    }
    if checked == 0 {
        bail!("{shown} has no vectors; {ADVICE}");
    }
    Ok(checked)
}

/// Returns whether `result` has every field of `expected`.
fn fits(expected: &Value, result: &Value) -> bool {
    match (expected, result) {
        (Value::Object(expected), Value::Object(result)) => {
            expected.iter().all(|(name, value)| result.get(name).is_some_and(|found| fits(value, found)))
        }
        (Value::Array(expected), Value::Array(result)) => {
            expected.len() == result.len() && expected.iter().zip(result).all(|(value, found)| fits(value, found))
        }
        _ => expected == result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn missing_fields_are_not_compared() {
        let result = json!({"error": {"rows": [{"row": 1, "message": "bad"}]}});
        assert!(fits(&json!({"error": {"rows": [{"row": 1}]}}), &result));
        for other in [json!({"error": {"rows": [{"row": 2}]}}), json!({"error": {"rows": []}}), json!({"keep": []})] {
            assert!(!fits(&other, &result), "{other}");
        }
    }
}
