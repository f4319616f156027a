//! Finds a field without building the document. The text is read up to the field and no further, and values before it
//! are skipped. Of several fields with the same name the first counts.

use std::fmt;

use serde_core::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Found, Number};

/// Calls `answer` with the field at `tokens`, and returns its result.
///
/// # Errors
/// The text is not JSON before or in the field.
pub(super) fn at<R>(
    json: &[u8],
    tokens: &[String],
    answer: impl FnOnce(Found<'_>) -> R,
) -> Result<R, serde_json::Error> {
    let mut out = Out { answer: Some(answer), result: None };
    let mut reader = serde_json::Deserializer::from_slice(json);
    let read = Field { tokens, out: &mut out }.deserialize(&mut reader);
    match (out.result, read) {
        // The reader stops at the field, which is an error for it.
        (Some(result), _) => Ok(result),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => {
            reader.end()?;
            let answer = out.answer.take().expect("`answer` is called only once");
            Ok(answer(Found::Nothing))
        }
    }
}

/// Where the result goes.
struct Out<F, R> {
    answer: Option<F>,
    result: Option<R>,
}

impl<F: FnOnce(Found<'_>) -> R, R> Out<F, R> {
    fn found(&mut self, found: Found<'_>) {
        if let Some(answer) = self.answer.take() {
            self.result = Some(answer(found));
        }
    }
}

/// The rest of the path to the field.
struct Field<'t, 'o, F, R> {
    tokens: &'t [String],
    out: &'o mut Out<F, R>,
}

impl<F: FnOnce(Found<'_>) -> R, R> Field<'_, '_, F, R> {
    /// Ends the search at a scalar: it is the field if the path ends here, and has no fields otherwise.
    fn scalar<E: de::Error>(self, found: Found<'_>) -> Result<(), E> {
        self.out.found(if self.tokens.is_empty() { found } else { Found::Nothing });
        Ok(())
    }
}

impl<'de, F: FnOnce(Found<'_>) -> R, R> DeserializeSeed<'de> for Field<'_, '_, F, R> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: FnOnce(Found<'_>) -> R, R> Visitor<'de> for Field<'_, '_, F, R> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.scalar(Found::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        self.scalar(Found::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.scalar(Found::Number(Number::Whole(value.into())))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.scalar(Found::Number(Number::Whole(value.into())))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.scalar(Found::Number(Number::Float(value)))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<(), E> {
        self.scalar(Found::Text(value))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((token, rest)) = self.tokens.split_first() else {
            return self.scalar(Found::Other);
        };
        while let Some(here) = map.next_key_seed(Is(token))? {
            if here {
                map.next_value_seed(Field { tokens: rest, out: self.out })?;
                if self.out.answer.is_none() {
                    // The rest is not read. The reader then reports an object without an end, which is ignored.
                    return Ok(());
                }
                // The field is not in this value, and no later field of the same name counts.
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                return Ok(());
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((token, rest)) = self.tokens.split_first() else {
            return self.scalar(Found::Other);
        };
        // An index has no leading zeros (RFC 6901, section 4); other names match no element.
        let wanted = token.parse().ok().filter(|index: &usize| index.to_string() == *token);
        for index in 0.. {
            if wanted == Some(index) {
                seq.next_element_seed(Field { tokens: rest, out: self.out })?;
                if self.out.answer.is_none() {
                    return Ok(());
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(());
            }
            if seq.next_element::<IgnoredAny>()?.is_none() {
                break;
            }
        }
        Ok(())
    }
}

/// Compares a key with a name without copying it.
struct Is<'t>(&'t str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a description of the field.
    fn found(json: &str, path: &[&str]) -> Result<String, String> {
        let tokens: Vec<String> = path.iter().map(|token| (*token).to_owned()).collect();
        at(json.as_bytes(), &tokens, |found| format!("{found:?}")).map_err(|error| error.to_string())
    }

    #[test]
    fn fields_are_found() {
        let json = r#" {"a": [1, {"b\n": "x\"y"}, -2.5], "c": {"c": null}, "e": true, "": 18446744073709551615} "#;
        for (path, expected) in [
            (&["a", "0"][..], "Number(Whole(1))"),
            (&["a", "2"], "Number(Float(-2.5))"),
            (&["a", "1", "b\n"], "Text(\"x\\\"y\")"),
            (&["a", "00"], "Nothing"),
            (&["a", "3"], "Nothing"),
            (&["a", "-"], "Nothing"),
            (&["a"], "Other"),
            (&[], "Other"),
            (&["c", "c"], "Null"),
            (&["c", "c", "c"], "Nothing"),
            (&["e"], "Bool(true)"),
            (&[""], "Number(Whole(18446744073709551615))"),
            (&["c", "d"], "Nothing"),
            (&["a", "1", "d"], "Nothing"),
            (&["d"], "Nothing"),
        ] {
            assert_eq!(found(json, path).as_deref(), Ok(expected), "{path:?}");
        }
    }

    #[test]
    fn the_first_of_several_counts() {
        assert_eq!(found(r#"{"a": 1, "a": 2}"#, &["a"]).unwrap(), "Number(Whole(1))");
        assert_eq!(found("7", &[]).unwrap(), "Number(Whole(7))");
    }

    #[test]
    fn other_text_than_json_is_an_error() {
        for json in ["", "{", "nul", "{\"b\": tru, \"a\": 1}", "{\"b\": 1", "{} x", "[1,]", "{\"a\": \"x"] {
            assert!(found(json, &["a"]).is_err(), "{json}: {:?}", found(json, &["a"]));
        }
    }
}
