package millstream.stage;

import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.Cluster;
import org.apache.kafka.common.PartitionInfo;

/**
 * Lets a plug-in choose partitions in {@link KafkaProducer}: {@code partitioner.class=millstream.stage.StagePartitioner}
 * with {@code millstream.partitioner.path}, and optionally {@code .config}, {@code .deadline.ms} and {@code .memory.bytes}.
 *
 * <p>Kafka shows keys and values to a partitioner, one record a call. Its timestamp is the time of the call.
 */
public final class StagePartitioner implements org.apache.kafka.clients.producer.Partitioner {
    private Partitioner stage;

    @Override
    public void configure(Map<String, ?> configs) {
        StageConfig found = StageConfig.of("millstream.partitioner", configs);
        stage = new Partitioner(found.path(), found.config(), found.limits());
        if (stage.readsHeaders()) {
            throw new StageException.Contract(stage.name() + " reads headers, which Kafka does not show to a partitioner");
        }
    }

    @Override
    public int partition(String topic, Object key, byte[] keyBytes, Object value, byte[] valueBytes, Cluster cluster) {
        List<PartitionInfo> partitions = cluster.partitionsForTopic(topic);
        int[] unavailable =
            partitions.stream().filter(one -> one.leader() == null).mapToInt(PartitionInfo::partition).toArray();
        return stage.partition(topic, partitions.size(), Batch.ofOne(keyBytes, valueBytes), unavailable)[0];
    }

    @Override
    public void close() {}
}
