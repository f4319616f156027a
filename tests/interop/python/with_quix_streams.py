"""Counts words with Quix Streams and exactly-once processing.

Every update of a count is one record, so with exactly once each word has the counts 1, 2, 3 and so on, each of them
once. `prepare` writes the words, `count` runs the job, which ends abruptly after a number of updates if one is given,
and otherwise once every update was read and checked.
"""

import os
import sys
import threading
import time

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from quixstreams import Application

WORDS = 20
EACH = 150
TOPICS = ["words", "counts"]


def prepare(bootstrap):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic(name, 3, 1) for name in TOPICS]).values():
        future.result(60)
    producer = Producer({"bootstrap.servers": bootstrap})
    for _ in range(EACH):
        for word in range(WORDS):
            producer.produce("words", key=f"word {word}", value=b"1")
    assert producer.flush(60) == 0


def count(bootstrap, folder, updates):
    app = Application(
        broker_address=bootstrap,
        consumer_group="word-counts",
        processing_guarantee="exactly-once",
        commit_interval=0.05,
        commit_every=50,
        state_dir=folder,
        auto_offset_reset="earliest",
        loglevel="ERROR",
        # What a process leaves behind that ends abruptly: a member of the group, and an open transaction.
        consumer_extra_config={"session.timeout.ms": 6000, "heartbeat.interval.ms": 500},
        producer_extra_config={"transaction.timeout.ms": 10000},
    )
    words = app.topic("words", key_deserializer="str", value_deserializer="str")
    counts = app.topic("counts", key_serializer="str", value_serializer="json")
    counted = 0

    def count_one(value, state):
        nonlocal counted
        counted += 1
        if counted == updates:
            os._exit(9)
        number = state.get("count", 0) + 1
        state.set("count", number)
        return number

    app.dataframe(words).apply(count_one, stateful=True).to_topic(counts)
    failure = []

    def check_and_stop():
        try:
            check(bootstrap)
        except BaseException as error:
            failure.append(error)
        app.stop()

    if not updates:
        threading.Thread(target=check_and_stop, daemon=True).start()
    app.run()
    if failure:
        raise failure[0]


def check(bootstrap):
    """Reads every committed update, and checks that each is the next one of its word."""
    reader = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": "checker",
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    })
    reader.assign([TopicPartition("counts", partition, 0) for partition in range(3)])
    end = time.monotonic() + 120
    counts = {}
    read = 0
    while read < WORDS * EACH:
        assert time.monotonic() < end, f"{read} updates of {WORDS * EACH}"
        record = reader.poll(0.1)
        if record is None:
            continue
        assert record.error() is None, record.error()
        before = counts.get(record.key(), 0)
        number = int(record.value())
        assert number == before + 1, f"{record.key()}: {number} after {before}"
        counts[record.key()] = number
        read += 1
    reader.close()


command, bootstrap, *more = sys.argv[1:]
if command == "prepare":
    prepare(bootstrap)
else:
    count(bootstrap, more[0], int(more[1]) if len(more) > 1 else None)
print(f"{command}: ok")
