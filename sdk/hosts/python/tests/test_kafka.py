"""Both clients with the partitioner and the filter. `MILLSTREAM_BOOTSTRAP` names a broker with the topics `kafka-python`
and `confluent`, of six partitions each, and a view of each that shows what contains `error`."""

import os
import unittest
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition as ConfluentPartition
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.partitioner.default import murmur2

from millstream_stage import Filter, Partitioner, confluent, kafka_python

PLUGINS = Path(os.environ["MILLSTREAM_PLUGINS"])
BOOTSTRAP = os.environ["MILLSTREAM_BOOTSTRAP"]
PARTITIONS = 6
RECORDS = 1000


def records():
    """Returns keys and values. Every tenth value contains the text."""
    return [(f"key-{row}".encode(), f"{row} {'error' if row % 10 == 3 else 'fine'}".encode()) for row in range(RECORDS)]


class Clients(unittest.TestCase):
    def setUp(self):
        self.partitioner = Partitioner(PLUGINS / "murmur2.core.wasm")
        self.filter = Filter(PLUGINS / "contains.core.wasm", {"text": "error"})

    def check(self, kept, view):
        """Compares what the filter kept with the view of the broker, and the partitions with Kafka's."""
        self.assertEqual(sorted(kept), sorted(view))
        self.assertEqual(len(kept), RECORDS // 10)
        for partition, key, value in kept:
            self.assertEqual(partition, (murmur2(key) & 0x7FFFFFFF) % PARTITIONS)
            self.assertIn(b"error", value)

    def test_kafka_python(self):
        producer = KafkaProducer(
            bootstrap_servers=BOOTSTRAP, partitioner=kafka_python.StagePartitioner(self.partitioner)
        )
        sent = [producer.send("kafka-python", key=key, value=value) for key, value in records()]
        for one in sent:
            one.get(timeout=30)
        producer.close()

        def read(topic, ends):
            consumer = KafkaConsumer(bootstrap_servers=BOOTSTRAP, auto_offset_reset="earliest")
            partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
            consumer.assign(partitions)
            consumer.seek_to_beginning()
            kept = []
            while any(consumer.position(partition) < ends[partition.partition] for partition in partitions):
                polled = consumer.poll(timeout_ms=1000)
                if topic == "kafka-python":
                    polled = kafka_python.kept(self.filter, polled)
                kept += [(one.partition, one.key, one.value) for many in polled.values() for one in many]
            consumer.close()
            return kept

        consumer = KafkaConsumer(bootstrap_servers=BOOTSTRAP)
        ends = consumer.end_offsets([TopicPartition("kafka-python", number) for number in range(PARTITIONS)])
        consumer.close()
        ends = {partition.partition: offset for partition, offset in ends.items()}
        self.check(read("kafka-python", ends), read("kafka-python-view", ends))

    def test_confluent_kafka(self):
        producer = Producer({"bootstrap.servers": BOOTSTRAP})
        staged = confluent.StagedProducer(producer, self.partitioner)
        all_records = [{"key": key, "value": value} for key, value in records()]
        staged.produce_all("confluent", all_records[:-1])
        staged.produce("confluent", **all_records[-1])
        self.assertEqual(producer.flush(30), 0)

        def read(topic, count):
            consumer = Consumer(
                {"bootstrap.servers": BOOTSTRAP, "group.id": "unused", "auto.offset.reset": "earliest"}
            )
            consumer.assign([ConfluentPartition(topic, number, 0) for number in range(PARTITIONS)])
            kept = []
            while len(kept) < count:
                messages = consumer.consume(500, timeout=1)
                if topic == "confluent":
                    messages = confluent.kept(self.filter, messages)
                kept += [(one.partition(), one.key(), one.value()) for one in messages]
            consumer.close()
            return kept

        self.check(read("confluent", RECORDS // 10), read("confluent-view", RECORDS // 10))


if __name__ == "__main__":
    unittest.main()
