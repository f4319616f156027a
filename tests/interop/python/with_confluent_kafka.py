"""confluent-kafka, the newest librdkafka."""

import collections
import json
import os
import sys
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic

import common


def create(bootstrap, topic):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, common.PARTITIONS, 1)])[topic].result(common.PATIENCE_S)


def producer(bootstrap, **config):
    return Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, **config})


def deliver(sender, topic, records):
    errors, delivered = [], []

    def done(error, message):
        (errors if error else delivered).append(error or message.offset())

    for partition, key, value, headers in records:
        place = {} if partition is None else {"partition": partition}
        sender.produce(topic, value=value, key=key, headers=headers, on_delivery=done, **place)
    assert sender.flush(common.PATIENCE_S) == 0
    assert not errors, errors
    return delivered


def round_trip(bootstrap):
    for codec in common.CODECS:
        topic = f"confluent-{codec}"
        create(bootstrap, topic)
        sender = producer(bootstrap, **{"compression.type": codec, "enable.idempotence": True, "partitioner": "murmur2"})
        deliver(sender, topic, ((None, *record) for record in common.records(codec)))
        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "enable.partition.eof": False})
        partitions = [TopicPartition(topic, partition, 0) for partition in range(common.PARTITIONS)]
        ends = {p.partition: consumer.get_watermark_offsets(p, timeout=common.PATIENCE_S)[1] for p in partitions}
        consumer.assign(partitions)
        got = []
        while len(got) < sum(ends.values()):
            message = consumer.poll(common.PATIENCE_S)
            assert message is not None, f"{codec}: no record within {common.PATIENCE_S} s"
            assert not message.error(), message.error()
            got.append((message.partition(), message.offset(), message.key(), message.value(), message.headers()))
        consumer.close()
        common.check(codec, got)


class Member:
    def __init__(self, bootstrap, topic):
        self.consumer = Consumer({
            "bootstrap.servers": bootstrap,
            "group.id": f"group-of-{topic}",
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 10000,
            "heartbeat.interval.ms": 500,
        })
        self.consumer.subscribe([topic])

    def poll(self):
        messages = self.consumer.consume(100, 0.1)
        for message in messages:
            assert not message.error(), message.error()
        return [message.value() for message in messages]

    def owned(self):
        return {partition.partition for partition in self.consumer.assignment()}

    def close(self):
        self.consumer.close()


def group(bootstrap):
    topic = "confluent-group"
    create(bootstrap, topic)
    sender = producer(bootstrap)

    def produce(values):
        deliver(sender, topic, ((i % common.PARTITIONS, None, value, []) for i, value in enumerate(values)))

    common.group(lambda: Member(bootstrap, topic), produce)


def admin(bootstrap):
    """Checks that topic configs are in force at once, and checks metadata."""
    topic = "confluent-admin"
    create(bootstrap, topic)
    client = AdminClient({"bootstrap.servers": bootstrap})
    assert len(client.list_topics(topic).topics[topic].partitions) == common.PARTITIONS
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, set_config={"max.message.bytes": "2000"})
    client.alter_configs([resource])[resource].result(common.PATIENCE_S)
    config = client.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)])
    value = next(iter(config.values())).result(common.PATIENCE_S)["max.message.bytes"].value
    assert value == "2000", value
    refused = []
    sender = producer(bootstrap)
    sender.produce(topic, value=b"x" * 5000, on_delivery=lambda error, _: refused.append(error))
    sender.flush(common.PATIENCE_S)
    assert refused[0] is not None and refused[0].name() == "MSG_SIZE_TOO_LARGE", refused
    client.delete_topics([topic])[topic].result(common.PATIENCE_S)
    assert topic not in client.list_topics().topics


