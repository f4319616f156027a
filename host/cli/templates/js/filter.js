// A filter: decides which records a consumer sees.
import { decode, makeFilter } from "../sdk/js/millstream.js";

let text;

export const { describe, configure, filter } = makeFilter({
  name: "{{name}}",
  version: "0.1.0",
  reads: ["values"],

  // Reads the configuration: what a user writes as {{name}}{"text":"error"}.
  configure(config) {
    text = config.text("text");
  },

  // Returns whether to keep a record. A thrown Rejected rejects only this record, and names its row.
  keep(record) {
    return record.value !== null && decode(record.value).includes(text);
  },
});
