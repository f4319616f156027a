// Measures a filter: node bench.js CONTAINS.wasm. Prints the median ns a row, with and without making the batch.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { Filter, records } from './stage.js';
import { transpile } from './transpile.js';

const ROWS = 1000;

/** Returns 104 bytes a row; every tenth holds the text. */
function values() {
  return Array.from({ length: ROWS }, (_, row) => {
    const key = BigInt.asUintN(64, BigInt(row) * 0x9e3779b97f4a7c15n).toString(16).padStart(16, '0');
    let text = `{"id":${row},"name":"`;
    text += key.repeat(8).slice(0, 102 - text.length);
    if (row % 10 === 3) text = `${text.slice(0, 50)}error${text.slice(55)}`;
    return Buffer.from(`${text}"}`);
  });
}

/** Returns the median time of a call in ns. */
function median(work, seconds = 1) {
  const times = [];
  const end = performance.now() + seconds * 1000;
  while (performance.now() < end) {
    const begun = process.hrtime.bigint();
    work();
    times.push(Number(process.hrtime.bigint() - begun));
  }
  return times.sort((one, other) => one - other)[times.length >> 1];
}

const folder = mkdtempSync(path.join(os.tmpdir(), 'millstream-stage-'));
try {
  await transpile(process.argv[2], folder);
  const stage = await Filter.load(folder, { text: 'error' });
  const rows = values();
  const numbers = rows.map((_, row) => row);
  assert.deepEqual(stage.kept('bench', { values: rows }, numbers), numbers.filter((row) => row % 10 === 3));
  const made = records({ values: rows }, ROWS, stage.columns);
  for (const [what, batch] of [['call', made], ['batch and call', { values: rows }]]) {
    median(() => stage.filter('bench', batch), 0.3);
    console.log(`${what}: ${(median(() => stage.filter('bench', batch)) / ROWS).toFixed(1)} ns a row`);
  }
  const one = { values: rows.slice(0, 1) };
  console.log(`one record a call: ${median(() => stage.filter('bench', one)).toFixed(0)} ns a call`);
} finally {
  rmSync(folder, { recursive: true });
}
