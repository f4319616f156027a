"""kafka-python, which speaks the newest protocol versions."""

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.errors import KafkaError

import common


def create(bootstrap, topic):
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([NewTopic(topic, common.PARTITIONS, 1)])
    admin.close()


def round_trip(bootstrap):
    for codec in common.CODECS:
        topic = f"kafka-python-{codec}"
        create(bootstrap, topic)
        compression = None if codec == "none" else codec
        producer = KafkaProducer(bootstrap_servers=bootstrap, compression_type=compression, acks="all", linger_ms=5)
        sent = [
            producer.send(topic, key=key, value=value, headers=headers) for key, value, headers in common.records(codec)
        ]
        for future in sent:
            future.get(common.PATIENCE_S)
        producer.close()
        consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
        partitions = [TopicPartition(topic, partition) for partition in range(common.PARTITIONS)]
        consumer.assign(partitions)
        total = sum(consumer.end_offsets(partitions).values())
        got = []
        while len(got) < total:
            polled = consumer.poll(timeout_ms=common.PATIENCE_S * 1000)
            assert polled, f"{codec}: no record within {common.PATIENCE_S} s"
            got += [(m.partition, m.offset, m.key, m.value, m.headers) for batch in polled.values() for m in batch]
        consumer.close()
        common.check(codec, got)


class Member:
    def __init__(self, bootstrap, topic):
        self.consumer = KafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=f"group-of-{topic}",
            auto_offset_reset="earliest",
            session_timeout_ms=10000,
            heartbeat_interval_ms=500,
        )
        # kafka-python 3.0.12 joins before it knows the topic's partitions, and joins again when it does. If a poll
        # times out within that second join, it stays out of the group for good, with any broker. So it gets them first.
        assert self.consumer.partitions_for_topic(topic)
        self.consumer.subscribe([topic])

    def poll(self):
        polled = self.consumer.poll(timeout_ms=100)
        return [message.value for batch in polled.values() for message in batch]

    def owned(self):
        return {partition.partition for partition in self.consumer.assignment()}

    def close(self):
        self.consumer.close()


def group(bootstrap):
    topic = "kafka-python-group"
    create(bootstrap, topic)
    producer = KafkaProducer(bootstrap_servers=bootstrap)

    def produce(values):
        sent = [
            producer.send(topic, value=value, partition=i % common.PARTITIONS) for i, value in enumerate(values)
        ]
        for future in sent:
            future.get(common.PATIENCE_S)

    common.group(lambda: Member(bootstrap, topic), produce)
    producer.close()


def view_group(bootstrap):
    def create_topic(name, configs):
        admin = KafkaAdminClient(bootstrap_servers=bootstrap)
        admin.create_topics([NewTopic(name, -1 if configs else common.PARTITIONS, -1, topic_configs=configs)])
        admin.close()

    def produce(topic, values):
        producer = KafkaProducer(bootstrap_servers=bootstrap)
        sent = [producer.send(topic, value=value, partition=partition) for partition, value in values]
        for future in sent:
            future.get(common.PATIENCE_S)
        producer.close()

    common.view_group(lambda topic: Member(bootstrap, topic), create_topic, produce)


def view_gap(bootstrap):
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        fetch_min_bytes=common.MIN_BYTES,
        fetch_max_wait_ms=common.MAX_WAIT_MS,
    )
    partition = TopicPartition("view", 0)
    consumer.assign([partition])

    def poll(seconds):
        polled = consumer.poll(timeout_ms=1000 * seconds)
        return [(message.offset, message.value) for batch in polled.values() for message in batch]

    common.check_gap(poll, lambda: consumer.position(partition))
    consumer.close()


def configure(bootstrap, topic, options):
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=options)])
    admin.close()


def send_as_one_batch(bootstrap, topic, values):
    """Returns the result of each value as text; None for a success. A producer accepts nothing after a rejected batch."""
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=common.PATIENCE_S * 1000)
    sent = [producer.send(topic, value=value, partition=0) for value in values]
    producer.flush()
    outcomes = []
    for future in sent:
        try:
            future.get(common.PATIENCE_S)
            outcomes.append(None)
        except KafkaError as error:
            outcomes.append(f"{type(error).__name__}: {error}")
    producer.close()
    return outcomes


