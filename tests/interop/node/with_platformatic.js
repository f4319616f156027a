// @platformatic/kafka: the calls that delete and list.
'use strict'

const assert = require('node:assert')
const { Admin, Producer, stringSerializers } = require('@platformatic/kafka')

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

const run = { admin }[command]
run().then(
  () => console.log(`${command}: ok`),
  (error) => {
    console.error(error)
    process.exit(1)
  }
)
