"""Partitioner and filter for kafka-python."""

from kafka.partitioner import Partitioner as KafkaPartitioner

from .batch import Batch


class StagePartitioner(KafkaPartitioner):
    """Lets a plug-in choose partitions: `KafkaProducer(partitioner=StagePartitioner(Partitioner("murmur2.core.wasm")))`.

    kafka-python shows keys and values to a partitioner, one record a call. Its timestamp is the time of the call.
    """

    def __init__(self, stage):
        stage.only_reads(("timestamps", "keys", "values"), "kafka-python")
        self.stage = stage

    def partition(self, topic, key, serialized_key, value, serialized_value, cluster):
        """Returns the partition of a record."""
        all_partitions = sorted(cluster.partitions_for_topic(topic))
        available = cluster.available_partitions_for_topic(topic)
        unavailable = [at for at, number in enumerate(all_partitions) if number not in available]
        batch = Batch(keys=[serialized_key], values=[serialized_value])
        return all_partitions[self.stage.partition(topic, len(all_partitions), batch, unavailable)[0]]


def kept(stage, polled):
    """Returns what `poll` of a consumer returned, without the records that the filter drops.

    Keys and values have to be bytes: a consumer without deserializers has them.
    """
    filtered = {}
    for partition, records in polled.items():
        batch = Batch(
            keys=[record.key for record in records],
            values=[record.value for record in records],
            timestamps=[record.timestamp for record in records],
            headers=[record.headers for record in records],
        )
        keep = stage.keep(partition.topic, batch)
        filtered[partition] = [record for record, is_kept in zip(records, keep) if is_kept]
    return filtered
