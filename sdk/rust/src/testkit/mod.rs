//! Runs a stage natively and in the real sandbox over the same vectors, and fails where the results differ.
//!
//! The native half is the type of the stage, linked into the test, so that it can be debugged. The sandboxed half is
//! the component of the same crate. The `millstream` binary calls it: the one that the environment variable
//! `MILLSTREAM` names, else the one in the target folder, else the one on the `PATH`. `millstream plugin test` has
//! built the component and passes its path in `MILLSTREAM_COMPONENT`; a plain `cargo test` builds it.
//!
//! ```no_run
//! # #[derive(serde::Deserialize)]
//! # struct Holds { text: String }
//! # impl millstream_sdk::Filter for Holds {
//! #     fn keep(&self, _: &millstream_sdk::Record<'_>) -> millstream_sdk::Result<bool> { Ok(true) }
//! # }
//! # millstream_sdk::filter!(Holds);
//! use millstream_sdk::testkit::Testkit;
//!
//! // #[test]
//! fn the_sandbox_returns_what_the_code_returns() {
//!     Testkit::filter::<Holds>(env!("CARGO_MANIFEST_DIR")).check_file("tests/vectors.jsonl");
//! }
//! # fn main() {}
//! ```
//!
//! A vector is one line of JSON, a call with the expected result:
//!
//! ```json
//! {"call":"filter","config":{"text":"b"},"records":[{"key":"k","value":"abc"},{}],"expect":{"keep":[0]}}
//! ```
//!
//! - `call`: `filter`, `partition` (with `partitions`, and `load` if it matters), `serialize`, `deserialize`,
//!   `compress` (with `data`) or `decompress` (with `data` and `max`).
//! - `config`: the configuration; the default is `{}`. A stage keeps its state from one vector to the next while the
//!   configuration stays the same.
//! - `records`: each with `timestamp`, `key`, `value` and `headers` as `[["name","value"]]`, all optional. Bytes are a
//!   text, or `{"hex":"00ff"}` if they are not UTF-8.
//! - `expect`: `{"keep":[rows]}`, `{"partitions":[...]}`, `{"changed":{"keys":[...],"values":[...]}}`, `{"data":...}`,
//!   or `{"error":...}` with `{"rows":[{"row":0,"message":"..."}]}`, `{"batch":"..."}`, `{"config":{"field":"/text"}}`
//!   or `{"trap":...}`. Missing fields are not compared. Without `expect` the vector checks only that both halves
//!   return the same.

mod call;
mod native;
mod sandbox;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::{Compressor, Filter, Partitioner, Serializer};
use serde_json::Value;

use native::{CompressorHalf, FilterHalf, Native, PartitionerHalf, SerializerHalf};

/// The native half: returns the result of a vector, or why the vector is not valid.
type NativeHalf = dyn FnMut(&Value) -> Result<Value, String>;

/// A stage and the folder of its crate.
pub struct Testkit {
    native: Box<NativeHalf>,
    dir: PathBuf,
}

impl Testkit {
    /// Tests a filter. `dir` is `env!("CARGO_MANIFEST_DIR")` in the crate of the plug-in.
    pub fn filter<T: Filter>(dir: impl Into<PathBuf>) -> Self {
        Self::new::<FilterHalf<T>>(dir.into())
    }

    /// Tests a partitioner; see [`filter`](Self::filter).
    pub fn partitioner<T: Partitioner>(dir: impl Into<PathBuf>) -> Self {
        Self::new::<PartitionerHalf<T>>(dir.into())
    }

    /// Tests a serializer; see [`filter`](Self::filter).
    pub fn serializer<T: Serializer>(dir: impl Into<PathBuf>) -> Self {
        Self::new::<SerializerHalf<T>>(dir.into())
    }

    /// Tests a compressor; see [`filter`](Self::filter).
    pub fn compressor<T: Compressor>(dir: impl Into<PathBuf>) -> Self {
        Self::new::<CompressorHalf<T>>(dir.into())
    }

    fn new<N: Native + 'static>(dir: PathBuf) -> Self {
        let mut session = native::Session::<N>::default();
        Self { native: Box::new(move |vector| session.result(vector)), dir }
    }

    /// Runs the vectors of a file, one in each line. The path is relative to the folder of the crate.
    ///
    /// # Panics
    /// The file cannot be read, or [`run`](Self::run) fails.
    #[track_caller]
    pub fn check_file(self, path: impl AsRef<Path>) {
        let path = self.dir.join(path);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let vectors: Vec<Value> = lines
            .map(|(number, line)| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{}:{}: {error}", path.display(), number + 1))
            })
            .collect();
        self.check(&vectors);
    }

    /// Runs vectors, each a JSON object as described [above](self).
    ///
    /// # Panics
    /// [`run`](Self::run) fails.
    #[track_caller]
    pub fn check(self, vectors: &[Value]) {
        if let Err(failure) = self.run(vectors) {
            panic!("{failure}");
        }
    }

    /// Runs vectors natively and in the sandbox.
    ///
    /// # Errors
    /// The two results of a vector differ, or are not the expected ones. Or the test cannot run: the component does not
    /// build, there is no `millstream` binary, or a vector is not valid.
    pub fn run(mut self, vectors: &[Value]) -> Result<(), Failure> {
        let mut native = Vec::with_capacity(vectors.len());
        for vector in vectors {
            let result = (self.native)(vector).map_err(|error| Failure::Broken(format!("{error}\nin {vector}")))?;
            native.push(result);
        }
        // The native half comes first, since it can be debugged.
        for (vector, result) in vectors.iter().zip(&native) {
            let expected = vector.get("expect").unwrap_or(&Value::Null);
            if !expected.is_null() && !fits(expected, result) {
                return Err(Failure::Unexpected { vector: vector.clone(), result: result.clone() });
            }
        }
        let sandboxed = sandbox::results(&self.dir, vectors).map_err(Failure::Broken)?;
        for ((vector, native), sandbox) in vectors.iter().zip(native).zip(sandboxed) {
            if !same(&native, &sandbox) {
                return Err(Failure::Different { vector: vector.clone(), native, sandbox });
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Testkit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Testkit").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// Why a test failed.
#[derive(Debug, Clone, PartialEq)]
pub enum Failure {
    /// The results of the two halves differ.
    Different {
        /// The vector.
        vector: Value,
        /// The result of the native half.
        native: Value,
        /// The result of the component in the sandbox.
        sandbox: Value,
    },
    /// The result is not the expected one.
    Unexpected {
        /// The vector, with the expected result.
        vector: Value,
        /// The result of the native half.
        result: Value,
    },
    /// The test could not be run.
    Broken(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Different { vector, native, sandbox } => {
                write!(
                    f,
                    "the results of the native half and the sandbox differ\n  vector:  {vector}\n  \
                     native:  {native}\n  sandbox: {sandbox}"
                )
            }
            Failure::Unexpected { vector, result } => {
                write!(f, "not the expected result\n  vector:  {vector}\n  result:  {result}")
            }
            Failure::Broken(problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for Failure {}

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

/// Returns whether the halves agree. A panic and its trap in the sandbox have different messages.
fn same(native: &Value, sandbox: &Value) -> bool {
    let trapped = |result: &Value| result.pointer("/error/trap").is_some();
    native == sandbox || (trapped(native) && trapped(sandbox))
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

    #[test]
    fn a_panic_and_a_trap_are_the_same() {
        assert!(same(&json!({"error": {"trap": "a"}}), &json!({"error": {"trap": "b"}})));
        assert!(!same(&json!({"error": {"batch": "a"}}), &json!({"error": {"batch": "b"}})));
    }
}
