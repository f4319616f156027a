import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;

/**
 * Sends values as one batch, and prints a line for each: its offset, or the exception with its message.
 *
 * Arguments: bootstrap server, topic, codec, values.
 */
public class Refusals {
    public static void main(String[] args) throws InterruptedException {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", args[0]);
        properties.put("key.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        properties.put("value.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        properties.put("compression.type", args[2]);
        properties.put("linger.ms", "30000");
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(properties)) {
            for (int i = 3; i < args.length; i++) {
                sent.add(producer.send(new ProducerRecord<>(args[1], 0, null, args[i])));
            }
            producer.flush();
            for (Future<RecordMetadata> future : sent) {
                try {
                    System.out.println(future.get().offset());
                } catch (ExecutionException error) {
                    Throwable cause = error.getCause();
                    System.out.println(cause.getClass().getSimpleName() + ": " + cause.getMessage());
                }
            }
        }
    }
}
