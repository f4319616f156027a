package millstream.stage;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;

/**
 * Kafka's clients with the partitioner and the filter. {@code MILLSTREAM_BOOTSTRAP} names a broker with the topic
 * {@code java}, of six partitions, and a view of it that shows what contains {@code error}.
 */
@EnabledIfEnvironmentVariable(named = "MILLSTREAM_BOOTSTRAP", matches = ".+")
class KafkaTest {
    private static final String BOOTSTRAP = System.getenv("MILLSTREAM_BOOTSTRAP");
    private static final int PARTITIONS = 6;
    private static final int RECORDS = 1000;

    private static String plugin(String name) {
        return StageTest.plugin(name).toString();
    }

    @Test
    void produceWithThePartitionerAndConsumeWithTheFilter() {
        Map<String, Object> configs = Map.of("bootstrap.servers", BOOTSTRAP,
            "partitioner.class", StagePartitioner.class.getName(),
            "millstream.partitioner.path", plugin("murmur2.no-simd"));
        try (var producer = new KafkaProducer<>(configs, new StringSerializer(), new StringSerializer())) {
            for (int row = 0; row < RECORDS; row++) {
                producer.send(new ProducerRecord<>("java", "key-" + row, row + (row % 10 == 3 ? " error" : " fine")));
            }
        }
        var filter = Map.of("interceptor.classes", StageInterceptor.class.getName(),
            "millstream.filter.path", plugin("contains.no-simd"), "millstream.filter.config", "{\"text\":\"error\"}");
        List<String> filtered = read("java", filter);
        assertEquals(read("java-view", Map.of()), filtered);
        assertEquals(RECORDS / 10, filtered.size());
        for (String line : filtered) {
            String[] parts = line.split(" ");
            byte[] key = parts[1].getBytes(StandardCharsets.UTF_8);
            assertEquals(BuiltInPartitioner.partitionForKey(key, PARTITIONS), Integer.parseInt(parts[0]));
        }
    }

    /** Returns the records of a topic up to its end, in order. */
    private static List<String> read(String topic, Map<String, String> more) {
        Map<String, Object> configs = new java.util.HashMap<>(more);
        configs.put("bootstrap.servers", BOOTSTRAP);
        List<String> found = new ArrayList<>();
        try (var consumer = new KafkaConsumer<>(configs, new StringDeserializer(), new StringDeserializer())) {
            var partitions = IntStream.range(0, PARTITIONS).mapToObj(number -> new TopicPartition(topic, number)).toList();
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            var ends = consumer.endOffsets(partitions);
            while (partitions.stream().anyMatch(partition -> consumer.position(partition) < ends.get(partition))) {
                for (ConsumerRecord<String, String> one : consumer.poll(Duration.ofSeconds(1))) {
                    found.add(one.partition() + " " + one.key() + " " + one.value());
                }
            }
        }
        Collections.sort(found);
        return found;
    }
}
