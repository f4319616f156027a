// @platformatic/kafka: the calls that delete and list, and transactions.
'use strict'

const assert = require('node:assert')
const { Admin, Consumer, Producer, stringDeserializers, stringSerializers } = require('@platformatic/kafka')

const [command, bootstrap] = process.argv.slice(2)
const options = { clientId: 'admin', bootstrapBrokers: [bootstrap] }

/** Deletes records, offsets and a group, and checks the lists without security, quotas and reassignments. */
async function admin() {
  const admin = new Admin(options)
  const topic = 'platformatic'
  await admin.createTopics({ topics: [topic], partitions: 1, replicas: 1 })
  const producer = new Producer({ ...options, serializers: stringSerializers })
  const messages = Array.from({ length: 10 }, (_, n) => ({ topic, value: `value ${n}` }))
  await producer.send({ messages })
  await producer.close()

  const deleted = await admin.deleteRecords({ topics: [{ name: topic, partitions: [{ partition: 0, offset: 4n }] }] })
  assert.strictEqual(deleted[0].partitions[0].lowWatermark, 4n)
  const dirs = await admin.describeLogDirs({ topics: [{ name: topic, partitions: [0] }] })
  const [found] = dirs[0].results[0].topics
  assert.strictEqual(found.name, topic)
  assert(found.partitions[0].partitionSize > 100n)

  const groupId = 'readers'
  const partitionOffsets = [{ partition: 0, offset: 7n }]
  await admin.alterConsumerGroupOffsets({ groupId, topics: [{ name: topic, partitionOffsets }] })
  await admin.deleteConsumerGroupOffsets({ groupId, topics: [{ name: topic, partitionIndexes: [0] }] })
  await admin.alterConsumerGroupOffsets({ groupId, topics: [{ name: topic, partitionOffsets }] })
  await admin.deleteGroups({ groups: [groupId] })
  assert.strictEqual((await admin.listGroups()).size, 0)

  assert.deepStrictEqual(await admin.describeClientQuotas({ components: [] }), [])
  await admin.close()
}

/** Commits and aborts a transaction, one with offsets, and fences a producer by its successor. */
async function transactions() {
  const topic = 'platformatic-transactions'
  const admin = new Admin(options)
  await admin.createTopics({ topics: [topic], partitions: 1, replicas: 1 })
  const open = () =>
    new Producer({
      ...options,
      idempotent: true,
      transactionalId: 'platformatic',
      serializers: stringSerializers,
      // Its default, 0, asks for a new epoch of producer 0 instead of a new producer.
      producerId: -1n,
      producerEpoch: -1,
    })
  const send = (transaction, value) => transaction.send({ messages: [{ topic, partition: 0, value }] })
  const group = { ...options, groupId: 'copiers', deserializers: stringDeserializers, autocommit: false }
  const reader = new Consumer(group)
  const stream = await reader.consume({ topics: [topic], mode: 'earliest' })
  const values = []
  const last = new Promise((resolve, reject) => {
    stream.on('error', reject)
    stream.on('data', (message) => {
      values.push(message.value)
      if (message.value === 'of its successor') resolve(message)
    })
  })

  const first = open()
  const kept = await first.beginTransaction()
  await send(kept, 'committed')
  await kept.commit()
  const dropped = await first.beginTransaction()
  await send(dropped, 'aborted')
  await dropped.abort()
  const zombie = await first.beginTransaction()
  await send(zombie, 'of the zombie')
  const second = open()
  const successor = await second.beginTransaction()
  await assert.rejects(zombie.commit())
  await send(successor, 'of its successor')
  await successor.commit()
  const message = await last
  assert.deepStrictEqual(values, ['committed', 'of its successor'])

  const copied = await second.beginTransaction()
  await copied.addConsumer(reader)
  await copied.addOffset(message)
  await copied.commit()
  // This client's OffsetFetch does not wait for the markers of the transaction.
  const end = Date.now() + 60000
  for (;;) {
    const committed = await reader.listCommittedOffsets({ topics: [{ topic, partitions: [0] }] })
    if (committed.get(topic)[0] === message.offset + 1n) break
    assert(Date.now() < end, `the committed offset is ${committed.get(topic)}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  await stream.close()
  await reader.close()
  await second.close()
  await first.close()
  await admin.close()
}

const run = { admin, transactions }[command]
run().then(
  () => {
    console.log(`${command}: ok`)
    process.exit(0)
  },
  (error) => {
    console.error(error)
    process.exit(1)
  }
)
