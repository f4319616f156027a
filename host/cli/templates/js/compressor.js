// A compressor: compresses the records of a batch, and decompresses them.
import { makeCompressor, Rejected } from "../sdk/js/millstream.js";

export const { describe, configure, compress, decompress } = makeCompressor({
  name: "{{name}}",
  version: "0.1.0",
  // A private format, which only this plug-in reads. Kafka's codecs are "gzip" and so on.
  format: "{{name}}",

  // Writes each run of equal bytes as the byte and the length of the run.
  compress(data) {
    const output = [];
    for (let at = 0; at < data.length; ) {
      let length = 1;
      while (length < 255 && data[at + length] === data[at]) length += 1;
      output.push(data[at], length);
      at += length;
    }
    return new Uint8Array(output);
  },

  // Returns at most `max` bytes, whatever size the data claims.
  decompress(data, max) {
    const output = [];
    for (let at = 0; at < data.length; at += 2) {
      if (at + 1 === data.length) throw new Rejected("half a run");
      if (output.length + data[at + 1] > max) throw new Rejected(`the output is over ${max} bytes`);
      for (let left = data[at + 1]; left > 0; left -= 1) output.push(data[at]);
    }
    return new Uint8Array(output);
  },
});
