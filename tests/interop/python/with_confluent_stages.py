"""confluent-kafka beside the default plug-ins: the partitioners of librdkafka, and Confluent's serializers with a schema
registry in their own process. `millstream produce` has written the topics that end in -ours."""

import json

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

import common

PARTITIONS = 17


def create(bootstrap, topic, partitions):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(common.PATIENCE_S)


def send(bootstrap, topic, records, **config):
    errors = []
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, **config})
    for key, value in records:
        producer.produce(topic, key=key, value=value, on_delivery=lambda error, _: error and errors.append(error))
    assert producer.flush(common.PATIENCE_S) == 0
    assert not errors, errors


def read(bootstrap, topic, partitions):
    """Returns every record of a topic, partition by partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused"})
    places = [TopicPartition(topic, partition, 0) for partition in range(partitions)]
    count = sum(consumer.get_watermark_offsets(place, timeout=common.PATIENCE_S)[1] for place in places)
    consumer.assign(places)
    got = []
    while len(got) < count:
        message = consumer.poll(common.PATIENCE_S)
        assert message is not None and not message.error(), message and message.error()
        got.append(message)
    consumer.close()
    return sorted(got, key=lambda message: (message.partition(), message.offset()))


def partitioners(bootstrap):
    for name, empty_is_a_key in [("consistent_random", False), ("murmur2_random", True), ("fnv1a_random", True)]:
        ours = {message.key(): message.partition() for message in read(bootstrap, f"{name}-ours", PARTITIONS)}
        assert len(ours) == 10_001 and b"" in ours, len(ours)
        create(bootstrap, name, PARTITIONS)
        send(bootstrap, name, [(key, b"v") for key in ours], partitioner=name)
        theirs = {message.key(): message.partition() for message in read(bootstrap, name, PARTITIONS)}
        assert theirs.keys() == ours.keys()
        wrong = {key: (ours[key], theirs[key]) for key in ours if ours[key] != theirs[key]}
        if not empty_is_a_key:
            wrong.pop(b"", None)
        assert not wrong, f"{name}: {len(wrong)} keys have another partition (ours, theirs): {wrong}"

        # Whether an empty key is a key shows only over many producers, since each keeps to a partition for a while.
        create(bootstrap, f"{name}-empty", PARTITIONS)
        for _ in range(8):
            send(bootstrap, f"{name}-empty", [(b"", b"v")], partitioner=name)
        used = {message.partition() for message in read(bootstrap, f"{name}-empty", PARTITIONS)}
        assert (used == {ours[b""]}) if empty_is_a_key else (len(used) > 1), f"{name}: an empty key went to {used}"


AVRO = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "customer", "type": ["null", "string"], "default": None},
        {"name": "total", "type": "double"},
        {"name": "lines", "type": {"type": "array", "items": {
            "type": "record", "name": "Line", "fields": [
                {"name": "item", "type": "string"}, {"name": "count", "type": "int"}]}}},
        {"name": "labels", "type": {"type": "map", "values": "string"}},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["NEW", "PAID"]}},
        {"name": "mark", "type": ["int", "string", {"type": "fixed", "name": "Two", "size": 2}, "shop.Line"]},
    ],
}


def orders():
    for i in range(200):
        yield {
            "id": (-1) ** i * 3**i % 2**62,
            "customer": None if i % 3 == 0 else f"Zoë {i}",
            "total": i / 8,
            "lines": [{"item": f"item {n}", "count": n - 2} for n in range(i % 4)],
            "labels": {} if i % 2 else {"a": "b" * i},
            "state": ["NEW", "PAID"][i % 2],
            "mark": [i, f"text {i}", {"item": "", "count": 7}][i % 3],
        }


def registry():
    """Returns a registry in this process. It gives the first schema the id 1, which the stages have in their
    configuration."""
    return SchemaRegistryClient.new_client({"url": "mock://stages"})


def avro_theirs(bootstrap):
    serializer = AvroSerializer(registry(), json.dumps(AVRO))
    context = SerializationContext("avro", MessageField.VALUE)
    create(bootstrap, "avro", 1)
    send(bootstrap, "avro", [(b"%d" % i, serializer(order, context)) for i, order in enumerate(orders())])


def avro_ours(bootstrap):
    client = registry()
    serializer, deserializer = AvroSerializer(client, json.dumps(AVRO)), AvroDeserializer(client)
    context = SerializationContext("avro", MessageField.VALUE)
    got = read(bootstrap, "avro-ours", 1)
    wanted = list(orders())
    assert len(got) == len(wanted), len(got)
    for message, order in zip(got, wanted):
        assert message.value() == serializer(order, context), (message.value(), serializer(order, context))
        assert deserializer(message.value(), context) == order, (message.value(), order)


def message_classes():
    """Makes the classes of the messages in `tests/interop/schemas.rs`, as protoc would."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="orders.proto", package="shop", syntax="proto3")
    file.message_type.add(name="Unused").field.add(
        name="x", number=1, type=kinds.TYPE_BOOL, label=kinds.LABEL_OPTIONAL, json_name="x"
    )
    order = file.message_type.add(name="Order")
    line = order.nested_type.add(name="Line")
    for message, name, number, kind, label, of in [
        (line, "item", 1, kinds.TYPE_STRING, kinds.LABEL_OPTIONAL, None),
        (line, "count", 2, kinds.TYPE_SINT32, kinds.LABEL_OPTIONAL, None),
        (order, "order_id", 1, kinds.TYPE_INT64, kinds.LABEL_OPTIONAL, None),
        (order, "customer", 2, kinds.TYPE_STRING, kinds.LABEL_OPTIONAL, None),
        (order, "total", 3, kinds.TYPE_DOUBLE, kinds.LABEL_OPTIONAL, None),
        (order, "lines", 4, kinds.TYPE_MESSAGE, kinds.LABEL_REPEATED, ".shop.Order.Line"),
        (order, "raw", 5, kinds.TYPE_BYTES, kinds.LABEL_OPTIONAL, None),
    ]:
        message.field.add(name=name, number=number, type=kind, label=label, type_name=of)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    find = pool.FindMessageTypeByName
    return [message_factory.GetMessageClass(find(name)) for name in ("shop.Unused", "shop.Order", "shop.Order.Line")]


