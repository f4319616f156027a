// A filter that does what its configuration says: each way in which a plug-in in JavaScript misbehaves.
import { log, makeFilter, Rejected } from "../sdk/js/millstream.js";

let how;
let calls = 0;
const leaked = [];

function die() {
  throw new Error("two rows are too few");
}

function recurse(depth) {
  return depth + (recurse(depth + 1) % 7);
}

const made = makeFilter({
  name: "js-filter",
  version: "0.1.0",
  reads: ["values"],
  configure(config) {
    how = config.text("how");
    if (how === "configure-die") die();
    if (how === "configure-loop") for (;;);
  },
  keep() {
    calls += 1;
    if (how === "die") die();
    if (how === "assert") null.field;
    if (how === "loop") for (;;);
    if (how === "fill") for (const bytes = new Uint8Array(4 << 20); ; ) bytes.fill(calls++);
    if (how === "recurse") return recurse(0) > 0;
    if (how === "leak") for (;;) leaked.push(new Uint8Array(65536));
    if (how === "hoard") leaked.push(new Uint8Array(12 << 20));
    if (how === "flood") for (let i = 0; i < 1000; i += 1) log("info", `line ${i}`);
    if (how === "print") log("info", "a line");
    if (how === "terminal") log("error", "\x1b[31mred\x07");
    if (how === "third" && calls === 3) die();
    if (how === "nan") throw new Rejected(new BigUint64Array(new Float64Array([0 / (calls - calls)]).buffer)[0].toString(16));
    if (how === "long") throw new Rejected("x".repeat(1 << 20));
    return true;
  },
});

export const { describe, configure } = made;

// A bitmap of the wrong length, for `rows`.
export const filter = (topic, records) =>
  how === "rows" ? new Uint8Array(made.filter(topic, records).length + 1) : made.filter(topic, records);
