// A partitioner: chooses the partition of each record.
import { BadConfig, makePartitioner, Rejected } from "../sdk/js/millstream.js";

let prefix;

export const { describe, configure, partition } = makePartitioner({
  name: "{{name}}",
  version: "0.1.0",
  reads: ["keys"],

  // Reads the configuration: what a user writes as {{name}}{"prefix":2}.
  configure(config) {
    prefix = config.number("prefix");
    if (prefix < 0) throw new BadConfig("/prefix", "a length is needed");
  },

  // Returns a partition, from 0 to partitions.count - 1. Keys with the same prefix go to the same one.
  partition(record, partitions) {
    if (record.key === null) throw new Rejected("a record needs a key");
    let hash = 0;
    for (const byte of record.key.subarray(0, prefix)) hash = (Math.imul(hash, 31) + byte) >>> 0;
    return hash % partitions.count;
  },
});
