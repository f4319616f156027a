package millstream.stage;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;

/** Filters what {@code poll} of a consumer returns. Keys and values have to be bytes or text. */
public final class RecordFilter {
    private RecordFilter() {}

    /** Returns the records that the filter keeps. Offsets to commit stay those of all records. */
    public static <K, V> ConsumerRecords<K, V> kept(Filter filter, ConsumerRecords<K, V> polled) {
        Map<TopicPartition, List<ConsumerRecord<K, V>>> kept = new LinkedHashMap<>();
        for (TopicPartition partition : polled.partitions()) {
            List<ConsumerRecord<K, V>> records = polled.records(partition);
            List<ConsumerRecord<K, V>> good = filter.kept(partition.topic(), batch(records), records);
            if (!good.isEmpty()) {
                kept.put(partition, good);
            }
        }
        return new ConsumerRecords<>(kept, polled.nextOffsets());
    }

    private static <K, V> Batch batch(List<ConsumerRecord<K, V>> records) {
        List<byte[]> keys = new ArrayList<>(records.size());
        List<byte[]> values = new ArrayList<>(records.size());
        long[] timestamps = new long[records.size()];
        List<List<Batch.Header>> headers = new ArrayList<>(records.size());
        for (ConsumerRecord<K, V> record : records) {
            timestamps[keys.size()] = record.timestamp();
            keys.add(bytes(record.key()));
            values.add(bytes(record.value()));
            List<Batch.Header> row = new ArrayList<>();
            for (Header header : record.headers()) {
                row.add(new Batch.Header(header.key(), header.value()));
            }
            headers.add(row);
        }
        return new Batch(records.size(), keys, values, timestamps, headers);
    }

    private static byte[] bytes(Object value) {
        if (value == null || value instanceof byte[]) {
            return (byte[]) value;
        }
        if (value instanceof String text) {
            return text.getBytes(UTF_8);
        }
        throw new IllegalArgumentException(
            "a filter reads bytes, not " + value.getClass().getName() + ": use Kafka's ByteArrayDeserializer");
    }
}
