//! Parses the text of a stage: a name, a name with a pinned version, or a file; then its configuration as a JSON
//! object. A chain is several stages joined by ` | `.
//!
//! ```text
//! murmur2      region@3      json-compare{"path":"/mag","op":">=","value":4.5}      ./mine.wasm{"limit":7}
//! ```

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::de::IgnoredAny;

use crate::limits::NAME_BYTES_MAX;

/// The most stages of one chain.
pub const CHAIN_MAX: usize = 8;

/// The longest text of one chain, in bytes.
pub const SPEC_BYTES_MAX: usize = 64 * 1024;

const JOINT: &str = " | ";

/// Names the plug-in of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// A plug-in of the library, by name.
    Name {
        /// The plug-in's name.
        name: String,
        /// A pinned version, or its leading numbers: `3` also stands for `3.1.4`. A stage that is not pinned follows
        /// new versions.
        version: Option<String>,
    },
    /// A file. The stage follows it when it changes.
    File(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Name { name, version: None } => formatter.write_str(name),
            Source::Name { name, version: Some(version) } => write!(formatter, "{name}@{version}"),
            Source::File(path) => write!(formatter, "{}", path.display()),
        }
    }
}

/// Specifies one stage.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StageSpec {
    /// The plug-in.
    pub source: Source,
    /// The text of the configuration, a JSON object; `{}` if it was omitted.
    pub config: String,
}

/// Reports that a text is not a stage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a stage: {problem} (at character {at}); write NAME, NAME@VERSION or ./FILE.wasm, \
     then the configuration as {{json}} if it needs one"
)]
pub struct SpecError {
    /// The text, shortened.
    pub text: String,
    /// The position of the problem, in characters from 0.
    pub at: usize,
    /// What is wrong.
    pub problem: String,
}

impl StageSpec {
    /// Parses exactly one stage.
    ///
    /// # Errors
    /// [`SpecError`] says what is wrong, and where.
    pub fn parse(text: &str) -> Result<StageSpec, SpecError> {
        let mut chain = StageSpec::parse_chain(text)?;
        if chain.len() > 1 {
            return Err(error(text, 0, "expected one stage, not a chain"));
        }
        Ok(chain.remove(0))
    }

    /// Parses a chain of one to [`CHAIN_MAX`] stages joined by ` | `.
    ///
    /// # Errors
    /// [`SpecError`] says what is wrong, and where.
    pub fn parse_chain(text: &str) -> Result<Vec<StageSpec>, SpecError> {
        if text.len() > SPEC_BYTES_MAX {
            let problem = format!("it is longer than {SPEC_BYTES_MAX} bytes");
            return Err(error(text, 0, &problem));
        }
        let mut chain = Vec::new();
        let mut at = 0;
        loop {
            let (stage, end) = parse_one(text, at)?;
            chain.push(stage);
            if chain.len() > CHAIN_MAX {
                let problem = format!("a chain has at most {CHAIN_MAX} stages");
                return Err(error(text, at, &problem));
            }
            let rest = &text[end..];
            if rest.trim().is_empty() {
                return Ok(chain);
            }
            if !rest.starts_with(JOINT) {
                return Err(error(text, end, "expected ` | ` and another stage, or the end"));
            }
            at = end + JOINT.len();
        }
    }
}

impl FromStr for StageSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        StageSpec::parse(text)
    }
}

impl fmt::Display for StageSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.source)?;
        if self.config != "{}" {
            formatter.write_str(&self.config)?;
        }
        Ok(())
    }
}

/// Parses one stage that starts at `start`. Also returns where it ends.
fn parse_one(text: &str, start: usize) -> Result<(StageSpec, usize), SpecError> {
    let here = &text[start..];
    let skipped = here.len() - here.trim_start().len();
    let start = start + skipped;
    let here = &text[start..];
    let source_length = here.find('{').unwrap_or(here.len()).min(here.find(JOINT).unwrap_or(here.len()));
    let source_text = here[..source_length].trim_end();
    let source = parse_source(text, start, source_text)?;
    let config_at = start + source_length;
    if !text[config_at..].starts_with('{') {
        let config = "{}".to_owned();
        return Ok((StageSpec { source, config }, config_at));
    }
    // The JSON parser finds the end, since a string may hold a brace or a joint.
    let mut values = serde_json::Deserializer::from_str(&text[config_at..]).into_iter::<IgnoredAny>();
    match values.next() {
        Some(Ok(IgnoredAny)) => {
            let end = config_at + values.byte_offset();
            let config = text[config_at..end].to_owned();
            Ok((StageSpec { source, config }, end))
        }
        Some(Err(problem)) => {
            let at = config_at + problem.column().saturating_sub(1);
            Err(error(text, at, &format!("bad JSON: {problem}")))
        }
        None => Err(error(text, config_at, "bad JSON")),
    }
}

