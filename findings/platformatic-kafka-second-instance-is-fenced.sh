#!/usr/bin/env bash
# Seen with @platformatic/kafka 2.12.1 on Node.js 24.9.0 and Apache Kafka 4.2.0, on 2026-11-29. It needs java 17, mvn and npm.
#
# Guess: a second producer with the same transactionalId fences the first one, as KIP-98 says and every other client does. A program
# that restarts after a crash can go on at once.
# Behaviour: with its defaults the client names producer id 0 and epoch 0 as its own in InitProducerId, instead of none (-1 and -1).
# The broker compares them with those of the first producer (KIP-360). The second producer is rejected, and the first one goes on. On a
# new cluster the first producer has id 0, so a trial with one transactionalId looks right.
#
# Output seen:
#   another producer: committed
#   first producer: committed
#   second producer with the defaults: PRODUCER_FENCED
#   first producer after that: committed
#   second producer with producerId -1 and producerEpoch -1: committed
#   first producer after that: CONCURRENT_TRANSACTIONS PRODUCER_FENCED
#
# It matters: set `producerId: -1n, producerEpoch: -1` beside `transactionalId`.
set -euo pipefail

folder=$(mktemp -d)
broker=
finish() {
  [ -z "$broker" ] || kill "$broker" 2>/dev/null || true
  rm -rf "$folder"
}
trap finish EXIT
cd "$folder"
cat > pom.xml <<'POM'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>finding</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>4.2.0</version>
    </dependency>
  </dependencies>
</project>
POM
mvn -q -B dependency:build-classpath -Dmdep.outputFile=classpath.txt > mvn.log
npm install --silent --no-fund --no-audit @platformatic/kafka@2.12.1 node@24.9.0 > npm.log 2>&1
ports=$(node_modules/.bin/node -e '
const net = require("net")
const servers = [0, 0].map(() => net.createServer().listen(0, "127.0.0.1"))
setTimeout(() => { console.log(servers.map((one) => one.address().port).join(" ")); process.exit() }, 100)')
read -r port controller <<< "$ports"
cat > server.properties <<CONFIG
process.roles=broker,controller
node.id=0
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:$controller
log.dirs=$folder/data
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
CONFIG
classpath=$(cat classpath.txt)
java -cp "$classpath" kafka.tools.StorageTool format --standalone -t 4L6g3nShT-eMCtK--X86sw -c server.properties > format.log 2>&1
java -Xmx512m -cp "$classpath" kafka.Kafka server.properties > broker.log 2>&1 &
broker=$!
cat > run.mjs <<'RUN'
import { Admin, Producer, stringSerializers } from '@platformatic/kafka'

const options = { clientId: 'finding', bootstrapBrokers: [process.argv[2]], retries: 20, retryDelay: 250 }
const topic = 'finding'
const open = (more) =>
  new Producer({ ...options, idempotent: true, transactionalId: 'finding', serializers: stringSerializers, ...more })
const codes = (error) => [error.apiId ?? error.code, ...(error.errors ?? []).flatMap(codes)].filter(Boolean)
async function commit(producer) {
  try {
    const transaction = await producer.beginTransaction()
    await transaction.send({ messages: [{ topic, partition: 0, value: 'x' }] })
    await transaction.commit()
    return 'committed'
  } catch (error) {
    return [...new Set(codes(error))].filter((code) => code.toUpperCase() === code && !code.startsWith('PLT')).join(' ')
  }
}
const admin = new Admin(options)
for (;;) {
  try {
    await admin.createTopics({ topics: [topic], partitions: 1, replicas: 1 })
    break
  } catch {
    await new Promise((resolve) => setTimeout(resolve, 500))
  }
}
// The first id of a new cluster is 0, by which the second producer would be taken for the first one.
console.log('another producer:', await commit(open({ transactionalId: 'other' })))
const first = open({})
console.log('first producer:', await commit(first))
console.log('second producer with the defaults:', await commit(open({})))
console.log('first producer after that:', await commit(first))
const named = open({ producerId: -1n, producerEpoch: -1 })
console.log('second producer with producerId -1 and producerEpoch -1:', await commit(named))
console.log('first producer after that:', await commit(first))
process.exit()
RUN
timeout 120 node_modules/.bin/node run.mjs "127.0.0.1:$port" | tee output

grep -qx 'second producer with the defaults: PRODUCER_FENCED' output
[ "$(grep -cx 'first producer.*: committed' output)" = 2 ]
grep -qx 'second producer with producerId -1 and producerEpoch -1: committed' output
tail -n 1 output | grep -q PRODUCER_FENCED
echo "as seen before"
