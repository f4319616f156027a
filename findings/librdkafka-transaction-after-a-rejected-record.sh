#!/usr/bin/env bash
# Seen with confluent-kafka 2.16.1 (librdkafka 2.16.0) and Apache Kafka 4.2.0, on 2026-11-29. It needs java 17, mvn and python3 with venv.
#
# Guess: a record that the broker rejects (here one without a key, in a compacted topic) costs its transaction and nothing else.
# The program aborts that, begins the next one, and goes on, as with the Java client.
# Behaviour: the broker has not appended the rejected batch, but librdkafka counts its sequence as used. The first batch of the
# next transaction is rejected with OUT_OF_ORDER_SEQUENCE_NUMBER, though nothing is wrong with it. Only the abort of that one raises
# the epoch and begins the sequences again.
#
# Output seen:
#   a record without a key: INVALID_RECORD, then aborted
#   a good record: OUT_OF_ORDER_SEQUENCE_NUMBER, then aborted
#   the same record again: committed
#
# It matters: after INVALID_RECORD, or another error of a record, abort and send the next transaction twice, or make a new producer.
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
python3 -m venv python
python/bin/pip install -q confluent-kafka==2.16.1
ports=$(python3 -c '
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(one.getsockname()[1] for one in sockets))')
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
cat > run.py <<'RUN'
import sys
import time

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

bootstrap, topic = sys.argv[1], "finding"
quiet = {"bootstrap.servers": bootstrap, "log_level": 0}
admin = AdminClient(quiet)
while True:
    try:
        compacted = NewTopic(topic, 1, 1, config={"cleanup.policy": "compact"})
        admin.create_topics([compacted])[topic].result(30)
        break
    except KafkaException:
        time.sleep(0.5)
producer = Producer({**quiet, "transactional.id": "finding"})
producer.init_transactions(60)


def transact(key):
    producer.begin_transaction()
    producer.produce(topic, b"value", key)
    try:
        producer.commit_transaction(60)
        return "committed"
    except KafkaException as error:
        producer.abort_transaction(60)
        return f"{error.args[0].name()}, then aborted"


print("a record without a key:", transact(None))
print("a good record:", transact(b"key"))
print("the same record again:", transact(b"key"))
RUN
timeout 120 python/bin/python run.py "127.0.0.1:$port" | tee output

grep -qx 'a record without a key: INVALID_RECORD, then aborted' output
grep -qx 'a good record: OUT_OF_ORDER_SEQUENCE_NUMBER, then aborted' output
grep -qx 'the same record again: committed' output
echo "as seen before"
