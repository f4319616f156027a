package millstream.stage;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.IntStream;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;

/**
 * What goes in and out, and all that a plug-in can do wrong. {@code MILLSTREAM_PLUGINS} names the folder of the plug-ins
 * that the tests of Millstream write.
 */
@EnabledIfEnvironmentVariable(named = "MILLSTREAM_PLUGINS", matches = ".+")
class StageTest {
    static final Path PLUGINS = Path.of(System.getenv("MILLSTREAM_PLUGINS"));

    static Path plugin(String name) {
        return PLUGINS.resolve(name + ".core.wasm");
    }

    private static Partitioner murmur2() {
        return new Partitioner(plugin("murmur2.no-simd"), "{}");
    }

    private static Filter guest(String name) {
        return new Filter(plugin(name), "{}");
    }

    private static Batch values(String... values) {
        return Batch.ofValues(Arrays.stream(values).map(value -> value.getBytes(UTF_8)).toList());
    }

    @Test
    void tenThousandKeysAgreeWithKafka() {
        List<byte[]> keys = new ArrayList<>();
        for (int row = 0; row < 10_000; row++) {
            byte[] key = new byte[row % 41];
            for (int at = 0; at < key.length; at++) {
                key[at] = (byte) ((row * 31 + at * 7) * (row + 1) >> 3);
            }
            keys.add(key);
        }
        int[] chosen = murmur2().partition("t", 12, Batch.ofKeys(keys));
        assertArrayEquals(keys.stream().mapToInt(key -> BuiltInPartitioner.partitionForKey(key, 12)).toArray(), chosen);
        assertEquals(12, Arrays.stream(chosen).distinct().count());
    }

    @Test
    void aKeyOfAMebibyte() {
        byte[] key = new byte[1 << 20];
        for (int at = 0; at < key.length; at++) {
            key[at] = (byte) at;
        }
        int expected = BuiltInPartitioner.partitionForKey(key, 12);
        assertArrayEquals(new int[] {expected}, murmur2().partition("t", 12, Batch.ofKeys(List.of(key))));
    }

    @Test
    void nullAndEmptyKeys() {
        byte[] k = {'k'};
        int[] chosen = murmur2().partition("t", 12, Batch.ofKeys(Arrays.asList(null, new byte[0], null, k)));
        assertEquals(BuiltInPartitioner.partitionForKey(new byte[0], 12), chosen[1]);
        assertEquals(BuiltInPartitioner.partitionForKey(k, 12), chosen[3]);
        assertTrue(Arrays.stream(chosen).allMatch(one -> one >= 0 && one < 12));
    }

    @Test
    void recordsWithoutKeysAvoidPartitionsWithoutALeader() {
        Partitioner murmur2 = murmur2();
        for (int turn = 0; turn < 20; turn++) {
            assertArrayEquals(new int[] {1}, murmur2.partition("t", 3, Batch.ofOne(null, null), 0, 2));
        }
    }

    @Test
    void noRows() {
        assertEquals(0, murmur2().partition("t", 12, Batch.ofKeys(List.of())).length);
        assertEquals(0, contains().filter("t", values()).length);
    }

    @Test
    void pluginsInCAndGo() {
        Batch batch = Batch.ofValues(IntStream.range(0, 1_000)
                .mapToObj(row -> (row % 10 == 3 ? "an error" : "fine").getBytes(UTF_8)).toList());
        byte[] expected = contains().filter("t", batch);
        for (String name : List.of("contains-c.no-simd", "contains-go.no-simd")) {
            // Without its compiler the plug-in is not there.
            if (Files.exists(plugin(name))) {
                assertArrayEquals(expected, new Filter(plugin(name), "{\"text\":\"error\"}").filter("t", batch), name);
            }
        }
    }

    @Test
    void aPartitionThatDoesNotExist() {
        var wrong = new Partitioner(plugin("no-such-partition"), "{}");
        var error = assertThrows(
            StageException.Contract.class, () -> wrong.partition("t", 12, Batch.ofOne(new byte[1], null)));
        assertTrue(error.getMessage().contains("99 of 12"), error.getMessage());
    }

    private static Filter contains() {
        return new Filter(plugin("contains.no-simd"), "{\"text\":\"error\"}");
    }

    @Test
    void tenThousandRows() {
        List<Integer> numbers = IntStream.range(0, 10_000).boxed().toList();
        List<byte[]> values = new ArrayList<>();
        for (int row : numbers) {
            values.add(row % 10 == 4 ? null : (row % 10 == 3 ? "an error" : "fine").getBytes(UTF_8));
        }
        List<Integer> kept = contains().kept("t", Batch.ofValues(values), numbers);
        assertEquals(numbers.stream().filter(row -> row % 10 == 3).toList(), kept);
    }

