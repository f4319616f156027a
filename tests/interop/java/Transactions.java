import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Commits and aborts a transaction, one with offsets, and fences a producer by its successor. */
public class Transactions {
    static final TopicPartition PARTITION = new TopicPartition("java-transactions", 0);

    static KafkaProducer<String, String> begun(String bootstrap) {
        var config = Map.<String, Object>of("bootstrap.servers", bootstrap, "transactional.id", "java");
        var producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer());
        producer.initTransactions();
        producer.beginTransaction();
        return producer;
    }

    static void send(KafkaProducer<String, String> producer, String value) throws Exception {
        var record = new ProducerRecord<String, String>(PARTITION.topic(), PARTITION.partition(), null, value);
        producer.send(record).get(60, TimeUnit.SECONDS);
    }

    static void check(boolean holds, Object seen) {
        if (!holds) throw new AssertionError(String.valueOf(seen));
    }

    public static void main(String[] arguments) throws Exception {
        var bootstrap = arguments[0];
        try (var admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            admin.createTopics(List.of(new NewTopic(PARTITION.topic(), Optional.of(1), Optional.empty()))).all().get();
        }
        var config = Map.<String, Object>of(
            "bootstrap.servers", bootstrap, "group.id", "java-copiers", "isolation.level", "read_committed",
            "auto.offset.reset", "earliest", "enable.auto.commit", false);
        var reader = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
        reader.assign(List.of(PARTITION));

        var first = begun(bootstrap);
        send(first, "committed");
        first.commitTransaction();
        first.beginTransaction();
        send(first, "aborted");
        first.abortTransaction();
        first.beginTransaction();
        send(first, "with offsets");
        first.sendOffsetsToTransaction(Map.of(PARTITION, new OffsetAndMetadata(1)), reader.groupMetadata());
        first.commitTransaction();
        var committed = reader.committed(Set.of(PARTITION)).get(PARTITION);
        check(committed.offset() == 1, committed);
        first.beginTransaction();
        send(first, "of the zombie");
        var second = begun(bootstrap);
        try {
            first.commitTransaction();
            throw new AssertionError("the zombie has committed");
        } catch (ProducerFencedException | InvalidProducerEpochException error) {
            System.out.println("the zombie: " + error);
        }
        send(second, "of its successor");
        second.commitTransaction();

        reader.seek(PARTITION, 0);
        var values = new ArrayList<String>();
        var end = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
        while (!values.contains("of its successor")) {
            check(System.nanoTime() < end, values);
            for (ConsumerRecord<String, String> record : reader.poll(Duration.ofSeconds(1))) values.add(record.value());
        }
        check(values.equals(List.of("committed", "with offsets", "of its successor")), values);
        reader.close();
        second.close();
        first.close(Duration.ZERO);
        System.out.println("transactions: ok");
    }
}
