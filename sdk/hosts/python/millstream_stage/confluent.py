"""Partitioner and filter for confluent-kafka."""

import time
from itertools import groupby

from .batch import Batch
from .errors import StageError

METADATA_SECONDS = 60


class StagedProducer:
    """Produces with partitions that a plug-in chooses. confluent-kafka has no partitioners in Python, but takes a
    partition with each record.

    `producer` is a `confluent_kafka.Producer`, whose other methods are used as ever.
    """

    def __init__(self, producer, stage):
        self.producer, self.stage = producer, stage
        self._topics = {}

    def produce(self, topic, value=None, key=None, *, timestamp=0, headers=None, **options):
        """Produces a record, like `Producer.produce` but without its argument `partition`."""
        record = {"value": value, "key": key, "timestamp": timestamp, "headers": headers}
        self.produce_all(topic, [record], **options)

    def produce_all(self, topic, records, **options):
        """Produces records, whose partitions the plug-in chooses by one call. Each is a dict of the arguments of
        `produce`; `options` are added to all."""
        batch = Batch(
            keys=[_bytes(record.get("key")) for record in records],
            values=[_bytes(record.get("value")) for record in records],
            timestamps=[record.get("timestamp") or int(time.time() * 1000) for record in records],
            headers=[_pairs(record.get("headers")) for record in records],
        )
        count, unavailable = self._partitions(topic)
        for record, partition in zip(records, self.stage.partition(topic, count, batch, unavailable)):
            self.producer.produce(topic, partition=partition, **{**record, **options})

    def _partitions(self, topic):
        """Returns how many partitions a topic has, and those without a leader, as of a minute ago at most."""
        known = self._topics.get(topic)
        if known is None or time.monotonic() - known[0] > METADATA_SECONDS:
            found = self.producer.list_topics(topic, timeout=30).topics[topic]
            if found.error is not None:
                raise StageError(f"the partitions of {topic} are not known: {found.error}")
            unavailable = [number for number, partition in found.partitions.items() if partition.leader < 0]
            known = self._topics[topic] = time.monotonic(), len(found.partitions), unavailable
        return known[1:]


def kept(stage, messages):
    """Returns the messages of `Consumer.consume` that the filter keeps. Messages with an error stay."""
    result = []
    for (topic, is_error), group in groupby(messages, key=lambda one: (one.topic(), one.error() is not None)):
        group = list(group)
        if is_error:
            result += group
            continue
        batch = Batch(
            keys=[message.key() for message in group],
            values=[message.value() for message in group],
            timestamps=[message.timestamp()[1] for message in group],
            headers=[message.headers() for message in group],
        )
        result += [message for message, is_kept in zip(group, stage.keep(topic, batch)) if is_kept]
    return result


def _bytes(text):
    return text.encode() if isinstance(text, str) else text


def _pairs(headers):
    pairs = headers.items() if isinstance(headers, dict) else headers or ()
    return [(name, _bytes(value)) for name, value in pairs]
