import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Random;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.utils.Utils;

/**
 * Writes the vectors beside this file with the Java client's own code:
 *
 *     java -cp kafka-clients-4.2.0.jar:slf4j-api.jar Murmur2Vectors.java > murmur2.csv
 */
class Murmur2Vectors {
    static final int[] PARTITIONS = {1, 2, 3, 4, 6, 12, 100, 1000, 2147483647};

    public static void main(String[] args) {
        StringBuilder header = new StringBuilder("key,hash");
        for (int partitions : PARTITIONS) {
            header.append(',').append(partitions);
        }
        System.out.println(header);
        for (byte[] key : keys()) {
            StringBuilder line = new StringBuilder(HexFormat.of().formatHex(key));
            line.append(',').append(Utils.murmur2(key));
            for (int partitions : PARTITIONS) {
                line.append(',').append(BuiltInPartitioner.partitionForKey(key, partitions));
            }
            System.out.println(line);
        }
    }

    /** Every remainder of the length by four, every byte, text, and lengths around a block. */
    static List<byte[]> keys() {
        List<byte[]> keys = new ArrayList<>();
        for (String text : List.of("", "a", "ab", "abc", "abcd", "21", "foobar", "a-little-bit-long-string",
                "a-little-bit-longer-string", "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", "Zürich", "東京")) {
            keys.add(text.getBytes(StandardCharsets.UTF_8));
        }
        for (int value = 0; value < 256; value++) {
            keys.add(new byte[] {(byte) value});
        }
        Random random = new Random(2016);
        for (int length = 2; length <= 80; length++) {
            byte[] key = new byte[length];
            random.nextBytes(key);
            keys.add(key);
        }
        for (int length : new int[] {255, 256, 257, 1000}) {
            byte[] key = new byte[length];
            random.nextBytes(key);
            keys.add(key);
        }
        return keys;
    }
}