def transactions(bootstrap):
    """Commits and aborts a transaction, one with offsets, and fences a producer by its successor."""
    topic = "confluent-transactions"
    create(bootstrap, topic)

    def begun():
        begun = Producer({"bootstrap.servers": bootstrap, "transactional.id": "confluent"})
        begun.init_transactions(common.PATIENCE_S)
        begun.begin_transaction()
        return begun

    first = begun()
    first.produce(topic, partition=0, value=b"committed")
    first.commit_transaction(common.PATIENCE_S)
    first.begin_transaction()
    first.produce(topic, partition=0, value=b"aborted")
    first.flush(common.PATIENCE_S)
    first.abort_transaction(common.PATIENCE_S)
    settings = {"bootstrap.servers": bootstrap, "group.id": "confluent-transactions", "auto.offset.reset": "earliest"}
    reader = Consumer(settings | {"enable.auto.commit": False})
    first.begin_transaction()
    first.produce(topic, partition=0, value=b"with offsets")
    offsets = [TopicPartition(topic, 0, 1)]
    first.send_offsets_to_transaction(offsets, reader.consumer_group_metadata(), common.PATIENCE_S)
    first.commit_transaction(common.PATIENCE_S)
    committed = reader.committed([TopicPartition(topic, 0)], common.PATIENCE_S)
    assert committed[0].offset == 1, committed
    first.begin_transaction()
    first.produce(topic, partition=0, value=b"of the zombie")
    first.flush(common.PATIENCE_S)
    second = begun()
    try:
        first.commit_transaction(common.PATIENCE_S)
        raise AssertionError("the zombie has committed")
    except KafkaException as error:
        assert error.args[0].fatal(), error
    second.produce(topic, partition=0, value=b"of its successor")
    second.commit_transaction(common.PATIENCE_S)
    reader.assign([TopicPartition(topic, 0, 0)])
    values = []
    while not values or values[-1] != b"of its successor":
        message = reader.poll(common.PATIENCE_S)
        assert message is not None and message.error() is None, message
        values.append(message.value())
    assert values == [b"committed", b"with offsets", b"of its successor"], values
    reader.close()

    compacted = "confluent-compacted-transactions"
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(compacted, 1, 1, config={"cleanup.policy": "compact"})])[compacted].result(common.PATIENCE_S)
    for _ in range(2):
        second.begin_transaction()
        abort_rejected(second, compacted, (None, b"without a key"), (b"key", b"value"))
    assert read_to_end(bootstrap, compacted, "read_committed") == [b"value"] * 2


def deletions(bootstrap):
    """Deletes records below an offset, a group and its offsets, and checks what the admin client shows."""
    topic = "confluent-deletions"
    create(bootstrap, topic)
    deliver(producer(bootstrap), topic, [(0, None, b"value", [])] * 10)
    client = AdminClient({"bootstrap.servers": bootstrap})
    partition = TopicPartition(topic, 0, 4)
    deleted = client.delete_records([partition])
    assert deleted[partition].result(common.PATIENCE_S).low_watermark == 4
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "deleted", "auto.offset.reset": "earliest"})
    assert consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=common.PATIENCE_S) == (4, 10)
    consumer.commit(offsets=[TopicPartition(topic, 0, 7)], asynchronous=False)
    consumer.close()
    client.delete_consumer_groups(["deleted"])["deleted"].result(common.PATIENCE_S)
    try:
        client.delete_consumer_groups(["deleted"])["deleted"].result(common.PATIENCE_S)
        raise AssertionError("a group was deleted twice")
    except KafkaException as error:
        assert error.args[0].name() == "GROUP_ID_NOT_FOUND", error
    assert client.describe_user_scram_credentials().result(common.PATIENCE_S) == {}


def consumer_protocol(bootstrap):
    """Checks that the consumer reports at once that the newer group protocol is not served."""
    topic = "confluent-protocol"
    create(bootstrap, topic)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "newer", "group.protocol": "consumer"})
    consumer.subscribe([topic])
    end = time.monotonic() + common.PATIENCE_S
    while True:
        assert time.monotonic() < end, "the consumer waits for ever"
        message = consumer.poll(1)
        if message is not None:
            error = message.error()
            assert error is not None and error.name() in ("UNSUPPORTED_VERSION", "_FATAL"), error
            break
    consumer.close()


def view_group(bootstrap):
    def create_topic(name, configs):
        client = AdminClient({"bootstrap.servers": bootstrap})
        count = -1 if configs else common.PARTITIONS
        client.create_topics([NewTopic(name, count, config=configs)])[name].result(common.PATIENCE_S)

    def produce(topic, values):
        deliver(producer(bootstrap), topic, ((partition, None, value, []) for partition, value in values))

    common.view_group(lambda topic: Member(bootstrap, topic), create_topic, produce)
    # A write to the view fails at once with the broker's error code.
    refused = []
    sender = producer(bootstrap)
    sender.produce("view", value=b"x", on_delivery=lambda error, _: refused.append(error))
    sender.flush(common.PATIENCE_S)
    assert refused[0] is not None and refused[0].name() == "TOPIC_EXCEPTION", refused


def view_gap(bootstrap):
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": "unused",
        "fetch.min.bytes": common.MIN_BYTES,
        "fetch.wait.max.ms": common.MAX_WAIT_MS,
        "enable.partition.eof": True,
    })
    partition = TopicPartition("view", 0, 0)
    consumer.assign([partition])
    ended = []

    def poll(seconds):
        found = []
        for message in consumer.consume(100, seconds):
            if message.error():
                assert message.error().name() == "_PARTITION_EOF", message.error()
                ended.append(message.offset())
            else:
                found.append((message.offset(), message.value()))
        return found

    # librdkafka's position is that of its last record. It reports the end of the partition by an event.
    common.check_gap(poll, lambda: ended[-1] if ended else -1)
    consumer.close()


