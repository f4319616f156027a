"""Produces an order that does not fit the schema with every Python client that is installed, and prints the errors."""

import sys

bootstrap, order = sys.argv[1], b'{"id":"five"}'


def with_kafka_python():
    from kafka import KafkaProducer

    KafkaProducer(bootstrap_servers=bootstrap).send("orders", order).get(30)


def with_confluent_kafka():
    from confluent_kafka import KafkaException, Producer

    def delivered(error, _):
        if error:
            raise KafkaException(error)

    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce("orders", order, on_delivery=delivered)
    producer.flush()


for client in with_kafka_python, with_confluent_kafka:
    try:
        client()
    except ImportError:
        continue
    except Exception as error:
        print(f"{client.__name__[5:]}: {error}")
    else:
        sys.exit(f"{client.__name__[5:]}: the bad order was stored")
