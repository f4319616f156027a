"""Backs up the topic of plug-ins from one broker and restores it into another, only with confluent-kafka.

    plugins_backup.py FROM TO [--compacted]

With --compacted only the last record of each key is kept, as after compaction."""

import sys

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import common

TOPIC = "__millstream_plugins"


def read(bootstrap):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "backup", "enable.auto.commit": False})
    partition = TopicPartition(TOPIC, 0, 0)
    _, end = consumer.get_watermark_offsets(partition, timeout=common.PATIENCE_S)
    consumer.assign([partition])
    records = []
    while len(records) < end:
        message = consumer.poll(common.PATIENCE_S)
        assert message is not None and not message.error(), message and message.error()
        records.append((message.key(), message.value()))
    consumer.close()
    return records


def restore(bootstrap, records):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    topic = NewTopic(TOPIC, 1, 1, config={"cleanup.policy": "compact"})
    admin.create_topics([topic])[TOPIC].result(common.PATIENCE_S)
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "compression.type": "zstd"})
    errors = []
    for key, value in records:
        producer.produce(TOPIC, partition=0, key=key, value=value, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(common.PATIENCE_S) == 0
    assert not any(errors), errors


def main(source, target, *options):
    records = read(source)
    if "--compacted" in options:
        last = {key: offset for offset, (key, _) in enumerate(records)}
        records = [record for offset, record in enumerate(records) if last[record[0]] == offset and record[1] is not None]
    restore(target, records)
    print(f"{len(records)} records")


main(*sys.argv[1:])
