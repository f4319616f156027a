package millstream.stage;

import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerInterceptor;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;

/**
 * Filters all that a consumer polls: {@code interceptor.classes=millstream.stage.StageInterceptor} with
 * {@code millstream.filter.path}, and optionally {@code .config}, {@code .deadline.ms} and {@code .memory.bytes}.
 *
 * <p>Kafka logs what an interceptor throws, and returns the records as they were. Where a record must not pass then, call
 * {@link RecordFilter#kept} after each poll: its errors reach the application.
 */
public final class StageInterceptor<K, V> implements ConsumerInterceptor<K, V> {
    private Filter stage;

    @Override
    public void configure(Map<String, ?> configs) {
        StageConfig found = StageConfig.of("millstream.filter", configs);
        stage = new Filter(found.path(), found.config(), found.limits());
    }

    @Override
    public ConsumerRecords<K, V> onConsume(ConsumerRecords<K, V> records) {
        return RecordFilter.kept(stage, records);
    }

    @Override
    public void onCommit(Map<TopicPartition, OffsetAndMetadata> offsets) {}

    @Override
    public void close() {}
}
