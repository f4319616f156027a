//! A filter that keeps records whose value is JSON that fits a schema. Its configuration is a JSON Schema with the
//! keywords that are fields of [`Schema`]. Any other keyword is an error, so that no rule is ignored silently.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use millstream_sdk::{Columns, Filter, Record, Result};
use serde::Deserialize;
use serde_json::Value;

/// The rules for a value.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    #[serde(rename = "type")]
    kind: Option<Type>,
    #[serde(default)]
    required: Vec<String>,
    #[serde(default)]
    properties: BTreeMap<String, Schema>,
    items: Option<Box<Schema>>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    #[serde(rename = "enum")]
    choices: Option<Vec<Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Type {
    Object,
    Array,
    String,
    Number,
    Integer,
    Boolean,
    Null,
}

impl Filter for Schema {
    const COLUMNS: Columns = Columns::VALUES;

    fn keep(&self, record: &Record<'_>) -> Result<bool> {
        let value = record.value().ok_or("there is no value")?;
        let value = serde_json::from_slice(value).map_err(|error| format!("not JSON: {error}"))?;
        self.check(&value, &mut String::new())?;
        Ok(true)
    }
}

impl Schema {
    /// Checks a value with all its parts. `at` is the JSON Pointer of `value`.
    fn check(&self, value: &Value, at: &mut String) -> Result<()> {
        if let Some(fault) = self.fault(value) {
            let place = if at.is_empty() { "the value" } else { at };
            return Err(format!("{place}: {fault}").into());
        }
        let properties =
            self.properties.iter().filter_map(|(name, schema)| Some((name.clone(), schema, value.get(name)?)));
        let items = self.items.iter().flat_map(|schema| {
            let elements = value.as_array().into_iter().flatten().enumerate();
            elements.map(move |(index, element)| (index.to_string(), &**schema, element))
        });
        for (name, schema, part) in properties.chain(items) {
            let end = at.len();
            at.push('/');
            at.push_str(&name.replace('~', "~0").replace('/', "~1"));
            schema.check(part, at)?;
            at.truncate(end);
        }
        Ok(())
    }

    /// Returns what is wrong with a value, apart from its parts.
    fn fault(&self, value: &Value) -> Option<String> {
        if let Some(kind) = self.kind.as_ref().filter(|kind| !kind.holds(value)) {
            return Some(format!("{value} is not of type {}", format!("{kind:?}").to_lowercase()));
        }
        if let Some(choices) = self.choices.as_ref().filter(|choices| !choices.contains(value)) {
            return Some(format!("{value} is not one of {}", Value::from(choices.clone())));
        }
        let number = value.as_f64();
        if let (Some(number), Some(least)) = (number, self.minimum)
            && number < least
        {
            return Some(format!("{value} is below the minimum of {least}"));
        }
        if let (Some(number), Some(most)) = (number, self.maximum)
            && number > most
        {
            return Some(format!("{value} is above the maximum of {most}"));
        }
        let object = value.as_object()?;
        let missing = self.required.iter().find(|name| !object.contains_key(*name))?;
        Some(format!("`{missing}` is missing"))
    }
}

impl Type {
    fn holds(&self, value: &Value) -> bool {
        match self {
            Type::Object => value.is_object(),
            Type::Array => value.is_array(),
            Type::String => value.is_string(),
            Type::Number => value.is_number(),
            Type::Integer => value.as_f64().is_some_and(|number| number.fract() == 0.0),
            Type::Boolean => value.is_boolean(),
            Type::Null => value.is_null(),
        }
    }
}

millstream_sdk::filter!(Schema);

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(schema: &str, value: &str) -> String {
        let schema: Schema = serde_json::from_str(schema).expect("a schema");
        let value = serde_json::from_str(value).expect("JSON");
        schema.check(&value, &mut String::new()).map_or_else(|error| error.to_string(), |()| "good".to_owned())
    }

    #[test]
    fn the_first_fault_is_named_with_its_place() {
        let order = r#"{"type":"object","required":["id"],"properties":{
            "id":{"type":"integer","minimum":1},
            "state":{"enum":["new","paid"]},
            "lines":{"type":"array","items":{"type":"object","required":["sku"]}}}}"#;
        assert_eq!(verdict(order, r#"{"id":1,"state":"new","lines":[{"sku":"a"}],"more":true}"#), "good");
        assert_eq!(verdict(order, "[]"), "the value: [] is not of type object");
        assert_eq!(verdict(order, "{}"), "the value: `id` is missing");
        assert_eq!(verdict(order, r#"{"id":1.5}"#), "/id: 1.5 is not of type integer");
        assert_eq!(verdict(order, r#"{"id":0}"#), "/id: 0 is below the minimum of 1");
        assert_eq!(verdict(order, r#"{"id":1,"state":"old"}"#), r#"/state: "old" is not one of ["new","paid"]"#);
        assert_eq!(verdict(order, r#"{"id":1,"lines":[{"sku":"a"},{}]}"#), "/lines/1: `sku` is missing");
    }

    #[test]
    fn an_unknown_keyword_is_an_error() {
        let error = serde_json::from_str::<Schema>(r#"{"pattern":"^a"}"#).expect_err("an unknown keyword");
        assert!(error.to_string().contains("pattern"), "{error}");
    }
}