fn parse_source(text: &str, at: usize, source: &str) -> Result<Source, SpecError> {
    if source.is_empty() {
        return Err(error(text, at, "the name or file of a plug-in is missing"));
    }
    if source.contains(['/', '\\']) || source.ends_with(".wasm") {
        return Ok(Source::File(PathBuf::from(source)));
    }
    let (name, version) = match source.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (source, None),
    };
    check_name(name, "").map_err(|problem| error(text, at, &problem.to_string()))?;
    if let Some(version) = version {
        check_name(version, "+").map_err(|problem| error(text, at + name.len() + 1, &problem.to_string()))?;
    }
    Ok(Source::Name { name: name.to_owned(), version: version.map(str::to_owned) })
}

/// Checks the characters of a plug-in's name or, with `also`, of its version.
pub(crate) fn check_name(name: &str, also: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong(shorten(name)));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c) || also.contains(c);
    match name.chars().find(|c| !allowed(*c)) {
        None => Ok(()),
        Some(character) => Err(NameError::Character { name: name.to_owned(), character }),
    }
}

/// A name or version of a plug-in is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// It is empty.
    #[error("the name or version is empty")]
    Empty,
    /// It is too long.
    #[error("`{0}...` is longer than {NAME_BYTES_MAX} bytes")]
    TooLong(String),
    /// It holds a character that is not allowed.
    #[error("`{}` may not hold {character:?}: use letters, digits, `-`, `_` and `.`", .name.escape_debug())]
    Character {
        /// The name or version.
        name: String,
        /// The character.
        character: char,
    },
}

fn shorten(text: &str) -> String {
    text.chars().take(NAME_BYTES_MAX).collect()
}

fn error(text: &str, at_byte: usize, problem: &str) -> SpecError {
    let shown = shorten(text);
    SpecError {
        at: text.char_indices().take_while(|(offset, _)| *offset < at_byte).count(),
        text: if shown.len() < text.len() { format!("{shown}...") } else { shown },
        problem: problem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, version: Option<&str>, config: &str) -> StageSpec {
        StageSpec {
            source: Source::Name { name: name.to_owned(), version: version.map(str::to_owned) },
            config: config.to_owned(),
        }
    }

    #[test]
    fn names_versions_files_and_configurations() {
        let parse = |text: &str| StageSpec::parse(text).unwrap();
        assert_eq!(parse("murmur2"), named("murmur2", None, "{}"));
        assert_eq!(parse("region@3"), named("region", Some("3"), "{}"));
        let compare = r#"{"path":"/mag","op":">=","value":4.5}"#;
        assert_eq!(parse(&format!("json-compare{compare}")), named("json-compare", None, compare));
        assert_eq!(
            parse(r#"./mine.wasm{"limit":7}"#),
            StageSpec { source: Source::File(PathBuf::from("./mine.wasm")), config: r#"{"limit":7}"#.to_owned() }
        );
        assert_eq!(parse("mine.wasm").source, Source::File("mine.wasm".into()));
        for text in ["murmur2", "region@3", "./a b.wasm{\"x\":1}"] {
            assert_eq!(parse(text).to_string(), text);
        }
    }

    #[test]
    fn a_chain_may_hold_its_joint_inside_a_string() {
        let text = r#"contains{"text":"a | b}{"} | json-compare@1{"x":[1,{"y":"}"}]} | last"#;
        let chain = StageSpec::parse_chain(text).unwrap();
        assert_eq!(
            chain,
            [
                named("contains", None, r#"{"text":"a | b}{"}"#),
                named("json-compare", Some("1"), r#"{"x":[1,{"y":"}"}]}"#),
                named("last", None, "{}"),
            ]
        );
        let again = chain.iter().map(StageSpec::to_string).collect::<Vec<_>>();
        assert_eq!(again.join(JOINT), text);
    }

    #[test]
    fn an_invalid_stage_is_rejected_with_the_place() {
        let problem = |text: &str| StageSpec::parse_chain(text).unwrap_err();
        assert_eq!(problem("").at, 0);
        assert_eq!(problem("a | ").at, 4);
        assert_eq!(problem("a b").at, 0);
        assert_eq!(problem("a@").at, 2);
        assert_eq!(problem("a{").at, 1);
        assert!(problem("a{\"x\":}").problem.contains("bad JSON"));
        assert_eq!(problem("a{} b").at, 3);
        assert_eq!(problem("a{}|b").at, 3);
        assert!(StageSpec::parse("a | b").is_err());
        let nine = ["a"; 9].join(JOINT);
        assert!(problem(&nine).problem.contains("at most 8"));
        assert_eq!(StageSpec::parse_chain(&["a"; 8].join(JOINT)).unwrap().len(), 8);
        assert!(StageSpec::parse(&"x".repeat(SPEC_BYTES_MAX + 1)).is_err());
        assert!(StageSpec::parse(&"x".repeat(NAME_BYTES_MAX + 1)).is_err());
    }
}
