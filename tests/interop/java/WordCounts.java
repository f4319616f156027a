import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.LongDeserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.Stores;

/**
 * Counts words with Kafka Streams and exactly_once_v2. Every update of a count is one record, so with exactly once each
 * word has the counts 1, 2, 3 and so on, each of them once. `prepare` writes the words, `count` runs the job, which ends
 * abruptly after a number of updates if one is given, and otherwise once every update was read and checked.
 */
public class WordCounts {
    static final int WORDS = 20;
    static final int EACH = 150;

    public static void main(String[] arguments) throws Exception {
        var bootstrap = arguments[1];
        switch (arguments[0]) {
            case "prepare" -> prepare(bootstrap);
            case "count" -> count(bootstrap, arguments[2], arguments.length > 3 ? Integer.parseInt(arguments[3]) : -1);
            default -> throw new IllegalArgumentException(arguments[0]);
        }
        System.out.println(arguments[0] + ": ok");
    }

    static void prepare(String bootstrap) throws Exception {
        try (var admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            var topics = List.of("words", "counts").stream()
                .map(name -> new NewTopic(name, Optional.of(3), Optional.empty())).toList();
            admin.createTopics(topics).all().get();
        }
        var config = Map.<String, Object>of("bootstrap.servers", bootstrap);
        try (var producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            for (int each = 0; each < EACH; each++) {
                for (int word = 0; word < WORDS; word++) {
                    producer.send(new ProducerRecord<>("words", null, "word " + word));
                }
            }
        }
    }

    static void count(String bootstrap, String folder, int updates) throws Exception {
        var config = new Properties();
        config.put("application.id", "word-counts");
        config.put("bootstrap.servers", bootstrap);
        config.put("processing.guarantee", "exactly_once_v2");
        config.put("commit.interval.ms", "50");
        config.put("num.stream.threads", "2");
        config.put("state.dir", folder);
        config.put("replication.factor", "1");
        // What a process leaves behind that ends abruptly: a member of the group, and an open transaction.
        config.put("consumer.session.timeout.ms", "6000");
        config.put("consumer.heartbeat.interval.ms", "500");
        config.put("consumer.max.poll.records", "50");
        config.put("producer.transaction.timeout.ms", "10000");

        var counted = new AtomicInteger();
        var builder = new StreamsBuilder();
        var store = Materialized.<String, Long>as(Stores.inMemoryKeyValueStore("counts")).withCachingDisabled();
        builder.stream("words", Consumed.with(Serdes.String(), Serdes.String()))
            .groupBy((key, word) -> word, Grouped.with(Serdes.String(), Serdes.String()))
            .count(store.withKeySerde(Serdes.String()).withValueSerde(Serdes.Long()))
            .toStream()
            .peek((word, count) -> {
                if (counted.incrementAndGet() == updates) Runtime.getRuntime().halt(9);
            })
            .to("counts", Produced.with(Serdes.String(), Serdes.Long()));
        try (var streams = new KafkaStreams(builder.build(), config)) {
            streams.start();
            check(bootstrap);
        }
    }

    /** Reads every committed update, and checks that each is the next one of its word. */
    static void check(String bootstrap) {
        var config = Map.<String, Object>of(
            "bootstrap.servers", bootstrap, "isolation.level", "read_committed", "auto.offset.reset", "earliest");
        var end = System.nanoTime() + TimeUnit.SECONDS.toNanos(120);
        var counts = new HashMap<String, Long>();
        try (var reader = new KafkaConsumer<>(config, new StringDeserializer(), new LongDeserializer())) {
            reader.assign(reader.partitionsFor("counts").stream()
                .map(partition -> new TopicPartition("counts", partition.partition())).toList());
            for (int read = 0; read < WORDS * EACH; ) {
                if (System.nanoTime() > end) throw new AssertionError(read + " updates of " + WORDS * EACH);
                for (var record : reader.poll(Duration.ofMillis(100))) {
                    var before = counts.put(record.key(), record.value());
                    if (record.value() != (before == null ? 1 : before + 1)) {
                        throw new AssertionError(record + " after " + before);
                    }
                    read++;
                }
            }
        }
    }
}