def send_in_transaction(sender, topic, *values, key=None):
    """Sends values, most likely as one batch, and returns the codes of the errors."""
    errors = []
    for value in values:
        done = lambda error, _: error and errors.append(error.name())
        sender.produce(topic, key=key, value=value, partition=0, on_delivery=done)
    assert sender.flush(common.PATIENCE_S) == 0
    return errors


def abort_rejected(sender, topic, bad, good):
    """Ends the open transaction after a rejected record: it can only be aborted. librdkafka does not use the sequence of
    the rejected record again, so the transaction that follows is rejected too. Its abort raises the epoch, and the next
    one is committed. It is the same on Apache Kafka."""
    for record, code in [(bad, "INVALID_RECORD"), (good, "OUT_OF_ORDER_SEQUENCE_NUMBER")]:
        assert len(send_in_transaction(sender, topic, record[1], key=record[0])) == 1
        try:
            sender.commit_transaction(common.PATIENCE_S)
            raise AssertionError("the transaction is committed")
        except KafkaException as error:
            print("the commit:", error)
            assert error.args[0].txn_requires_abort() and error.args[0].name() == code, error
        sender.abort_transaction(common.PATIENCE_S)
        sender.begin_transaction()
    assert send_in_transaction(sender, topic, good[1], key=good[0]) == []
    sender.commit_transaction(common.PATIENCE_S)


def read_to_end(bootstrap, topic, isolation):
    """Returns the values of a topic of one partition up to its end."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "isolation.level": isolation,
                         "enable.auto.commit": False, "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, 0, 0)])
    values = []
    while (message := consumer.poll(common.PATIENCE_S)) is not None and not message.error():
        values.append(message.value())
    assert message is not None and message.error().name() == "_PARTITION_EOF", message
    consumer.close()
    return values


def staged_transactions(bootstrap):
    """Commits and aborts transactions with topics that have stages: "orders" keeps dead letters in "dead", "strict" rejects
    and recodes, "ones" is a view of "orders" with the values that contain a 1."""
    good, bad = b'{"n":1}', b"no json"
    sender = Producer({"bootstrap.servers": bootstrap, "transactional.id": "staged", "compression.type": "lz4"})
    sender.init_transactions(common.PATIENCE_S)

    def check(topic, isolation, wanted):
        found = read_to_end(bootstrap, topic, isolation)
        assert found == wanted, (topic, isolation, found)

    sender.begin_transaction()
    # The producer's own records in the dead letter topic, between those of the broker.
    for topic, values in [("orders", [good, bad, good]), ("dead", [b"own 1"]), ("orders", [b"nor this"]), ("dead", [b"own 2"])]:
        assert send_in_transaction(sender, topic, *values) == []
    check("dead", "read_committed", [])
    sender.commit_transaction(common.PATIENCE_S)
    committed = [bad, b"own 1", b"nor this", b"own 2"]
    check("dead", "read_committed", committed)

    sender.begin_transaction()
    assert send_in_transaction(sender, "orders", b'{"n":2}', bad) == []
    sender.abort_transaction(common.PATIENCE_S)
    check("dead", "read_committed", committed)
    check("dead", "read_uncommitted", committed + [bad])
    check("orders", "read_committed", [good, good])

    sender.begin_transaction()
    assert send_in_transaction(sender, "orders", b'{"n":11}', b'{"n":3}') == []
    sender.abort_transaction(common.PATIENCE_S)
    check("ones", "read_committed", [good, good])
    check("ones", "read_uncommitted", [good, good, b'{"n":11}'])

    for _ in range(2):
        sender.begin_transaction()
        assert send_in_transaction(sender, "orders", bad) == []
        abort_rejected(sender, "strict", (None, bad), (None, good))
    check("strict", "read_committed", [good, good])
    check("dead", "read_committed", committed)
    check("dead", "read_uncommitted", committed + [bad] * 3)


def configure(bootstrap, topic, **options):
    entries = [ConfigEntry(name.replace("_", "."), value) for name, value in options.items()]
    for entry in entries:
        entry.incremental_operation = AlterConfigOpType.SET
    client = AdminClient({"bootstrap.servers": bootstrap})
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
    client.incremental_alter_configs([resource])[resource].result(common.PATIENCE_S)


def send_as_one_batch(bootstrap, topic, values):
    """Returns the result of each value as text; None for a success."""
    outcomes = {}

    def done(place):
        def tell(error, message):
            outcomes[place] = error and f"{error.name()}: {error.str()}"
        return tell

    # A producer that knows no leader yet moves values to their partition one by one, and may send between two of them.
    sender = producer(bootstrap, **{"linger.ms": common.PATIENCE_S * 1000})
    sender.list_topics(topic, common.PATIENCE_S)
    for place, value in enumerate(values):
        sender.produce(topic, value=value, partition=0, on_delivery=done(place))
    assert sender.flush(common.PATIENCE_S) == 0
    return [outcomes[place] for place in range(len(values))]


def refusals(bootstrap):
    """Checks that records rejected by a topic's filter differ from the rest of their batch."""
    topic = "confluent-refusals"
    create(bootstrap, topic)
    configure(bootstrap, topic, stage_admit=common.NOT_NEGATIVE)
    errors = send_as_one_batch(bootstrap, topic, common.MIXED)
    # The message is librdkafka's own: this binding shows only the code of a single record, not its message.
    codes = [error and error.split(":")[0] for error in errors]
    assert codes == ["_INVALID_DIFFERENT_RECORD", "INVALID_RECORD"] * 2, errors
    outcomes = send_as_one_batch(bootstrap, topic, [common.MIXED[0]])
    assert outcomes == [None], outcomes

    # Skipped records are acknowledged. Consumers move past them, even past whole skipped batches.
    configure(bootstrap, topic, stage_admit_failure_policy="skip")
    wanted = [common.MIXED[0]]
    for round in range(30):
        values = common.MIXED if round % 10 == 9 else [b"no json"] * 3
        assert send_as_one_batch(bootstrap, topic, values) == [None] * len(values)
        wanted += values[0:3:2] if round % 10 == 9 else []
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "fetch.max.bytes": 1000,
                         "message.max.bytes": 1000, "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, 0, 0)])
    got = []
    while (message := consumer.poll(common.PATIENCE_S)) is not None and not message.error():
        got.append(message.value())
    assert message is not None and message.error().name() == "_PARTITION_EOF", message
    assert got == wanted, (got, wanted)
    consumer.close()