Unused, Order, Line = message_classes()


def messages():
    for i in range(200):
        yield Order(
            order_id=(-1) ** i * 3**i % 2**62,
            customer=f"Zoë {i}" if i % 3 else "",
            total=i / 8,
            lines=[Line(item=f"item {n}", count=n - 2) for n in range(i % 4)],
            raw=bytes([i, 255]),
        )


def protobuf_theirs(bootstrap):
    context = SerializationContext("protobuf", MessageField.VALUE)
    client, values = registry(), []
    for kind, these in [(Unused, [Unused(x=True)]), (Order, messages()), (Line, [Line(item="alone", count=-1)])]:
        serializer = ProtobufSerializer(kind, client, {"use.deprecated.format": False})
        values += [serializer(message, context) for message in these]
    create(bootstrap, "protobuf", 1)
    send(bootstrap, "protobuf", [(b"k", value) for value in values])


def protobuf_ours(bootstrap):
    serializer = ProtobufSerializer(Order, registry(), {"use.deprecated.format": False})
    deserializer = ProtobufDeserializer(Order, {"use.deprecated.format": False})
    context = SerializationContext("protobuf", MessageField.VALUE)
    got, wanted = read(bootstrap, "protobuf-ours", 1), list(messages())
    assert len(got) == len(wanted), len(got)
    for message, order in zip(got, wanted):
        assert message.value() == serializer(order, context), (message.value(), serializer(order, context))
        assert deserializer(message.value(), context) == order, (message.value(), order)


if __name__ == "__main__":
    common.main({
        "partitioners": partitioners,
        "avro-theirs": avro_theirs,
        "avro-ours": avro_ours,
        "protobuf-theirs": protobuf_theirs,
        "protobuf-ours": protobuf_ours,
    })
