// A serializer: changes keys and values on the way to a topic, and back on the way from it.
import { concat, encode, makeSerializer, Rejected } from "../sdk/js/millstream.js";

let prefix;

export const { describe, configure, serialize, deserialize } = makeSerializer({
  name: "{{name}}",
  version: "0.1.0",
  reads: ["values"],

  // Reads the configuration: what a user writes as {{name}}{"prefix":"v1:"}.
  configure(config) {
    prefix = encode(config.text("prefix"));
  },

  // Adds the prefix. A key or value that is not returned stays the same.
  serialize({ value }) {
    return value === null ? {} : { value: concat(prefix, value) };
  },

  // Removes the prefix. A thrown Rejected rejects only this record, and names its row.
  deserialize({ value }) {
    if (value === null) return {};
    if (!prefix.every((byte, at) => value[at] === byte)) throw new Rejected("the prefix is not there");
    return { value: value.subarray(prefix.length) };
  },
});
