//! Random modules in the sandbox, as foreign plug-ins: none ends the process, hangs it, or gives anything but a typed
//! error or a right result.
//!
//! The modules come from `wasm-smith` and from our own plug-ins by `wasm-mutate`; see [`families`]. They run in child
//! processes, so that one that ends its process is named by its seed. `MILLSTREAM_MODULES` says how many to try.
//! `MILLSTREAM_MODULE` is the seed of the one module to try, in this process.

mod bodies;
mod counts;
mod examine;
mod families;
#[path = "../../fixtures/guests/mod.rs"]
#[allow(dead_code)]
mod guests;
mod ours;
mod sections;
mod workers;

use std::env;
use std::fs;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use millstream_stage::{COMPILE_CHILD_ARGUMENT, compile_child_main};

use crate::examine::Sandbox;
use crate::families::Family;

/// How many modules the test command tries.
const MODULES: u64 = 400;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(COMPILE_CHILD_ARGUMENT) => return compile_child_main(),
        Some(workers::ARGUMENT) => return workers::child(&arguments[1..]),
        _ => {}
    }
    let test = match number("MILLSTREAM_MODULE") {
        Some(seed) => Trial::test("one_module", move || one(seed)),
        None => Trial::test("random_modules_end_in_a_typed_error_or_a_right_result", all),
    };
    libtest_mimic::run(&Arguments::from_args(), vec![test]).exit_code()
}

/// Returns the number in a variable.
fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

fn all() -> Result<(), Failed> {
    let (first, modules) = (u64::from(fastrand::u32(..)), number("MILLSTREAM_MODULES").unwrap_or(MODULES));
    let found = workers::run(first, modules);
    println!("{}", found.counts);
    if !found.failures.is_empty() {
        return Err(Failed::from(found.failures.join("\n")));
    }
    found.counts.check(modules);
    Ok(())
}

/// Tries one module in this process, and keeps it as a file.
fn one(seed: u64) -> Result<(), Failed> {
    let made = families::make(seed);
    let file = format!("{}/module-{seed}.wasm", env!("CARGO_TARGET_TMPDIR"));
    fs::write(&file, &made.bytes)?;
    println!("{}: {} bytes in {file}", Family::of(seed).name(), made.bytes.len());
    let mut sandbox = Sandbox::new();
    for by_child in [true, false] {
        let end = sandbox.examine(&made, by_child);
        println!("{:?}: {} {}", end.step, end.outcome, end.error);
    }
    sandbox.check();
    Ok(())
}
