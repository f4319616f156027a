// The loader: what goes in and out, and all that a plug-in can do wrong.

import assert from 'node:assert/strict';
import os from 'node:os';
import { describe, test } from 'node:test';

import kafkajs from 'kafkajs';

import { BatchError, ConfigError, ContractError, Filter, MemoryError, Partitioner, RowErrors, Trap } from '../stage.js';
import { load } from './support.js';

const { Partitioners } = kafkajs;

/** Returns the partition that KafkaJS chooses for a key. */
function byKafkajs(key, partitions) {
  const partitionMetadata = Array.from({ length: partitions }, (_, partitionId) => ({ partitionId, leader: 1 }));
  return Partitioners.DefaultPartitioner()({ topic: 't', partitionMetadata, message: { key } });
}

describe('partitions', () => {
  test('ten thousand keys agree with KafkaJS', async () => {
    const murmur2 = await load(Partitioner, 'murmur2');
    const keys = Array.from({ length: 10_000 }, (_, row) =>
      Buffer.from(Array.from({ length: row % 41 }, (_, at) => ((row * 31 + at * 7) * (row + 1)) >> 3)));
    const chosen = murmur2.partition('t', 12, { keys });
    assert.deepEqual([...chosen], keys.map((key) => byKafkajs(key, 12)));
    assert.equal(new Set(chosen).size, 12);
  });

  test('a key of a mebibyte', async () => {
    const murmur2 = await load(Partitioner, 'murmur2');
    const key = Buffer.alloc(1 << 20, Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)));
    // What Kafka's Java client chooses: KafkaJS takes minutes for such a key.
    assert.deepEqual([...murmur2.partition('t', 12, { keys: [key] })], [8]);
  });

  test('null and empty keys', async () => {
    const murmur2 = await load(Partitioner, 'murmur2');
    const chosen = murmur2.partition('t', 12, { keys: [null, Buffer.alloc(0), null, Buffer.from('k')] });
    assert.equal(chosen[1], byKafkajs(Buffer.alloc(0), 12));
    assert.equal(chosen[3], byKafkajs(Buffer.from('k'), 12));
    assert.ok(chosen.every((one) => one < 12));
  });

  test('records without keys avoid partitions without a leader', async () => {
    const murmur2 = await load(Partitioner, 'murmur2');
    for (let turn = 0; turn < 20; turn++) {
      assert.deepEqual([...murmur2.partition('t', 3, { keys: [null] }, [0, 2])], [1]);
    }
  });

  test('no rows', async () => {
    assert.equal((await load(Partitioner, 'murmur2')).partition('t', 12, { keys: [] }).length, 0);
  });

  test('a partition that does not exist', async () => {
    const wrong = await load(Partitioner, 'no-such-partition');
    assert.throws(() => wrong.partition('t', 12, { keys: [Buffer.from('k')] }), { name: 'ContractError', message: /99 of 12/ });
  });
});

describe('filters', () => {
  const rows = (...texts) => ({ values: texts.map((text) => Buffer.from(text)) });

  test('ten thousand rows', async () => {
    const contains = await load(Filter, 'contains', { text: 'error' });
    const numbers = Array.from({ length: 10_000 }, (_, row) => row);
    const values = numbers.map((row) => (row % 10 === 4 ? null : Buffer.from(row % 10 === 3 ? 'an error' : 'fine')));
    assert.deepEqual(contains.kept('t', { values }, numbers), numbers.filter((row) => row % 10 === 3));
    assert.equal(contains.filter('t', { values: [] }).length, 0);
  });

  test('all columns arrive', async () => {
    const batch = {
      keys: [null, Buffer.from('k')],
      values: [Buffer.from('v'), null],
      timestamps: [1_700_000_000_123, -1n],
      headers: [[['n', Buffer.from('1')], ['m', null]], []],
    };
    assert.deepEqual([...(await load(Filter, 'columns')).filter('t', batch)], [3]);
  });

  test('a column that is missing', async () => {
    const contains = await load(Filter, 'contains', { text: 'error' });
    assert.throws(() => contains.filter('t', { keys: [Buffer.from('k')] }), { name: 'ContractError', message: /reads values/ });
  });

  test('a configuration that is refused', async () => {
    const refused = load(Filter, 'contains', { text: '' });
    await assert.rejects(refused, (error) =>
      error instanceof ConfigError && error.field === '/text' && /the text is empty/.test(error.message));
  });

  test('another kind', async () => {
    await assert.rejects(load(Filter, 'murmur2'), { name: 'ContractError', message: /murmur2 is a partitioner/ });
  });

  test('a folder without a plug-in', async () => {
    await assert.rejects(Filter.load(os.tmpdir()), { name: 'ContractError', message: /millstream-transpile/ });
  });

  test('bad rows have the words of the plug-in', async () => {
    const bad = await load(Filter, 'bad-rows');
    assert.throws(() => bad.filter('t', rows('a', 'p', 'b', 'poison')), (error) => {
      assert.ok(error instanceof RowErrors);
      const message = 'this row is poison';
      assert.deepEqual(error.rows, [{ row: 1, message }, { row: 3, message }]);
      return true;
    });
  });

  test('a bad batch has the words of the plug-in', async () => {
    const bad = await load(Filter, 'bad-batch');
    assert.throws(() => bad.filter('t', rows('a')), (error) =>
      error instanceof BatchError && error.message === 'this batch is poison');
  });

  test('a trap has the words of the plug-in, and the next call a new instance', async () => {
    const lines = [];
    const traps = await load(Filter, 'traps', {}, { log: (level, line) => lines.push(`${level} ${line}`) });
    for (let turn = 0; turn < 3; turn++) {
      assert.throws(() => traps.filter('t', rows('x')), (error) =>
        error instanceof Trap && /^trapped in filter: .*unreachable.*; it said: my last words$/.test(error.message));
      // The plug-in remembers in its memory that it has trapped, and would say so.
      assert.deepEqual([...traps.filter('t', rows('a'))], [1]);
    }
    assert.equal(lines[0], 'error good-filter: my last words');
  });

  for (const [name, message] of [
    ['no-such-row', /row 7 of 1/],
    ['wrong-size', /99 bytes for 1 rows/],
    ['beyond', /filter/],
    ['wrong-realloc', /outside the bounds/],
  ]) {
    test(`an answer that breaks the contract: ${name}`, async () => {
      const wrong = await load(Filter, name);
      assert.throws(() => wrong.filter('t', rows('a'.repeat(200))), (error) =>
        (error instanceof ContractError || error instanceof Trap) && message.test(error.message));
    });
  }

  test('memory has a limit', async () => {
    const grows = await load(Filter, 'grows');
    for (let turn = 0; turn < 2; turn++) assert.throws(() => grows.filter('t', rows('a')), MemoryError);
    assert.deepEqual([...(await load(Filter, 'grows', {}, { memory: 64 << 20 })).filter('t', rows('a'))], [1]);
  });
});