    @Test
    void allColumnsArrive() {
        byte[][] bytes = {{'k'}, {'v'}, {'1'}};
        List<Batch.Header> headers = List.of(new Batch.Header("n", bytes[2]), new Batch.Header("m", null));
        Batch batch = new Batch(2, Arrays.asList(null, bytes[0]), Arrays.asList(bytes[1], null),
            new long[] {1_700_000_000_123L, -1}, List.of(headers, List.of()));
        assertArrayEquals(new byte[] {3}, guest("columns").filter("t", batch));
    }

    @Test
    void aColumnThatIsMissing() {
        Filter contains = contains();
        var error = assertThrows(
            StageException.Contract.class, () -> contains.filter("t", Batch.ofKeys(List.of(new byte[1]))));
        assertTrue(error.getMessage().contains("reads values"), error.getMessage());
    }

    @Test
    void aConfigurationThatIsRefused() {
        var error = assertThrows(
            StageException.Config.class, () -> new Filter(plugin("contains.no-simd"), "{\"text\":\"\"}"));
        assertEquals("/text", error.field());
        assertTrue(error.getMessage().contains("the text is empty"), error.getMessage());
    }

    @Test
    void filesThatAreNoPluginsForThisUse() {
        for (var wrong : List.of(
            List.of("murmur2.no-simd.core.wasm", "exports no filter"),
            List.of("contains.wasm", "plugin unbundle"),
            List.of("contains.core.wasm", "plugin build --no-simd"))) {
            Path path = PLUGINS.resolve(wrong.get(0));
            var error = assertThrows(StageException.Contract.class, () -> new Filter(path, "{}"));
            assertTrue(error.getMessage().contains(wrong.get(1)), error.getMessage());
        }
    }

    @Test
    void badRowsHaveTheWordsOfThePlugin() {
        Filter bad = guest("bad-rows");
        var error = assertThrows(StageException.Rows.class, () -> bad.filter("t", values("a", "p", "b", "poison")));
        String message = "this row is poison";
        assertEquals(List.of(new StageException.Row(1, message), new StageException.Row(3, message)), error.rows());
    }

    @Test
    void aBadBatchHasTheWordsOfThePlugin() {
        Filter bad = guest("bad-batch");
        var error = assertThrows(StageException.Batch.class, () -> bad.filter("t", values("a")));
        assertEquals("this batch is poison", error.getMessage());
    }

    @Test
    void aTrapHasTheWordsOfThePluginAndTheNextCallANewInstance() {
        Filter traps = guest("traps");
        for (int turn = 0; turn < 3; turn++) {
            var error = assertThrows(StageException.Trap.class, () -> traps.filter("t", values("x")));
            assertTrue(error.getMessage().startsWith("trapped in filter: "), error.getMessage());
            assertTrue(error.getMessage().endsWith("; it said: my last words"), error.getMessage());
            // The plug-in remembers in its memory that it has trapped, and would say so.
            assertArrayEquals(new byte[] {1}, traps.filter("t", values("a")));
        }
    }

    @Test
    void answersThatBreakTheContract() {
        for (var wrong : List.of(
            List.of("no-such-row", "row 7 of 1"),
            List.of("wrong-size", "99 bytes for 1 rows"),
            List.of("beyond", "beyond the end of memory"),
            List.of("wrong-realloc", "beyond the end of memory"))) {
            Filter filter = guest(wrong.get(0));
            var error = assertThrows(StageException.Contract.class, () -> filter.filter("t", values("a")));
            assertTrue(error.getMessage().contains(wrong.get(1)), error.getMessage());
        }
    }

    @Test
    void memoryHasALimit() {
        Filter grows = guest("grows");
        assertThrows(StageException.Trap.class, () -> grows.filter("t", values("a")));
        Filter more = new Filter(plugin("grows"), "{}", new Stage.Limits(null, 64 << 20));
        assertArrayEquals(new byte[] {1}, more.filter("t", values("a")));
    }

    @Test
    void anEndlessCallIsStopped() {
        Filter loops = new Filter(plugin("loops"), "{}", new Stage.Limits(Duration.ofSeconds(2), 16 << 20));
        for (int turn = 0; turn < 2; turn++) {
            assertThrows(StageException.Deadline.class, () -> loops.filter("t", values("x")));
        }
        assertTrue(!Thread.currentThread().isInterrupted(), "the interrupt does not reach the application");
        assertArrayEquals(new byte[] {1}, loops.filter("t", values("a")));
    }
}
