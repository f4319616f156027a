//! `json-schema{"schema":{"type":"object","required":["id"]}}`: a filter that checks values against a JSON Schema of
//! draft 4, 6, 7, 2019-09 or 2020-12. `$schema` names the draft; without it the schema is one of 2020-12.
//!
//! A value that does not fit is an error of its row, which says where and why: so `stage.admit` rejects it with that
//! reason. With `"drop":true` it is dropped without an error, for views and consumers. A value that is not JSON is an
//! error. A tombstone is kept.
//!
//! `"formats":true` checks `format` in the drafts that only describe it. Patterns have no look-around and no
//! back-references. References lead into the schema itself: nothing is fetched.
#![deny(unsafe_code)]

#[cfg(target_arch = "wasm32")]
mod seed;

use std::error::Error;

use boon::{CompileError, Compiler, Draft, SchemaIndex, Schemas, UrlLoader, ValidationError};
use millstream_sdk::{ConfigError, Filter, Record, Result};
use serde::Deserialize;
use serde_json::Value;

/// The address of the schema of the configuration, which the library needs. Nothing is there.
const HERE: &str = "config:/schema";

/// Checks values against a schema.
#[derive(Deserialize)]
pub struct JsonSchema {
    schema: Value,
    #[serde(default)]
    drop: bool,
    #[serde(default)]
    formats: bool,
    #[serde(skip)]
    compiled: Option<(Schemas, SchemaIndex)>,
}

impl Filter for JsonSchema {
    fn prepare(&mut self) -> Result<(), ConfigError> {
        let mut compiler = Compiler::new();
        compiler.set_default_draft(Draft::V2020_12);
        compiler.use_loader(Box::new(Nowhere));
        if self.formats {
            compiler.enable_format_assertions();
        }
        let mut schemas = Schemas::new();
        let failed = |error: CompileError| ConfigError::new("/schema", problem(&error));
        compiler.add_resource(HERE, self.schema.take()).map_err(failed)?;
        let compiled = compiler.compile(HERE, &mut schemas).map_err(failed)?;
        self.compiled = Some((schemas, compiled));
        Ok(())
    }

    fn keep(&self, record: &Record<'_>) -> Result<bool> {
        let Some(json) = record.value() else { return Ok(true) };
        let value = serde_json::from_slice(json).map_err(|error| format!("not JSON: {error}"))?;
        let (schemas, compiled) = self.compiled.as_ref().expect("`prepare` compiled the schema");
        match schemas.validate(&value, *compiled) {
            Ok(()) => Ok(true),
            Err(_) if self.drop => Ok(false),
            Err(error) => Err(reason(&error).into()),
        }
    }
}

/// Returns why a schema cannot be compiled, in one line.
fn problem(error: &CompileError) -> String {
    match error {
        CompileError::ValidationError { src, .. } => format!("not a JSON Schema: {}", reason(src)),
        CompileError::LoadUrlError { url, src } => format!("{url}: {src}"),
        other => one_line(&other.to_string().replace(HERE, "")),
    }
}

/// Returns where the first of the innermost problems is, and what it is.
fn reason(mut error: &ValidationError<'_, '_>) -> String {
    while let Some(cause) = error.causes.first() {
        error = cause;
    }
    let place = error.instance_location.to_string();
    let place = if place.is_empty() { "the value" } else { &place };
    format!("{place}: {}", one_line(&error.kind.to_string()))
}

/// Returns the words of a message without its lines, which show the place in a pattern.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Loads no schema from anywhere.
struct Nowhere;

impl UrlLoader for Nowhere {
    fn load(&self, _url: &str) -> Result<Value, Box<dyn Error>> {
        Err("references to other documents are not followed: put the schema under $defs".into())
    }
}

millstream_sdk::filter!(JsonSchema);
