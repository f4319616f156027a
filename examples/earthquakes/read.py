"""Prints the values of a topic, with the Python client that is installed."""

import sys

bootstrap, topic = sys.argv[1:]
try:
    from kafka import KafkaConsumer, TopicPartition
except ImportError:
    try:
        from confluent_kafka import Consumer, TopicPartition
    except ImportError:
        sys.exit(3)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused"})
    partitions = [TopicPartition(topic, p, 0) for p in consumer.list_topics(topic).topics[topic].partitions]
    left = sum(consumer.get_watermark_offsets(partition)[1] for partition in partitions)
    consumer.assign(partitions)
    for _ in range(left):
        print(consumer.poll(60).value().decode())
else:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic)]
    left = sum(consumer.end_offsets(partitions).values())
    consumer.assign(partitions)
    for _ in range(left):
        print(next(consumer).value.decode())
