// KafkaJS with the partitioner and the filter. `MILLSTREAM_BOOTSTRAP` names a broker with the topic `kafkajs`, of six
// partitions, and a view of it that shows what contains `error`.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import kafkajs from 'kafkajs';

import { kept, partitioner } from '../kafkajs.js';
import { Filter, Partitioner } from '../stage.js';
import { load } from './support.js';

const { Kafka, Partitioners, logLevel } = kafkajs;
const PARTITIONS = 6;
const RECORDS = 1000;

test('produce with the partitioner, consume with the filter', async () => {
  const kafka = new Kafka({ brokers: [process.env.MILLSTREAM_BOOTSTRAP], logLevel: logLevel.ERROR });
  const producer = kafka.producer({ createPartitioner: partitioner(await load(Partitioner, 'murmur2')) });
  await producer.connect();
  const messages = Array.from({ length: RECORDS }, (_, row) => ({
    key: `key-${row}`,
    value: `${row} ${row % 10 === 3 ? 'error' : 'fine'}`,
  }));
  await producer.send({ topic: 'kafkajs', messages });
  await producer.disconnect();

  const filter = await load(Filter, 'contains', { text: 'error' });
  const filtered = await read(kafka, 'kafkajs', (batch) => kept(filter, batch));
  assert.deepEqual(filtered, await read(kafka, 'kafkajs-view', (batch) => batch.messages));
  assert.equal(filtered.length, RECORDS / 10);

  const choose = Partitioners.DefaultPartitioner();
  const partitionMetadata = Array.from({ length: PARTITIONS }, (_, partitionId) => ({ partitionId, leader: 1 }));
  for (const line of filtered) {
    const [partition, key] = line.split(' ');
    assert.equal(Number(partition), choose({ topic: 'kafkajs', partitionMetadata, message: { key } }));
  }
});

/** Returns the records of a topic up to a tenth of all, in order. */
async function read(kafka, topic, records) {
  const consumer = kafka.consumer({ groupId: topic });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  const found = [];
  await new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error));
    consumer.run({
      eachBatch: async ({ batch }) => {
        found.push(...records(batch).map(({ key, value }) => `${batch.partition} ${key} ${value}`));
        if (found.length >= RECORDS / 10) resolve();
      },
    }).catch(reject);
  });
  await consumer.disconnect();
  return found.sort();
}
