package millstream.stage;

import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** Measures a filter: {@code Bench CONTAINS.no-simd.core.wasm}. Prints the median ns a row. */
public final class Bench {
    private static final int ROWS = 1000;

    private Bench() {}

    public static void main(String[] arguments) {
        Batch batch = Batch.ofValues(values());
        Batch one = Batch.ofValues(batch.values().subList(0, 1));
        for (Duration deadline : new Duration[] {null, Duration.ofSeconds(1)}) {
            String what = deadline == null ? "" : " with a deadline";
            Filter filter = new Filter(Path.of(arguments[0]), "{\"text\":\"error\"}", new Stage.Limits(deadline, 16 << 20));
            if (filter.kept("bench", batch, batch.values()).size() != ROWS / 10) {
                throw new AssertionError("the filter keeps other rows");
            }
            // The compiler of the JVM needs that long.
            median(3, () -> filter.filter("bench", batch));
            System.out.printf("batch and call%s: %.1f ns a row%n", what, (double) median(2, () -> filter.filter("bench", batch)) / ROWS);
            System.out.printf("one record a call%s: %d ns a call%n", what, median(1, () -> filter.filter("bench", one)));
        }
    }

    /** Returns 104 bytes a row; every tenth holds the text. */
    private static List<byte[]> values() {
        List<byte[]> values = new ArrayList<>();
        for (int row = 0; row < ROWS; row++) {
            String key = String.format("%016x", row * 0x9e37_79b9_7f4a_7c15L);
            StringBuilder text = new StringBuilder("{\"id\":" + row + ",\"name\":\"");
            for (int at = 0; text.length() < 102; at++) {
                text.append(key.charAt(at % 16));
            }
            if (row % 10 == 3) {
                text.replace(50, 55, "error");
            }
            values.add(text.append("\"}").toString().getBytes(StandardCharsets.UTF_8));
        }
        return values;
    }

    /** Returns the median time of a call in ns. */
    private static long median(int seconds, Runnable work) {
        List<Long> times = new ArrayList<>();
        for (long end = System.nanoTime() + seconds * 1_000_000_000L; System.nanoTime() < end; ) {
            long begun = System.nanoTime();
            work.run();
            times.add(System.nanoTime() - begun);
        }
        long[] sorted = times.stream().mapToLong(Long::longValue).toArray();
        Arrays.sort(sorted);
        return sorted[sorted.length / 2];
    }
}
