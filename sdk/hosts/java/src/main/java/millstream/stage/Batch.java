package millstream.stage;

import java.util.Collections;
import java.util.List;

/**
 * Records as columns. A column that is null is absent, and a null key or value is a null. A plug-in gets only the columns
 * that it asks for. Without timestamps records have that of the call.
 */
public record Batch(int rows, List<byte[]> keys, List<byte[]> values, long[] timestamps, List<List<Header>> headers) {
    /** One header of a record. */
    public record Header(String name, byte[] value) {}

    /** Returns a batch of keys alone. */
    public static Batch ofKeys(List<byte[]> keys) {
        return new Batch(keys.size(), keys, null, null, null);
    }

    /** Returns a batch of values alone. */
    public static Batch ofValues(List<byte[]> values) {
        return new Batch(values.size(), null, values, null, null);
    }

    /** Returns a batch of one record without headers. */
    static Batch ofOne(byte[] key, byte[] value) {
        return new Batch(1, Collections.singletonList(key), Collections.singletonList(value), null, null);
    }

    void check(int columns) {
        check(columns & Abi.KEYS, "keys", keys);
        check(columns & Abi.VALUES, "values", values);
        check(columns & Abi.HEADERS, "headers", headers);
        if (timestamps != null && timestamps.length != rows) {
            throw new StageException.Contract("the batch has " + timestamps.length + " timestamps for " + rows + " rows");
        }
    }

    private void check(int isRead, String name, List<?> column) {
        if (isRead != 0 && (column == null ? rows > 0 : column.size() != rows)) {
            int size = column == null ? 0 : column.size();
            throw new StageException.Contract(
                "the plug-in reads " + name + ", of which this batch has " + size + " for " + rows + " rows");
        }
    }
}