def failover(bootstrap):
    """Produces and consumes until a file appears, while nodes end and come back, or change the topic's stages. No record
    fails, and the group reads each of them once. The topic gets the configs that follow on the command line."""
    topic = "confluent-failover"
    admin = AdminClient({"bootstrap.servers": bootstrap})
    configs = dict(pair.split("=", 1) for pair in sys.argv[4:])
    admin.create_topics([NewTopic(topic, 3, 3, config=configs)])[topic].result(common.PATIENCE_S)
    sender = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "failover", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    errors, delivered, got, sent = [], [], [], 0

    def read(seconds):
        for message in consumer.consume(500, seconds):
            assert not message.error(), message.error()
            got.append(message.value())

    while not os.path.exists(sys.argv[3]):
        for _ in range(20):
            sent += 1
            value = b"record %d" % sent
            done = lambda error, message: errors.append(error) if error else delivered.append(message.value())
            sender.produce(topic, value=value, on_delivery=done)
        sender.poll(0)
        read(0.02)
    assert sender.flush(common.PATIENCE_S) == 0
    assert not errors, errors
    end = time.monotonic() + common.PATIENCE_S
    while len(got) < len(delivered) and time.monotonic() < end:
        read(0.2)
    consumer.close()
    wanted, found = collections.Counter(delivered), collections.Counter(got)
    assert found == wanted, f"lost: {list((wanted - found).items())[:5]}, twice: {list((found - wanted).items())[:5]}"
    assert len(wanted) > 1000, len(wanted)


def near_reads(bootstrap):
    """Reads with the rack of each node in turn. The statistics of librdkafka say from which nodes the bytes came."""
    topic, count, size = "confluent-near", 2000, 1000
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 1, 3)])[topic].result(common.PATIENCE_S)
    deliver(producer(bootstrap), topic, [(0, None, b"x" * size, [])] * count)
    for node in (1, 2, 3):
        received = {}

        def note(statistics):
            brokers = json.loads(statistics)["brokers"].values()
            received.update({broker["nodeid"]: broker["rxbytes"] for broker in brokers if broker["nodeid"] > 0})

        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "near", "auto.offset.reset": "earliest",
                             "client.rack": f"r{node}", "statistics.interval.ms": 100, "stats_cb": note})
        consumer.assign([TopicPartition(topic, 0, 0)])
        end, got = time.monotonic() + common.PATIENCE_S, 0
        while got < count or sum(received.values()) < count * size:
            assert time.monotonic() < end, (got, received)
            for message in consumer.consume(500, 0.2):
                assert not message.error(), message.error()
                got += 1
        consumer.close()
        assert received[node] > 0.9 * sum(received.values()), (node, received)


common.main({"failover": failover, "near-reads": near_reads, "view-group": view_group, "view-gap": view_gap, "round-trip": round_trip, "group": group, "admin": admin, "refusals": refusals,
             "transactions": transactions, "staged-transactions": staged_transactions, "deletions": deletions, "consumer-protocol": consumer_protocol})
