//! Guests that die, in the ways in which each language does, and what the user sees of it.

use std::fs;

use millstream_tests::Finished;
use serde_json::{Value, json};

use super::{build, folder, new, plugin};

/// A filter that does what its configuration says.
const C: &str = r#"
#include "millstream.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

static ms_bytes how;
static volatile int turns;
static void *volatile leaked;

static void configure(void) { how = ms_config_text("how"); }

static bool is(const char *name) { return strlen(name) == how.length && memcmp(name, how.data, how.length) == 0; }

static bool keep(const ms_record *record) {
    (void)record;
    if (is("die")) { fprintf(stderr, "two rows are too few\nand there is more to say\n"); abort(); }
    if (is("assert")) assert(how.length == 0);
    if (is("loop")) for (;;) turns++;
    if (is("leak")) for (;;) if (!(leaked = malloc(65536))) abort();
    if (is("flood")) for (int i = 0; i < 1000; i++) fprintf(stderr, "line %d\n", i);
    if (is("print")) printf("a line\n"
        "not UTF-8: \xff \xc3( \xe2\x82 \xed\xa0\x80 \xf4\x90\x80\x80, and UTF-8: é€𝄞\n");
    return true;
}

MILLSTREAM_FILTER("c-filter", "0.1.0", MS_VALUES, configure, keep)
"#;

const GO: &str = r#"package main

import (
	"fmt"
	"math/rand"
	"os"
	"time"

	"millstream"
	"millstream/filter"
)

type deaths struct {
	How string `json:"how"`
}

var leaked [][]byte

func (it *deaths) Keep(record millstream.Record) (bool, error) {
	switch it.How {
	case "die":
		panic("two rows are too few")
	case "assert":
		os.Exit(3)
	case "loop":
		for {
		}
	case "leak":
		for {
			leaked = append(leaked, make([]byte, 65536))
		}
	case "flood":
		for i := range 1000 {
			fmt.Fprintf(os.Stderr, "line %d\n", i)
		}
	case "print":
		fmt.Print("a line\nnot UTF-8: \xff \xc3( \xe2\x82 \xed\xa0\x80 \xf4\x90\x80\x80, and UTF-8: é€𝄞\n")
	case "wait":
		begun := time.Now()
		time.Sleep(time.Hour)
		if waited := time.Since(begun); waited < time.Hour || waited > 2*time.Hour {
			panic(waited.String())
		}
		first, second := rand.Int(), rand.Int()
		if _, err := os.Open("/etc/passwd"); err == nil || first == second || len(os.Args)+len(os.Environ()) > 0 {
			panic("there is a system")
		}
	}
	return true, nil
}

func init() { filter.Register[deaths]("go-filter", "0.1.0", millstream.Values) }

func main() {}
"#;

const JS: &str = r#"
import { log, makeFilter } from "../sdk/js/millstream.js";

let how;
const leaked = [];

export const { describe, configure, filter } = makeFilter({
  name: "js-filter",
  version: "0.1.0",
  reads: ["values"],
  configure(config) {
    how = config.text("how");
  },
  keep() {
    if (how === "die") throw new Error("two rows are too few");
    if (how === "assert") null.field;
    if (how === "loop") for (;;);
    if (how === "leak") for (;;) leaked.push(new Uint8Array(65536));
    if (how === "flood") for (let i = 0; i < 1000; i += 1) log("info", `line ${i}`);
    if (how === "print") log("info", "a line");
    return true;
  },
});
"#;

/// Calls the filter with one record for each way, twice: a dead instance is replaced.
pub(super) fn reach_the_user(language: &str) {
    let folder = folder();
    let dir = new(folder.path(), language, "filter");
    let (path, source) = match language {
        "c" => ("src/plugin.c", C),
        "go" => ("plugin.go", GO),
        _ => ("src/plugin.js", JS),
    };
    fs::write(dir.join(path), source).expect("a file of the test's own");
    let file = build(&dir);
    let call = |how: &str| {
        let call = json!({ "call": "filter", "config": { "how": how }, "records": [{ "value": "a" }] });
        let end = plugin(&dir).arg("call").arg(&file).input(format!("{call}\n{call}\n")).run();
        assert_eq!(end.code, Some(0), "{how}: {}", end.stderr);
        let results: Vec<Value> = end.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert!(results.len() == 2 && results[0] == results[1], "{how}: {results:?}");
        (results[0].clone(), end)
    };
    let trap = |how: &str| {
        let (result, _) = call(how);
        result["error"]["trap"].as_str().unwrap_or_else(|| panic!("{how}: {result}")).to_owned()
    };

    // The first line of what it printed last, without what follows.
    let died = trap("die");
    let message = match language {
        "c" => "it logged: two rows are too few",
        "go" => "it logged: panic: two rows are too few",
        _ => "it logged: Error: two rows are too few",
    };
    assert!(died.ends_with(message), "{died}");
    let asserted = trap("assert");
    match language {
        "c" => assert!(asserted.contains("it logged: Assertion failed: how.length == 0"), "{asserted}"),
        "go" => assert!(asserted.contains("unreachable"), "{asserted}"),
        _ => assert!(asserted.contains("it logged: TypeError: "), "{asserted}"),
    }
    let endless = trap("loop");
    assert!(endless.contains("ran longer than its deadline"), "{endless}");
    let leaked = trap("leak");
    assert!(leaked.contains("out of memory"), "{leaked}");

    let (flooded, end) = call("flood");
    assert_eq!(flooded, json!({ "keep": [0] }));
    assert!(lines(&end, "line ") < 200, "{}", end.stderr);
    let (printed, end) = call("print");
    assert_eq!(printed, json!({ "keep": [0] }));
    assert!(lines(&end, "INFO") > 0 && end.stderr.contains("a line"), "{}", end.stderr);
    // Bytes that are no text do not end the call.
    let text = "not UTF-8: ? ?( ?? ??? ????, and UTF-8: é€𝄞";
    assert!(language == "js" || end.stderr.contains(text), "{}", end.stderr);
    if language == "go" {
        // There is no system: a wait is over at once, and files are missing.
        assert_eq!(call("wait").0, json!({ "keep": [0] }));
    }
}

/// Returns the number of lines of the log that have a text.
fn lines(end: &Finished, text: &str) -> usize {
    end.stderr.lines().filter(|line| line.contains(text)).count()
}
