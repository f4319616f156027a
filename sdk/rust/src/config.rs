//! Reads the JSON text of a configuration into the type of a stage. Errors name the field.

use serde_core::de::DeserializeOwned;

use crate::error::ConfigError;

/// Reads a configuration. An empty text is an empty object. A field that `T` does not have is an error, with or without
/// serde's `deny_unknown_fields`.
///
/// # Errors
/// Names the field that is wrong, missing or unknown, by a JSON Pointer.
pub fn from_json<T: DeserializeOwned>(json: &str) -> Result<T, ConfigError> {
    let json = json.trim();
    let json = if json.is_empty() { "{}" } else { json };
    // serde also accepts an array for a struct, by position.
    if !json.starts_with('{') {
        return Err(ConfigError::new("", "the configuration must be a JSON object, such as {\"field\": 1}"));
    }
    let mut reader = serde_json::Deserializer::from_str(json);
    let mut track = serde_path_to_error::Track::new();
    let mut unknown = None;
    let tracked = serde_path_to_error::Deserializer::new(&mut reader, &mut track);
    let config = serde_ignored::deserialize(tracked, |path| {
        unknown.get_or_insert_with(|| ignored_pointer(&path));
    });
    let config = config.map_err(|error| named(&track.path(), &message_of(&error)))?;
    reader.end().map_err(|error| ConfigError::new("", message_of(&error)))?;
    match unknown {
        Some(field) => Err(ConfigError::new(field, "unknown field")),
        None => Ok(config),
    }
}

/// Returns the message of serde_json without the position: a configuration is one line, and the error names the field.
fn message_of(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match (error.classify(), message.rfind(" at line ")) {
        (serde_json::error::Category::Data, Some(position)) => message[..position].to_owned(),
        _ => message,
    }
}

/// Makes an error that names a field. serde reports a missing or repeated field at the object around it, with the name
/// in the message.
fn named(path: &serde_path_to_error::Path, message: &str) -> ConfigError {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => push(&mut pointer, &index.to_string()),
            Segment::Map { key } => push(&mut pointer, key),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    for prefix in ["missing field `", "duplicate field `"] {
        if let Some(field) = message.strip_prefix(prefix).and_then(|rest| rest.strip_suffix('`')) {
            let token = escape(field);
            if !pointer.ends_with(&format!("/{token}")) {
                push(&mut pointer, field);
            }
        }
    }
    ConfigError::new(pointer, message)
}

fn ignored_pointer(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => {
            let mut pointer = ignored_pointer(parent);
            push(&mut pointer, &index.to_string());
            pointer
        }
        Path::Map { parent, key } => {
            let mut pointer = ignored_pointer(parent);
            push(&mut pointer, key);
            pointer
        }
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            ignored_pointer(parent)
        }
    }
}

fn push(pointer: &mut String, token: &str) {
    pointer.push('/');
    pointer.push_str(&escape(token));
}

/// Escapes a token of a JSON Pointer (RFC 6901, section 3).
fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Config {
        text: String,
        #[serde(default)]
        limits: Vec<Limit>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Limit {
        #[serde(rename = "a/b")]
        most: u8,
    }

    #[derive(Debug, Deserialize)]
    struct Nothing {}

    fn error_of(json: &str) -> (String, String) {
        let error = from_json::<Config>(json).unwrap_err();
        (error.field, error.message)
    }

    #[test]
    fn a_good_configuration_is_read() {
        let config: Config = from_json(r#" {"text": "x", "limits": [{"a/b": 3}]} "#).unwrap();
        assert_eq!(config, Config { text: "x".into(), limits: vec![Limit { most: 3 }] });
        assert!(from_json::<Nothing>("").is_ok() && from_json::<Nothing>("{}").is_ok());
    }

    #[test]
    fn the_field_that_is_wrong_is_named() {
        let (field, message) = error_of(r#"{"text": 7}"#);
        assert_eq!((field.as_str(), message.as_str()), ("/text", "invalid type: integer `7`, expected a string"));
        let (field, message) = error_of(r#"{"text": "x", "limits": [{"a/b": 1}, {"a/b": 256}]}"#);
        assert_eq!(field, "/limits/1/a~1b");
        assert!(message.starts_with("invalid value: integer `256`, expected u8"), "{message}");
    }

    #[test]
    fn a_missing_field_is_named() {
        assert_eq!(error_of("{}"), ("/text".into(), "missing field `text`".into()));
        assert_eq!(
            error_of(r#"{"text": "x", "limits": [{}]}"#),
            ("/limits/0/a~1b".into(), "missing field `a/b`".into())
        );
    }

    #[test]
    fn a_field_that_is_there_twice_is_named() {
        assert_eq!(error_of(r#"{"text": "x", "text": "y"}"#), ("/text".into(), "duplicate field `text`".into()));
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        assert_eq!(error_of(r#"{"text": "x", "txet": "x"}"#), ("/txet".into(), "unknown field".into()));
        assert_eq!(
            error_of(r#"{"text": "x", "limits": [{"a/b": 1, "c": 2}]}"#),
            ("/limits/0/c".into(), "unknown field".into())
        );
        assert_eq!(from_json::<Nothing>(r#"{"x": 1}"#).unwrap_err().field, "/x");
    }

    #[test]
    fn other_json_than_an_object_is_an_error() {
        for json in ["7", "[\"x\"]", "null", "text"] {
            let (field, message) = error_of(json);
            assert!(field.is_empty() && message.contains("JSON object"), "{json}: {message}");
        }
        for json in [r#"{"text": "x"} {}"#, r#"{"text": "x""#] {
            let (_, message) = error_of(json);
            assert!(message.contains("line 1 column"), "{json}: {message}");
        }
    }
}
