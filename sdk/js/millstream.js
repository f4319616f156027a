// What a plug-in in JavaScript imports. It exports the functions that one of the four makers at the end returns:
//
//     export const { describe, configure, filter } = makeFilter({ name, version, reads, configure, keep });
//
// Keys and values are a Uint8Array, or null. QuickJS has no TextDecoder: `decode` and `encode` do its work.

import { log, count } from "millstream:stage/host@1.0.0";

export { log, count };

/** Rejects one record, with a reason that reaches the user. */
export class Rejected extends Error {}

/** Rejects a whole batch. */
export class RejectedBatch extends Error {}

/** Rejects a configuration. `field` is a JSON Pointer, such as "/text". */
export class BadConfig extends Error {
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

/** How many bytes become text at once: each is an argument of a call, and lies on the stack. */
const PART_BYTES = 4096;

/** Returns the text of bytes in UTF-8. Throws Rejected if they are not UTF-8. */
export function decode(bytes) {
  // The loops over bytes are those of QuickJS: one in the script takes several times as long.
  let text = "";
  for (let at = 0; at < bytes.length; at += PART_BYTES) {
    text += String.fromCharCode.apply(null, bytes.subarray(at, at + PART_BYTES));
  }
  if (!/[\x80-\xff]/.test(text)) return text;
  try {
    // Each character is a byte so far. `escape` writes those beyond ASCII as %XX, from which this function reads UTF-8.
    return decodeURIComponent(escape(text));
  } catch {
    throw new Rejected("invalid utf-8");
  }
}

/** Returns a text as bytes in UTF-8. */
export function encode(text) {
  const bytes = [];
  for (const character of text) {
    const code = character.codePointAt(0);
    if (code < 0x80) bytes.push(code);
    else if (code < 0x800) bytes.push(0xc0 | (code >> 6), 0x80 | (code & 63));
    else if (code < 0x10000) bytes.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
    else bytes.push(0xf0 | (code >> 18), 0x80 | ((code >> 12) & 63), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
  }
  return new Uint8Array(bytes);
}

/** The bytes that JSON and text have most of, from the most frequent on. */
const FREQUENT = [...' "etaoinsr0123456789:,hldcumfpgwybvk{}'].map((character) => character.charCodeAt(0));

let lastPart = null;
let lastRarest = 0;

/** Returns the place of the byte that is likely to be the rarest. Remembers it for the last part. */
function rarestOf(part) {
  if (part !== lastPart) {
    const rank = (byte) => (FREQUENT.includes(byte) ? FREQUENT.indexOf(byte) : FREQUENT.length);
    lastRarest = part.reduce((best, byte, at) => (rank(byte) > rank(part[best]) ? at : best), 0);
    lastPart = part;
  }
  return lastRarest;
}

/** Returns whether bytes contain others. */
export function contains(bytes, part) {
  if (part.length === 0) return true;
  // The search of the engine is native code, so that the rarest byte of the part is worth finding.
  const rarest = rarestOf(part);
  const byte = part[rarest];
  const last = bytes.length - part.length;
  for (let at = bytes.indexOf(byte, rarest); at >= 0; at = bytes.indexOf(byte, at + 1)) {
    const start = at - rarest;
    if (start > last) return false;
    let length = 0;
    while (length < part.length && bytes[start + length] === part[length]) length += 1;
    if (length === part.length) return true;
  }
  return false;
}

/** Returns parts as one Uint8Array. */
export function concat(...parts) {
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** One record of a batch. */
class Record {
  constructor(topic, records) {
    this.topic = topic;
    this.records = records;
    this.row = 0;
  }

  /** Milliseconds since the epoch, or 0 if the plug-in does not read timestamps. */
  get timestamp() {
    return this.records.timestamps.length > 0 ? this.records.timestamps[this.row] : 0;
  }

  get key() {
    return rowOf(this.records.keys, this.row);
  }

  get value() {
    return rowOf(this.records.values, this.row);
  }

  /** The headers as pairs of a name and a value, in the order of the record. */
  get headers() {
    const { headers } = this.records;
    if (headers == null) return [];
    const pairs = [];
    for (let at = this.row > 0 ? headers.ends[this.row - 1] : 0; at < headers.ends[this.row]; at += 1) {
      pairs.push([decode(rowOf(headers.names, at)), rowOf(headers.values, at)]);
    }
    return pairs;
  }
}

function rowOf(column, row) {
  if (column === null) return null;
  const nulls = column.nulls;
  if (nulls.length > 0 && (nulls[row >> 3] >> (row & 7)) & 1) return null;
  const ends = column.ends;
  return column.data.subarray(row > 0 ? ends[row - 1] : 0, ends[row]);
}

/** Calls `each` for every record. Throws what the contract calls an error if any of them was rejected. */
function forEachRow(topic, records, each) {
  const record = new Record(topic, records);
  const rejected = [];
  for (let row = 0; row < records.rows; row += 1) {
    record.row = row;
    try {
      each(record);
    } catch (error) {
      if (!(error instanceof Rejected)) throw error;
      rejected.push({ row, message: error.message });
    }
  }
  if (rejected.length > 0) throw { tag: "rows", val: rejected };
}

/** Runs a call. An error that is not meant for the host ends the plug-in; its message is logged first. */
function guarded(call) {
  try {
    return call();
  } catch (error) {
    if (error instanceof RejectedBatch) throw { tag: "batch", val: error.message };
    if (error instanceof Error) log("error", `${error.name}: ${error.message}\n${error.stack}`);
    throw error;
  }
}

function common(kind, plugin, reads, format) {
  const columns = { timestamps: false, keys: false, values: false, headers: false };
  for (const column of reads) columns[column] = true;
  return {
    describe: () => ({ name: plugin.name, version: plugin.version, kind, columns, format }),
    configure: (json) =>
      guarded(() => {
        const text = json.trim() === "" ? "{}" : json;
        const config = new Config(JSON.parse(text));
        try {
          plugin.configure?.(config);
          config.checkUnused();
        } catch (error) {
          if (!(error instanceof BadConfig)) throw error;
          throw { field: error.field, message: error.message };
        }
      }),
  };
}

/** A configuration. Each field is asked for by its name and its type; one that is not asked for is an error. */
class Config {
  constructor(fields) {
    this.fields = fields;
    this.used = new Set();
  }

  /** Returns a field of a type as `typeof` names it. Without `missing` the field is needed. */
  field(name, type, missing) {
    this.used.add(name);
    const pointer = `/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`;
    const value = this.fields[name];
    if (value === undefined) {
      if (missing !== undefined) return missing;
      throw new BadConfig(pointer, `missing field \`${name}\``);
    }
    if (typeof value !== type) throw new BadConfig(pointer, `a ${type} is needed`);
    return value;
  }

  text(name, missing) {
    return this.field(name, "string", missing);
  }

  number(name, missing) {
    return this.field(name, "number", missing);
  }

  flag(name, missing) {
    return this.field(name, "boolean", missing);
  }

  checkUnused() {
    if (typeof this.fields !== "object" || Array.isArray(this.fields)) {
      throw new BadConfig("", 'the configuration must be a JSON object, such as {"field": 1}');
    }
    for (const name of Object.keys(this.fields)) {
      if (!this.used.has(name)) throw new BadConfig(`/${name}`, "unknown field");
    }
  }
}

/** Makes a filter. `keep(record)` returns whether to keep a record. */
export function makeFilter(plugin) {
  const filter = (topic, records) =>
    guarded(() => {
      const kept = new Uint8Array((records.rows + 7) >> 3);
      forEachRow(topic, records, (record) => {
        if (plugin.keep(record)) kept[record.row >> 3] |= 1 << (record.row & 7);
      });
      return kept;
    });
  return { ...common("filter", plugin, plugin.reads), filter };
}

/** Makes a partitioner. `partition(record, partitions)` returns 0 to `partitions.count` - 1. */
export function makePartitioner(plugin) {
  const partition = (topic, count, load, records) =>
    guarded(() => {
      const chosen = [];
      forEachRow(topic, records, (record) => chosen.push(plugin.partition(record, { count, load })));
      return chosen;
    });
  return { ...common("partitioner", plugin, plugin.reads), partition };
}

/** Makes a serializer. `serialize(record)` and `deserialize(record)` return a new `{ key, value }`, or one of them. */
export function makeSerializer(plugin) {
  const call = (change) => (topic, records) =>
    guarded(() => {
      const keys = new Changed(records.keys);
      const values = new Changed(records.values);
      forEachRow(topic, records, (record) => {
        const { key, value } = change(record) ?? {};
        keys.put(record.row, key);
        values.put(record.row, value);
      });
      return { keys: keys.column(records.rows), values: values.column(records.rows) };
    });
  const [serialize, deserialize] = [call(plugin.serialize), call(plugin.deserialize)];
  return { ...common("serializer", plugin, plugin.reads), serialize, deserialize };
}

/** A column that a serializer changes. Rows without a new value keep the old one. */
class Changed {
  constructor(old) {
    this.old = old;
    this.rows = new Map();
  }

  put(row, bytes) {
    if (bytes !== undefined) this.rows.set(row, bytes);
  }

  column(rows) {
    if (this.rows.size === 0) return null;
    const parts = [];
    const ends = [];
    const nulls = new Uint8Array((rows + 7) >> 3);
    let end = 0;
    for (let row = 0; row < rows; row += 1) {
      const bytes = this.rows.has(row) ? this.rows.get(row) : rowOf(this.old, row);
      if (bytes === null) nulls[row >> 3] |= 1 << (row & 7);
      else parts.push(bytes);
      end += bytes?.length ?? 0;
      ends.push(end);
    }
    return { data: concat(...parts), ends, nulls };
  }
}

/** Makes a compressor. `compress(bytes)` and `decompress(bytes, max)` return bytes. `format` is one of Kafka's codecs,
 * or a name for a format of its own. */
export function makeCompressor(plugin) {
  const kafka = ["gzip", "snappy", "lz4", "zstd"].includes(plugin.format);
  const format = kafka ? { tag: plugin.format } : { tag: "private", val: plugin.format };
  const call = (work) => (...parameters) =>
    guarded(() => {
      try {
        return work(...parameters);
      } catch (error) {
        if (error instanceof Rejected) throw error.message;
        throw error;
      }
    });
  const [compress, decompress] = [call(plugin.compress), call(plugin.decompress)];
  return { ...common("compressor", plugin, [], format), compress, decompress };
}
