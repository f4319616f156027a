import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.FeatureUpdate;
import org.apache.kafka.clients.admin.UpdateFeaturesOptions;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.InvalidRecordException;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Transactions with topics that have stages: "orders" keeps dead letters in "dead", "strict" rejects and recodes, "ones"
 * is a view of "orders" with the values that contain a 1.
 *
 * Arguments: level of transaction.version, bootstrap server.
 */
public class StagedTransactions {
    static final String GOOD = "{\"n\":1}";
    static final String BAD = "no json";

    static void check(boolean holds, Object seen) {
        if (!holds) throw new AssertionError(String.valueOf(seen));
    }

    /** Reads the values of a topic up to its end. */
    static List<String> read(String bootstrap, String topic, String isolation) {
        var config = Map.<String, Object>of(
            "bootstrap.servers", bootstrap, "isolation.level", isolation, "auto.offset.reset", "earliest",
            "enable.auto.commit", false);
        var values = new ArrayList<String>();
        try (var reader = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            var partition = new TopicPartition(topic, 0);
            reader.assign(List.of(partition));
            reader.seekToBeginning(List.of(partition));
            long last = reader.endOffsets(List.of(partition)).get(partition);
            var end = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
            while (reader.position(partition) < last) {
                check(System.nanoTime() < end, topic + ": " + values);
                for (ConsumerRecord<String, String> record : reader.poll(Duration.ofMillis(200))) {
                    values.add(record.value());
                }
            }
        }
        return values;
    }

    /** Sends values, most likely as one batch. */
    static void send(KafkaProducer<String, String> producer, String topic, String... values) throws Exception {
        var sent = new ArrayList<Future<RecordMetadata>>();
        for (String value : values) {
            sent.add(producer.send(new ProducerRecord<>(topic, 0, null, value)));
        }
        for (var one : sent) {
            one.get(60, TimeUnit.SECONDS);
        }
    }

    public static void main(String[] arguments) throws Exception {
        var level = Short.parseShort(arguments[0]);
        var bootstrap = arguments[1];
        try (var admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            if (level < 2) {
                var lower = new FeatureUpdate(level, FeatureUpdate.UpgradeType.UNSAFE_DOWNGRADE);
                admin.updateFeatures(Map.of("transaction.version", lower), new UpdateFeaturesOptions()).all().get();
            }
            var levels = admin.describeFeatures().featureMetadata().get().finalizedFeatures();
            var found = levels.containsKey("transaction.version") ? levels.get("transaction.version").maxVersionLevel() : 0;
            check(found == level, levels);
        }
        var config = Map.<String, Object>of(
            "bootstrap.servers", bootstrap, "transactional.id", "staged", "compression.type", "lz4");
        var producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer());
        producer.initTransactions();

        producer.beginTransaction();
        send(producer, "orders", GOOD, BAD, GOOD);
        // The producer's own records in the dead letter topic, between those of the broker.
        send(producer, "dead", "own 1");
        send(producer, "orders", "nor this");
        send(producer, "dead", "own 2");
        check(read(bootstrap, "dead", "read_committed").isEmpty(), "a dead letter of an open transaction");
        producer.commitTransaction();
        var committed = List.of(BAD, "own 1", "nor this", "own 2");
        check(read(bootstrap, "dead", "read_committed").equals(committed), read(bootstrap, "dead", "read_committed"));

        producer.beginTransaction();
        send(producer, "orders", "{\"n\":2}", BAD);
        producer.abortTransaction();
        check(read(bootstrap, "dead", "read_committed").equals(committed), read(bootstrap, "dead", "read_committed"));
        check(read(bootstrap, "dead", "read_uncommitted").size() == 5, read(bootstrap, "dead", "read_uncommitted"));
        check(read(bootstrap, "orders", "read_committed").equals(List.of(GOOD, GOOD)), "orders");

        producer.beginTransaction();
        send(producer, "orders", "{\"n\":11}", "{\"n\":3}");
        producer.abortTransaction();
        check(read(bootstrap, "ones", "read_committed").equals(List.of(GOOD, GOOD)), "ones");
        check(read(bootstrap, "ones", "read_uncommitted").equals(List.of(GOOD, GOOD, "{\"n\":11}")), "ones");

        for (int round = 0; round < 2; round++) {
            producer.beginTransaction();
            send(producer, "orders", BAD);
            try {
                send(producer, "strict", BAD);
                throw new AssertionError("the record is stored");
            } catch (ExecutionException error) {
                check(error.getCause() instanceof InvalidRecordException, error);
                check(error.getMessage().contains("not JSON"), error);
            }
            try {
                producer.commitTransaction();
                throw new AssertionError("the transaction is committed");
            } catch (KafkaException error) {
                System.out.println("the commit: " + error);
            }
            producer.abortTransaction();
            producer.beginTransaction();
            send(producer, "strict", GOOD);
            producer.commitTransaction();
        }
        check(read(bootstrap, "strict", "read_committed").equals(List.of(GOOD, GOOD)), "strict");
        check(read(bootstrap, "dead", "read_committed").equals(committed), read(bootstrap, "dead", "read_committed"));
        producer.close();
        System.out.println("staged-transactions: ok");
    }
}
