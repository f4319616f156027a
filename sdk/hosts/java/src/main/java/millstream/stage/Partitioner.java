package millstream.stage;

import java.nio.file.Path;

/** Chooses a partition for each record. */
public final class Partitioner extends Stage {
    /** Loads the core module of a partitioner with its configuration, a JSON object. */
    public Partitioner(Path path, String config) {
        this(path, config, Limits.DEFAULT);
    }

    /** Loads the core module of a partitioner with its configuration, a JSON object, under limits. */
    public Partitioner(Path path, String config, Limits limits) {
        super(path, "partitioner", "partition", config, limits);
    }

    /** Returns a partition below {@code partitions} for each row. Those without a leader are in {@code unavailable}. */
    public int[] partition(String topic, int partitions, Batch batch, int... unavailable) {
        long[] load = new long[partitions];
        for (int one : unavailable) {
            // The greatest number of 64 bits without a sign.
            load[one] = -1;
        }
        return call(batch, (abi, columns) -> abi.partition(topic, load, batch, columns));
    }
}
