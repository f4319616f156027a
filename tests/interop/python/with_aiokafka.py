"""aiokafka, which implements the protocol on asyncio."""

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

import common


async def create(bootstrap, topic):
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, common.PARTITIONS, 1)])
    await admin.close()


async def send_all(bootstrap, topic, records, **config):
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=5, **config)
    await producer.start()
    sent = [
        await producer.send(topic, key=key, value=value, headers=headers, partition=partition)
        for partition, key, value, headers in records
    ]
    await asyncio.wait_for(asyncio.gather(*sent), common.PATIENCE_S)
    await producer.stop()


async def read_all(bootstrap, topic, codec):
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    partitions = [TopicPartition(topic, partition) for partition in range(common.PARTITIONS)]
    consumer.assign(partitions)
    total = sum((await consumer.end_offsets(partitions)).values())
    got = []
    while len(got) < total:
        message = await asyncio.wait_for(consumer.getone(), common.PATIENCE_S)
        got.append((message.partition, message.offset, message.key, message.value, message.headers))
    await consumer.stop()
    common.check(codec, got)


async def every_codec(bootstrap):
    for codec in common.CODECS:
        topic = f"aiokafka-{codec}"
        await create(bootstrap, topic)
        compression = None if codec == "none" else codec
        records = [(None, *record) for record in common.records(codec)]
        await send_all(bootstrap, topic, records, compression_type=compression, enable_idempotence=True)
        await read_all(bootstrap, topic, codec)


def round_trip(bootstrap):
    asyncio.run(every_codec(bootstrap))


class Member:
    """A separate event loop, which the member's thread drives."""

    def __init__(self, bootstrap, topic):
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self.open(bootstrap, topic))

    async def open(self, bootstrap, topic):
        self.consumer = AIOKafkaConsumer(
            topic,
            bootstrap_servers=bootstrap,
            group_id=f"group-of-{topic}",
            auto_offset_reset="earliest",
            session_timeout_ms=10000,
            heartbeat_interval_ms=500,
        )
        await self.consumer.start()

    def poll(self):
        polled = self.loop.run_until_complete(self.consumer.getmany(timeout_ms=100))
        return [message.value for batch in polled.values() for message in batch]

    def owned(self):
        return {partition.partition for partition in self.consumer.assignment()}

    def close(self):
        self.loop.run_until_complete(self.consumer.stop())
        self.loop.close()


def group(bootstrap):
    topic = "aiokafka-group"
    asyncio.run(create(bootstrap, topic))

    def produce(values):
        records = [(i % common.PARTITIONS, None, value, None) for i, value in enumerate(values)]
        asyncio.run(send_all(bootstrap, topic, records))

    common.group(lambda: Member(bootstrap, topic), produce)


def view_group(bootstrap):
    async def create_topic(name, configs):
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        # This client does not accept -1: a view may be created with the number of its source.
        await admin.create_topics([NewTopic(name, common.PARTITIONS, 1, topic_configs=configs)])
        await admin.close()

    def produce(topic, values):
        records = [(partition, None, value, None) for partition, value in values]
        asyncio.run(send_all(bootstrap, topic, records))

    create = lambda name, configs: asyncio.run(create_topic(name, configs))
    common.view_group(lambda topic: Member(bootstrap, topic), create, produce)


def view_gap(bootstrap):
    loop = asyncio.new_event_loop()

    async def open():
        consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            fetch_min_bytes=common.MIN_BYTES,
            fetch_max_wait_ms=common.MAX_WAIT_MS,
        )
        await consumer.start()
        consumer.assign([partition])
        return consumer

    partition = TopicPartition("view", 0)
    consumer = loop.run_until_complete(open())

    def poll(seconds):
        polled = loop.run_until_complete(consumer.getmany(timeout_ms=1000 * seconds))
        return [(message.offset, message.value) for batch in polled.values() for message in batch]

    common.check_gap(poll, lambda: loop.run_until_complete(consumer.position(partition)))
    loop.run_until_complete(consumer.stop())
    loop.close()


async def end_transactions(bootstrap):
    topic = "aiokafka-transactions"
    await create(bootstrap, topic)
    partition = TopicPartition(topic, 0)

    async def begun():
        begun = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id="aiokafka")
        await begun.start()
        await begun.begin_transaction()
        return begun

    async def send(producer, value):
        await asyncio.wait_for(producer.send_and_wait(topic, value, partition=0), common.PATIENCE_S)

    first = await begun()
    await send(first, b"committed")
    await first.commit_transaction()
    await first.begin_transaction()
    await send(first, b"aborted")
    await first.abort_transaction()
    reader = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id="aiokafka-transactions",
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await reader.start()
    reader.assign([partition])
    await first.begin_transaction()
    await send(first, b"with offsets")
    await first.send_offsets_to_transaction({partition: 1}, "aiokafka-transactions")
    await first.commit_transaction()
    # This client's OffsetFetch does not wait for the markers of the transaction.
    end = asyncio.get_running_loop().time() + common.PATIENCE_S
    while await reader.committed(partition) != 1:
        assert asyncio.get_running_loop().time() < end, await reader.committed(partition)
        await asyncio.sleep(0.02)
    await first.begin_transaction()
    await send(first, b"of the zombie")
    second = await begun()
    try:
        await asyncio.wait_for(first.commit_transaction(), common.PATIENCE_S)
        raise AssertionError("the zombie has committed")
    except KafkaError as error:
        print("the zombie:", repr(error))
    await send(second, b"of its successor")
    await second.commit_transaction()
    reader.seek(partition, 0)
    values = []
    while not values or values[-1] != b"of its successor":
        message = await asyncio.wait_for(reader.getone(), common.PATIENCE_S)
        values.append(message.value)
    assert values == [b"committed", b"with offsets", b"of its successor"], values
    await reader.stop()
    await second.stop()


def transactions(bootstrap):
    """Commits and aborts a transaction, one with offsets, and fences a producer by its successor."""
    asyncio.run(end_transactions(bootstrap))


common.main({"view-group": view_group, "view-gap": view_gap, "round-trip": round_trip, "group": group,
             "transactions": transactions})
