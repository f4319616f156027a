// A partitioner that chooses a partition that is not there.
import { makePartitioner } from "../sdk/js/millstream.js";

let beyond;

export const { describe, configure, partition } = makePartitioner({
  name: "js-partitioner",
  version: "0.1.0",
  reads: [],
  configure(config) {
    beyond = config.number("beyond");
  },
  partition: (record, partitions) => (beyond === 0xffffffff ? beyond : partitions.count + beyond),
});
