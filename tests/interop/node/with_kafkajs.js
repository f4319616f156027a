// KafkaJS, which never moves past a response that has only empty batches.
'use strict'

const assert = require('node:assert')
const { Kafka, logLevel } = require('kafkajs')

const PATIENCE_MS = 120000
const PARTITIONS = 4

// The long gap of a view, as in `views/mod.rs`.
const GAP = { match: 'keep this one', offset: '10000000', end: '10160001', minBytes: 65536, maxWaitTimeInMs: 700 }

const [command, bootstrap] = process.argv.slice(2)
const kafka = new Kafka({ clientId: 'views', brokers: [bootstrap], logLevel: logLevel.ERROR })

async function waitUntil(what, condition) {
  const end = Date.now() + PATIENCE_MS
  while (!(await condition())) {
    assert(Date.now() < end, `timed out: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/** A member of a group that records what it reads and which partitions it owns. */
async function join(topic, groupId, seen, options = {}) {
  const consumer = kafka.consumer({ groupId, heartbeatInterval: 300, maxWaitTimeInMs: 300, ...options })
  const member = { consumer, partitions: [] }
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    member.partitions = payload.memberAssignment[topic] || []
  })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  await consumer.run({
    autoCommitInterval: 300,
    eachMessage: async ({ partition, message }) => {
      seen.push({ partition, offset: message.offset, value: message.value.toString() })
    },
  })
  return member
}

/** Finds the one record, reaches the end of the gap behind it, and commits that offset. */
async function gap() {
  const seen = []
  const { minBytes, maxWaitTimeInMs } = GAP
  const admin = kafka.admin()
  await admin.connect()
  const member = await join('view', 'readers', seen, { minBytes, maxWaitTimeInMs })
  const committed = async () => (await admin.fetchOffsets({ groupId: 'readers', topics: ['view'] }))[0].partitions[0].offset
  await waitUntil('the record', () => seen.length > 0)
  await waitUntil('a commit at the end', async () => (await committed()) === GAP.end)
  await member.consumer.disconnect()
  await admin.disconnect()
  assert.deepStrictEqual(seen, [{ partition: 0, offset: GAP.offset, value: GAP.match }])
}

/** Lets two members share the partitions of a view. One leaves and the other takes over; a later member continues. */
async function group() {
  const admin = kafka.admin()
  await admin.connect()
  await admin.createTopics({ topics: [{ topic: 'viewed', numPartitions: PARTITIONS }] })
  const configEntries = [
    { name: 'view.of', value: 'viewed' },
    { name: 'stage.filter', value: 'contains{"text":"keep "}' },
  ]
  await admin.createTopics({ topics: [{ topic: 'view', configEntries }] })
  const producer = kafka.producer()
  await producer.connect()
  const produce = (word) => {
    const messages = []
    for (let i = 0; i < 100; i++) {
      messages.push({ partition: i % PARTITIONS, value: `keep ${word}-${i}` })
      messages.push({ partition: i % PARTITIONS, value: `drop ${word}-${i}` })
    }
    return producer.send({ topic: 'viewed', messages })
  }
  const seen = []
  const first = await join('view', 'members', seen)
  await waitUntil('one member owns all', () => first.partitions.length === PARTITIONS)
  await produce('one')
  await waitUntil('one member reads all', () => seen.length === 100)

  const second = await join('view', 'members', seen)
  await waitUntil('two members share', () => first.partitions.length === 2 && second.partitions.length === 2)
  await produce('two')
  await waitUntil('two members read all', () => seen.length === 200)

  await second.consumer.disconnect()
  await waitUntil('the first takes over', () => first.partitions.length === PARTITIONS)
  await produce('three')
  await waitUntil('the first reads the rest', () => seen.length === 300)
  await first.consumer.disconnect()

  const wanted = ['one', 'two', 'three'].flatMap((word) => [...Array(100).keys()].map((i) => `keep ${word}-${i}`))
  assert.deepStrictEqual(seen.map(({ value }) => value).sort(), wanted.sort())

  const later = []
  const third = await join('view', 'members', later)
  await produce('four')
  await waitUntil('a later member goes on', () => later.length === 100)
  assert(later.every(({ value }) => value.startsWith('keep four-')))
  await third.consumer.disconnect()

  // Writing is rejected, and not retried.
  await assert.rejects(producer.send({ topic: 'view', messages: [{ value: 'x' }] }), { type: 'INVALID_TOPIC_EXCEPTION' })
  await producer.disconnect()
  await admin.disconnect()
}

/** Reads past batches that admission dropped completely, which are more than one fetch response holds. */
async function dropped() {
  const admin = kafka.admin()
  await admin.connect()
  const configEntries = [
    { name: 'stage.admit', value: 'contains{"text":"keep"}' },
    { name: 'stage.admit.failure.policy', value: 'skip' },
  ]
  await admin.createTopics({ topics: [{ topic: 'admitted', numPartitions: 1, configEntries }] })
  const producer = kafka.producer()
  await producer.connect()
  const produce = (value) => producer.send({ topic: 'admitted', messages: [{ value }] })
  await produce('keep the first')
  for (let i = 0; i < 100; i++) await produce(`drop ${i}`)
  await produce('keep the last')
  const seen = []
  const member = await join('admitted', 'readers', seen, { maxBytesPerPartition: 1000, maxBytes: 1000 })
  await waitUntil('the last record', () => seen.length === 2)
  await member.consumer.disconnect()
  await producer.disconnect()
  await admin.disconnect()
  assert.deepStrictEqual(seen.map(({ offset }) => offset), ['0', '101'])
}

/** Reads the values of a topic until the last one that it expects. */
async function committedValues(topic, last) {
  const seen = []
  const { consumer } = await join(topic, `readers-of-${topic}`, seen)
  await waitUntil(`the record "${last}"`, () => seen.some(({ value }) => value === last))
  await consumer.disconnect()
  return seen.map(({ value }) => value)
}

/** Commits and aborts a transaction, one with offsets, and fences a producer by its successor. */
async function transactions() {
  const topic = 'kafkajs-transactions'
  const admin = kafka.admin()
  await admin.connect()
  await admin.createTopics({ topics: [{ topic, numPartitions: 1 }] })
  const open = async () => {
    const producer = kafka.producer({ transactionalId: 'kafkajs', maxInFlightRequests: 1, idempotent: true })
    await producer.connect()
    return producer
  }
  const send = (transaction, value) => transaction.send({ topic, messages: [{ partition: 0, value }] })
  const first = await open()
  const kept = await first.transaction()
  await send(kept, 'committed')
  await kept.commit()
  const dropped = await first.transaction()
  await send(dropped, 'aborted')
  await dropped.abort()
  const copied = await first.transaction()
  await send(copied, 'with offsets')
  const topics = [{ topic, partitions: [{ partition: 0, offset: '1' }] }]
  await copied.sendOffsets({ consumerGroupId: 'copiers', topics })
  await copied.commit()
  // This client's OffsetFetch does not wait for the markers of the transaction.
  await waitUntil('the committed offset', async () => {
    const [committed] = await admin.fetchOffsets({ groupId: 'copiers', topics: [topic] })
    return committed.partitions[0].offset === '1'
  })
  const zombie = await first.transaction()
  await send(zombie, 'of the zombie')
  const second = await open()
  const successor = await second.transaction()
  await assert.rejects(zombie.commit())
  await send(successor, 'of its successor')
  await successor.commit()
  assert.deepStrictEqual(await committedValues(topic, 'of its successor'), ['committed', 'with offsets', 'of its successor'])
  await second.disconnect()
  await admin.disconnect()
}

/** Reads past two aborted transactions, of which the one that began later was aborted first. */
async function interleaved() {
  const topic = 'kafkajs-interleaved'
  const admin = kafka.admin()
  await admin.connect()
  await admin.createTopics({ topics: [{ topic, numPartitions: 1 }] })
  const begin = async (transactionalId) => {
    const producer = kafka.producer({ transactionalId, maxInFlightRequests: 1, idempotent: true })
    await producer.connect()
    return { producer, transaction: await producer.transaction() }
  }
  const all = [await begin('interleaved-a'), await begin('interleaved-b'), await begin('interleaved-c')]
  const [a, b, c] = all.map(({ transaction }) => transaction)
  const send = (transaction, value) => transaction.send({ topic, messages: [{ partition: 0, value }] })
  for (let round = 0; round < 2; round++) {
    await send(a, 'aborted')
    await send(b, 'aborted')
    await send(c, `committed ${round}`)
  }
  await b.abort()
  await send(c, 'committed between')
  await a.abort()
  await c.commit()
  const wanted = ['committed 0', 'committed 1', 'committed between']
  assert.deepStrictEqual(await committedValues(topic, 'committed between'), wanted)
  await Promise.all(all.map(({ producer }) => producer.disconnect()))
  await admin.disconnect()
}

const commands = { 'view-gap': gap, 'view-group': group, dropped, transactions, interleaved }
commands[command]().then(
  () => {
    console.log(`${command}: ok`)
    process.exit(0)
  },
  (error) => {
    console.error(error)
    process.exit(1)
  },
)
