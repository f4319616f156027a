// contains-js{"text":"error"}: a filter that keeps the records whose value contains a text, byte for byte.
import { BadConfig, contains, encode, makeFilter } from "../../../../sdk/js/millstream.js";

let text;

export const { describe, configure, filter } = makeFilter({
  name: "contains-js",
  version: "0.1.0",
  reads: ["values"],

  configure(config) {
    text = encode(config.text("text"));
    if (text.length === 0) throw new BadConfig("/text", "the text is empty: every record would be kept");
  },

  keep(record) {
    return record.value !== null && contains(record.value, text);
  },
});
