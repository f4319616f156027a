//! From the JSON text of a configuration to the author's type, with errors that name the field.

use serde::de::DeserializeOwned;

use crate::error::ConfigError;

/// Reads a configuration. An empty text is an empty object; a field that `T` does not know is refused, whether or not
/// `T` says so with serde's `deny_unknown_fields`.
///
/// # Errors
/// Names the field by a JSON Pointer: the one that is wrong, missing or unknown.
pub fn from_json<T: DeserializeOwned>(json: &str) -> Result<T, ConfigError> {
    let json = json.trim();
    let json = if json.is_empty() { "{}" } else { json };
    // serde would also take a struct from an array, by position.
    if !json.starts_with('{') {
        return Err(ConfigError::new("", "the configuration is a JSON object, such as {\"field\": 1}"));
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

/// serde_json's message without its position: a configuration is one line, and the field is named.
fn message_of(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match (error.classify(), message.rfind(" at line ")) {
        (serde_json::error::Category::Data, Some(position)) => message[..position].to_owned(),
        _ => message,
    }
}

/// serde reports a missing or unknown field at the object around it: the field's own name is in the message.
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

/// RFC 6901, section 3.
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

    fn refused(json: &str) -> (String, String) {
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
        let (field, message) = refused(r#"{"text": 7}"#);
        assert_eq!((field.as_str(), message.as_str()), ("/text", "invalid type: integer `7`, expected a string"));
        let (field, message) = refused(r#"{"text": "x", "limits": [{"a/b": 1}, {"a/b": 256}]}"#);
        assert_eq!(field, "/limits/1/a~1b");
        assert!(message.starts_with("invalid value: integer `256`, expected u8"), "{message}");
    }

    #[test]
    fn a_missing_field_is_named() {
        assert_eq!(refused("{}"), ("/text".into(), "missing field `text`".into()));
        assert_eq!(
            refused(r#"{"text": "x", "limits": [{}]}"#),
            ("/limits/0/a~1b".into(), "missing field `a/b`".into())
        );
    }

    #[test]
    fn a_field_that_is_there_twice_is_named() {
        assert_eq!(refused(r#"{"text": "x", "text": "y"}"#), ("/text".into(), "duplicate field `text`".into()));
    }

    #[test]
    fn an_unknown_field_is_refused() {
        assert_eq!(refused(r#"{"text": "x", "txet": "x"}"#), ("/txet".into(), "unknown field".into()));
        assert_eq!(
            refused(r#"{"text": "x", "limits": [{"a/b": 1, "c": 2}]}"#),
            ("/limits/0/c".into(), "unknown field".into())
        );
        assert_eq!(from_json::<Nothing>(r#"{"x": 1}"#).unwrap_err().field, "/x");
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        for json in ["7", "[\"x\"]", "null", "text"] {
            let (field, message) = refused(json);
            assert!(field.is_empty() && message.contains("JSON object"), "{json}: {message}");
        }
        for json in [r#"{"text": "x"} {}"#, r#"{"text": "x""#] {
            let (_, message) = refused(json);
            assert!(message.contains("line 1 column"), "{json}: {message}");
        }
    }
}
