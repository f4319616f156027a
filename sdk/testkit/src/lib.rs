//! Runs a stage natively and in the real sandbox over the same vectors, and fails where they differ.
//!
//! The native half is the author's type as the test links it, so that it can be debugged. The sandboxed half is the
//! component that the same crate builds, called by the `millstream` binary that will run it: the one that the environment
//! variable `MILLSTREAM` names, else the one in the target folder, else the one on the `PATH`.
//!
//! ```no_run
//! # #[derive(serde::Deserialize)]
//! # struct Holds { text: String }
//! # impl millstream_sdk::Filter for Holds {
//! #     fn keep(&self, _: &millstream_sdk::Record<'_>) -> millstream_sdk::Result<bool> { Ok(true) }
//! # }
//! # millstream_sdk::filter!(Holds);
//! use millstream_testkit::Testkit;
//!
//! // #[test]
//! fn the_sandbox_answers_as_the_code_does() {
//!     Testkit::filter::<Holds>(env!("CARGO_MANIFEST_DIR")).check_file("tests/vectors.jsonl");
//! }
//! # fn main() {}
//! ```
//!
//! A vector is one line of JSON, a call and what is expected of it:
//!
//! ```json
//! {"call":"filter","config":{"text":"b"},"records":[{"key":"k","value":"abc"},{}],"expect":{"keep":[0]}}
//! ```
//!
//! - `call`: `filter`, `partition` (with `partitions`, and `load` if it matters), `serialize`, `deserialize`, `compress`
//!   (with `data`) or `decompress` (with `data` and `max`).
//! - `config`: the configuration, `{}` without it. A stage keeps its state from one vector to the next while the
//!   configuration stays the same.
//! - `records`: each with `timestamp`, `key`, `value` and `headers` as `[["name","value"]]`, all optional. Bytes are a text, or
//!   `{"hex":"00ff"}` where they are not UTF-8.
//! - `expect`: `{"keep":[rows]}`, `{"partitions":[...]}`, `{"changed":{"keys":[...],"values":[...]}}`, `{"data":...}`, or
//!   `{"error":...}` with `{"rows":[{"row":0,"message":"..."}]}`, `{"batch":"..."}`, `{"config":{"field":"/text"}}` or `{"trap":...}`.
//!   Fields that are left out are not compared; without `expect`, that both halves agree is all that is asked.

mod call;
mod native;
mod sandbox;

use std::fmt;
use std::path::{Path, PathBuf};

use millstream_sdk::{Compressor, Filter, Partitioner, Serializer};
use serde_json::Value;

use native::{CompressorHalf, FilterHalf, Native, PartitionerHalf, SerializerHalf};

/// The native half: the answer to a vector, or why it is not one.
type NativeHalf = dyn FnMut(&Value) -> Result<Value, String>;

/// A stage and the folder of its crate.
pub struct Testkit {
    native: Box<NativeHalf>,
    dir: PathBuf,
}

impl Testkit {
    /// For a filter. `dir` is `env!("CARGO_MANIFEST_DIR")` in the crate of the plug-in.
    pub fn filter<T: Filter>(dir: impl Into<PathBuf>) -> Self {
        Self::new::<FilterHalf<T>>(dir.into())
    }

    /// For a partitioner.
    pub fn partitioner<T: Partitioner>(dir: impl Into<PathBuf>) -> Self {
        Self::new::<PartitionerHalf<T>>(dir.into())
    }

    /// For a serializer.
    pub fn serializer<T: Serializer>(dir: impl Into<PathBuf>) -> Self {
        Self::new::<SerializerHalf<T>>(dir.into())
    }

    /// For a compressor.
    pub fn compressor<T: Compressor>(dir: impl Into<PathBuf>) -> Self {
        Self::new::<CompressorHalf<T>>(dir.into())
    }

    fn new<N: Native + 'static>(dir: PathBuf) -> Self {
        let mut session = native::Session::<N>::default();
        Self { native: Box::new(move |vector| session.answer(vector)), dir }
    }

    /// Runs the vectors in a file, one a line; its path is from the folder of the crate.
    ///
    /// # Panics
    /// The file cannot be read, or [`check`](Self::check) does.
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

    /// Runs vectors, each a JSON object as [above](crate).
    ///
    /// # Panics
    /// With what [`run`](Self::run) says.
    #[track_caller]
    pub fn check(self, vectors: &[Value]) {
        if let Err(failure) = self.run(vectors) {
            panic!("{failure}");
        }
    }

    /// Runs vectors natively and in the sandbox.
    ///
    /// # Errors
    /// A vector whose two answers differ, or are not what is expected, and what kept the test from running: the component
    /// does not build, there is no `millstream` binary, the vector is not one.
    pub fn run(mut self, vectors: &[Value]) -> Result<(), Failure> {
        let mut native = Vec::with_capacity(vectors.len());
        for vector in vectors {
            let answer = (self.native)(vector).map_err(|error| Failure::Broken(format!("{error}\nin {vector}")))?;
            native.push(answer);
        }
        // What the author can debug first.
        for (vector, answer) in vectors.iter().zip(&native) {
            let expected = vector.get("expect").unwrap_or(&Value::Null);
            if !expected.is_null() && !fits(expected, answer) {
                return Err(Failure::Unexpected { vector: vector.clone(), answer: answer.clone() });
            }
        }
        let sandboxed = sandbox::answers(&self.dir, vectors).map_err(Failure::Broken)?;
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
    /// The two halves answered differently.
    Different {
        /// The vector.
        vector: Value,
        /// What the code answered natively.
        native: Value,
        /// What the component answered in the sandbox.
        sandbox: Value,
    },
    /// The stage answered something else than was expected.
    Unexpected {
        /// The vector, with what was expected.
        vector: Value,
        /// What the code answered natively.
        answer: Value,
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
                    "the sandbox answers differently\n  vector:  {vector}\n  native:  {native}\n  sandbox: {sandbox}"
                )
            }
            Failure::Unexpected { vector, answer } => {
                write!(f, "not what was expected\n  vector:  {vector}\n  answer:  {answer}")
            }
            Failure::Broken(problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for Failure {}

/// Whether `answer` has all that `expected` names.
fn fits(expected: &Value, answer: &Value) -> bool {
    match (expected, answer) {
        (Value::Object(expected), Value::Object(answer)) => {
            expected.iter().all(|(name, value)| answer.get(name).is_some_and(|found| fits(value, found)))
        }
        (Value::Array(expected), Value::Array(answer)) => {
            expected.len() == answer.len() && expected.iter().zip(answer).all(|(value, found)| fits(value, found))
        }
        _ => expected == answer,
    }
}

/// Whether the halves agree. A panic and the trap that it is in the sandbox have different words.
fn same(native: &Value, sandbox: &Value) -> bool {
    let trapped = |answer: &Value| answer.pointer("/error/trap").is_some();
    native == sandbox || (trapped(native) && trapped(sandbox))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_left_out_is_not_compared() {
        let answer = json!({"error": {"rows": [{"row": 1, "message": "bad"}]}});
        assert!(fits(&json!({"error": {"rows": [{"row": 1}]}}), &answer));
        for other in [json!({"error": {"rows": [{"row": 2}]}}), json!({"error": {"rows": []}}), json!({"keep": []})] {
            assert!(!fits(&other, &answer), "{other}");
        }
    }

    #[test]
    fn a_panic_is_a_trap_in_other_words() {
        assert!(same(&json!({"error": {"trap": "a"}}), &json!({"error": {"trap": "b"}})));
        assert!(!same(&json!({"error": {"batch": "a"}}), &json!({"error": {"batch": "b"}})));
    }
}
