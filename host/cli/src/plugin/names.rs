//! Names of plug-ins and of their versions, as users write and read them.

use anyhow::{Context, Result, bail};

/// Returns whether this binary has a plug-in of that name, which is used while no version of the cluster is active.
pub(super) fn is_embedded(name: &str) -> bool {
    millstream_plugins::find(name).is_some()
}

/// Parses `NAME@3`.
pub(super) fn name_and_number(text: &str) -> Result<(&str, u32)> {
    match optional_number(text)? {
        (name, Some(number)) => Ok((name, number)),
        (name, None) => {
            bail!("{name} needs a version: write {name}@NUMBER; `millstream plugin history {name}` shows the numbers")
        }
    }
}

/// Parses `NAME` or `NAME@3`.
pub(super) fn optional_number(text: &str) -> Result<(&str, Option<u32>)> {
    let Some((name, number)) = text.split_once('@') else { return Ok((text, None)) };
    let number =
        number.parse().with_context(|| format!("{number:?} in {text:?} is not a version number, such as {name}@3"))?;
    Ok((name, Some(number)))
}

/// Formats a version: `region@3`, or for 0 the plug-in in the binary.
pub(super) fn version_name(name: &str, number: u32) -> String {
    match number {
        0 => format!("{name} (the one in the binary)"),
        number => format!("{name}@{number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_written_with_an_at() {
        assert_eq!(name_and_number("a-b@12").unwrap(), ("a-b", 12));
        assert_eq!(optional_number("a").unwrap(), ("a", None));
        assert!(name_and_number("a").unwrap_err().to_string().contains("a@NUMBER"));
        for text in ["a@", "a@x", "a@-1", "a@1.0"] {
            assert!(optional_number(text).is_err(), "{text}");
        }
    }
}
