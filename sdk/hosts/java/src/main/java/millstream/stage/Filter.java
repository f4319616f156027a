package millstream.stage;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** Decides which records to keep. */
public final class Filter extends Stage {
    /** Loads the core module of a filter with its configuration, a JSON object. */
    public Filter(Path path, String config) {
        this(path, config, Limits.DEFAULT);
    }

    /** Loads the core module of a filter with its configuration, a JSON object, under limits. */
    public Filter(Path path, String config, Limits limits) {
        super(path, "filter", "filter", config, limits);
    }

    /** Returns a bitmap with a set bit for each row to keep: row {@code i} is bit {@code i % 8} of byte {@code i / 8}. */
    public byte[] filter(String topic, Batch batch) {
        return call(batch, (abi, columns) -> abi.filter(topic, batch, columns));
    }

    /** Returns those of the items, one for each row of the batch, that the filter keeps. */
    public <T> List<T> kept(String topic, Batch batch, List<T> items) {
        byte[] bitmap = filter(topic, batch);
        List<T> kept = new ArrayList<>();
        for (int row = 0; row < batch.rows(); row++) {
            if ((bitmap[row / 8] >> row % 8 & 1) != 0) {
                kept.add(items.get(row));
            }
        }
        return kept;
    }
}
