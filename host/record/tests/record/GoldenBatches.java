// Writes golden_batches.txt, one line `name hex` a batch, with Apache Kafka's own client library:
//
//     java -cp kafka-clients-4.2.0.jar:zstd-jni.jar:lz4-java.jar:snappy-java.jar:slf4j-api.jar GoldenBatches.java > golden_batches.txt
//
// With arguments it reads instead: each argument is a batch in hex, and it prints the records that Kafka finds in it.

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HexFormat;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.*;

public class GoldenBatches {
    static final long TIMESTAMP = 1_700_000_000_000L;

    public static void main(String[] args) throws Exception {
        if (args.length > 0) {
            for (String arg : args) read(HexFormat.of().parseHex(arg));
            return;
        }
        for (CompressionType type : CompressionType.values()) {
            int longValue = type == CompressionType.NONE ? 300 : 70_000;
            print(type.name, records(type, TimestampType.CREATE_TIME, longValue));
        }
        print("log-append-time", records(CompressionType.NONE, TimestampType.LOG_APPEND_TIME, 3));
        print("commit-marker", MemoryRecords.withEndTransactionMarker(
            41L, TIMESTAMP, 5, 4242L, (short) 7, new EndTransactionMarker(ControlRecordType.COMMIT, 9)).buffer());
        ByteBuffer empty = ByteBuffer.allocate(DefaultRecordBatch.RECORD_BATCH_OVERHEAD);
        DefaultRecordBatch.writeEmptyHeader(empty, RecordBatch.MAGIC_VALUE_V2, 4242L, (short) 7, 10, 100L, 119L, 5,
            TimestampType.CREATE_TIME, TIMESTAMP, false, false);
        empty.flip();
        print("emptied", empty);
    }

    static ByteBuffer records(CompressionType type, TimestampType timestampType, int longValue) {
        MemoryRecordsBuilder builder = MemoryRecords.builder(ByteBuffer.allocate(1 << 17), RecordBatch.MAGIC_VALUE_V2,
            Compression.of(type).build(), timestampType, 0L, TIMESTAMP + 500, 4242L, (short) 7, Integer.MAX_VALUE - 1,
            true, false, 5);
        builder.append(TIMESTAMP, bytes("key-0"), bytes("value-0"), new Header[] {
            new RecordHeader("trace", bytes("one")), new RecordHeader("trace", bytes("two")),
            new RecordHeader("none", null), new RecordHeader("", new byte[0])});
        builder.append(TIMESTAMP + 1000, null, bytes(""));
        builder.append(TIMESTAMP - 1000, bytes(""), null);
        byte[] value = new byte[longValue];
        for (int i = 0; i < longValue; i++) value[i] = (byte) (i % 251);
        builder.append(TIMESTAMP + 70_000, bytes("long"), value);
        return builder.build().buffer();
    }

    static void read(byte[] batch) {
        for (RecordBatch found : MemoryRecords.readableRecords(ByteBuffer.wrap(batch)).batches()) {
            found.ensureValid();
            System.out.println(found.compressionType() + " count " + found.countOrNull() + " sequence " + found.lastSequence());
            for (org.apache.kafka.common.record.Record record : found) {
                StringBuilder headers = new StringBuilder();
                for (Header header : record.headers())
                    headers.append(' ').append(header.key()).append('=').append(header.value() == null ? "null" : hash(ByteBuffer.wrap(header.value())));
                System.out.println(record.offset() + " " + record.timestamp() + " " + hash(record.key()) + " " + hash(record.value()) + headers);
            }
        }
    }

    static String hash(ByteBuffer bytes) {
        return bytes == null ? "null" : bytes.remaining() + ":" + bytes.hashCode();
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static void print(String name, ByteBuffer buffer) {
        byte[] bytes = new byte[buffer.remaining()];
        buffer.duplicate().get(bytes);
        System.out.println(name + " " + HexFormat.of().formatHex(bytes));
    }
}
