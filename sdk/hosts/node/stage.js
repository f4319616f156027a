// Partitioners and filters: a transpiled component with its configuration, made anew after a trap.

import { readFileSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

import { records } from './batch.js';
import { BatchError, ConfigError, ContractError, MemoryError, RowErrors, StageError, Trap } from './errors.js';

export { records } from './batch.js';
export * from './errors.js';

const HOST = 'millstream:stage/host';
const MEMORY_BYTES = 16 << 20;
const LINES_A_SECOND = 50;
const LINE_CHARACTERS = 1024;
const COUNTERS = 64;
const NO_LEADER = 0xffff_ffff_ffff_ffffn;

/** A plug-in with its configuration. */
class Stage {
  #code;
  #config;
  #options;
  #exports;
  #memory;
  #said;
  #second = 0;
  #lines = 0;

  /**
   * Loads the folder that `transpile` has written. `config` is an object, or its text as JSON.
   *
   * `memory` is the most memory of the plug-in in bytes, which is checked after each call. `log` gets a level and a line.
   */
  static async load(folder, config = {}, options = {}) {
    const stage = new this();
    const file = path.resolve(folder, 'plugin.js');
    try {
      stage.#code = await import(pathToFileURL(file));
    } catch (error) {
      throw new ContractError(`${folder} is not a folder of millstream-transpile: ${error.message}`);
    }
    const modules = new Map();
    stage.#code = {
      instantiate: stage.#code.instantiate,
      module(name) {
        if (!modules.has(name)) modules.set(name, new WebAssembly.Module(readFileSync(path.join(folder, name))));
        return modules.get(name);
      },
    };
    stage.#config = typeof config === 'string' ? config : JSON.stringify(config);
    stage.#options = { memory: MEMORY_BYTES, log: (level, line) => console.error(`${level} ${line}`), ...options };
    /** What the plug-in has counted, by name. */
    stage.counters = new Map();
    stage.#start();
    return stage;
  }

  #start() {
    this.#memory = undefined;
    const host = { log: (level, line) => this.#log(level, line), count: (name, delta) => this.#count(name, delta) };
    const exports = this.#code.instantiate(this.#code.module, { [HOST]: host }, (module, imports) => {
      const instance = new WebAssembly.Instance(module, imports);
      this.#memory ??= instance.exports.memory;
      return instance;
    });
    const { name, version, kind, columns } = this.#guard('describe', () => exports.describe());
    Object.assign(this, { name, version, columns });
    if (kind !== this.constructor.kind) throw new ContractError(`${name} is a ${kind}, not a ${this.constructor.kind}`);
    this.#guard('configure', () => exports.configure(this.#config));
    this.#exports = exports;
  }

  /** Makes a call with a batch. @protected */
  call(batch, name, ...first) {
    const rows = batch.rows ?? (batch.values ?? batch.keys ?? batch.timestamps ?? batch.headers ?? []).length;
    for (const column of ['keys', 'values', 'headers']) {
      if (this.columns[column] && !batch[column]) {
        throw new ContractError(`the plug-in reads ${column}, which this batch does not have`);
      }
    }
    if (!this.#exports) this.#start();
    const shown = records(batch, rows, this.columns);
    return { rows, answer: this.#guard(name, () => this.#exports[name](...first, shown), rows) };
  }

  /** Runs a call, and turns what it throws into an error of this package. */
  #guard(name, call, rows) {
    this.#said = undefined;
    try {
      const answer = call();
      if (this.#memory?.buffer.byteLength > this.#options.memory) {
        const { memory } = this.#options;
        throw new MemoryError(`${name} took ${this.#memory.buffer.byteLength} bytes of memory, over ${memory}`);
      }
      return answer;
    } catch (error) {
      const found = translated(name, error, this.#said, rows);
      // Its memory may hold anything now: the next call has a new instance.
      if (!(found instanceof RowErrors || found instanceof BatchError)) this.#exports = undefined;
      throw found;
    }
  }

  #log(level, line) {
    const cut = line.slice(0, LINE_CHARACTERS);
    // A trap is explained by the first line that the plug-in logged as an error in the call.
    if (level === 'error') this.#said ??= cut;
    const second = Math.floor(performance.now() / 1000);
    if (second !== this.#second) [this.#second, this.#lines] = [second, 0];
    if (++this.#lines > LINES_A_SECOND) return;
    this.#options.log(level, `${this.name ?? 'a plug-in'}: ${JSON.stringify(cut).slice(1, -1)}`);
  }

  #count(name, delta) {
    if (!this.counters.has(name) && (this.counters.size >= COUNTERS || name.length > COUNTERS)) return;
    this.counters.set(name, (this.counters.get(name) ?? 0n) + delta);
  }
}

function translated(name, error, said, rows) {
  if (error instanceof StageError) return error;
  // jco throws the plug-in's error itself, or wraps it, by an option of transpiling.
  const payload = error instanceof Error ? error.payload : error;
  if (payload !== undefined) {
    if (name === 'configure') return new ConfigError(payload);
    if (payload.tag === 'batch') return new BatchError(payload.val);
    const bad = payload.val.sort((one, other) => one.row - other.row);
    if (bad.length === 0) return new ContractError(`${name} returned an error that names no row`);
    const { row } = bad.at(-1);
    if (row >= rows) return new ContractError(`${name} returned an error for row ${row} of ${rows}`);
    return new RowErrors(bad);
  }
  if (error instanceof WebAssembly.RuntimeError) {
    return new Trap(`trapped in ${name}: ${error.message}${said ? `; it said: ${said}` : ''}`, { cause: error });
  }
  return new ContractError(`the plug-in breaks the contract in ${name}: ${error.message}`, { cause: error });
}

/** Decides which records to keep. */
export class Filter extends Stage {
  static kind = 'filter';

  /** Returns a bitmap with a set bit for each row to keep: row `i` is bit `i % 8` of byte `i / 8`. */
  filter(topic, batch) {
    const { rows, answer } = this.call(batch, 'filter', topic);
    if (answer.length !== (rows + 7) >> 3) {
      throw new ContractError(`filter returned a bitmap of ${answer.length} bytes for ${rows} rows`);
    }
    return answer;
  }

  /** Returns those of `items`, one for each row of the batch, that the filter keeps. */
  kept(topic, batch, items) {
    const bitmap = this.filter(topic, batch);
    return items.filter((_, row) => bitmap[row >> 3] & (1 << (row & 7)));
  }
}

/** Chooses a partition for each record. */
export class Partitioner extends Stage {
  static kind = 'partitioner';

  /** Returns a partition from 0 to `partitions` - 1 for each row. Those without a leader are in `unavailable`. */
  partition(topic, partitions, batch, unavailable = []) {
    const load = new BigUint64Array(partitions);
    for (const one of unavailable) load[one] = NO_LEADER;
    const { rows, answer } = this.call(batch, 'partition', topic, partitions, load);
    if (answer.length !== rows) {
      throw new ContractError(`partition returned ${answer.length} partitions for ${rows} rows`);
    }
    for (const one of answer) {
      if (one >= partitions) throw new ContractError(`partition returned ${one} of ${partitions}`);
    }
    return answer;
  }
}