def refusals(bootstrap):
    """Checks that records rejected by a topic's filter have the reason, and the rest of their batch another error."""
    topic = "kafka-python-refusals"
    create(bootstrap, topic)
    configure(bootstrap, topic, {"stage.admit": common.NOT_NEGATIVE})
    errors = send_as_one_batch(bootstrap, topic, common.MIXED)
    common.check_refusals(errors)
    outcomes = send_as_one_batch(bootstrap, topic, [common.MIXED[0]])
    assert outcomes == [None], outcomes

    # Skipped records are acknowledged. Consumers move past them, even past whole skipped batches.
    configure(bootstrap, topic, {"stage.admit": common.NOT_NEGATIVE, "stage.admit.failure.policy": "skip"})
    wanted = [common.MIXED[0]]
    for round in range(10):
        values = common.MIXED if round % 5 == 4 else [b"no json"] * 3
        assert send_as_one_batch(bootstrap, topic, values) == [None] * len(values)
        wanted += values[0:3:2] if round % 5 == 4 else []
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])
    end, got = consumer.end_offsets([partition])[partition], []
    while consumer.position(partition) < end:
        polled = consumer.poll(timeout_ms=1000)
        got += [message.value for batch in polled.values() for message in batch]
    consumer.close()
    assert got == wanted, (got, wanted)


def deletions(bootstrap):
    """Deletes records below an offset, offsets and a group, and checks the lists without security, quotas and
    reassignments."""
    topic = "kafka-python-deletions"
    create(bootstrap, topic)
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all")
    for future in [producer.send(topic, b"value", partition=0) for _ in range(10)]:
        future.get(common.PATIENCE_S)
    producer.close()
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    partition, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    print("records", admin.delete_records({partition: 4}))
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id="deleted", enable_auto_commit=False)
    consumer.assign([partition, other])
    assert consumer.beginning_offsets([partition]) == {partition: 4}
    consumer.commit({partition: OffsetAndMetadata(7, "", -1), other: OffsetAndMetadata(0, "", -1)})
    consumer.close()
    print("offsets", admin.delete_group_offsets("deleted", [partition]))
    listed = admin.list_group_offsets({"deleted": None})
    print("left", listed)
    print("groups", admin.delete_groups(["deleted"]))
    assert not admin.list_groups(), admin.list_groups()
    print("folders", admin.describe_log_dirs())
    print("producers", admin.describe_producers([partition]))
    print("topics", admin.describe_topic_partitions([topic], response_partition_limit=2))
    assert not admin.list_partition_reassignments()
    print("resources", admin.list_config_resources())
    assert not admin.describe_user_scram_credentials()
    admin.close()


def transactions(bootstrap):
    """Commits and aborts a transaction, one with offsets, and fences a producer by its successor."""
    topic = "kafka-python-transactions"
    create(bootstrap, topic)
    partition = TopicPartition(topic, 0)

    def begun():
        begun = KafkaProducer(bootstrap_servers=bootstrap, transactional_id="kafka-python")
        begun.init_transactions()
        begun.begin_transaction()
        return begun

    def send(producer, value):
        producer.send(topic, value, partition=0).get(common.PATIENCE_S)

    first = begun()
    send(first, b"committed")
    first.commit_transaction()
    first.begin_transaction()
    send(first, b"aborted")
    first.abort_transaction()
    reader = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id="kafka-python-transactions",
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    reader.assign([partition])
    first.begin_transaction()
    send(first, b"with offsets")
    first.send_offsets_to_transaction({partition: OffsetAndMetadata(1, "", -1)}, reader.group_metadata())
    first.commit_transaction()
    assert reader.committed(partition) == 1, reader.committed(partition)
    first.begin_transaction()
    send(first, b"of the zombie")
    second = begun()
    try:
        first.commit_transaction()
        raise AssertionError("the zombie has committed")
    except KafkaError as error:
        print("the zombie:", repr(error))
    send(second, b"of its successor")
    second.commit_transaction()
    reader.seek(partition, 0)
    values = []
    while not values or values[-1] != b"of its successor":
        polled = reader.poll(timeout_ms=common.PATIENCE_S * 1000)
        assert polled, f"no record within {common.PATIENCE_S} s after {values}"
        values += [message.value for batch in polled.values() for message in batch]
    assert values == [b"committed", b"with offsets", b"of its successor"], values
    reader.close()
    second.close()


common.main({"view-group": view_group, "view-gap": view_gap, "round-trip": round_trip, "group": group, "refusals": refusals,
             "deletions": deletions, "transactions": transactions})
