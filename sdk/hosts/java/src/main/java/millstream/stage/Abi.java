package millstream.stage;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import run.endive.runtime.ExportFunction;
import run.endive.runtime.Instance;
import run.endive.runtime.Memory;
import run.endive.runtime.WasmInterruptedException;
import run.endive.wasm.WasmEngineException;
import run.endive.wasm.types.FunctionType;
import run.endive.wasm.types.ValType;

/**
 * The canonical ABI of the contract, by hand: one instance of a core module, and the calls that it takes. After a trap
 * it must not be used again. docs/by-hand.md describes the layout. Nothing that the module returns is trusted: each
 * address is checked.
 */
final class Abi {
    static final String HOST = "millstream:stage/host@1.0.0";
    static final int TIMESTAMPS = 1;
    static final int KEYS = 2;
    static final int VALUES = 4;
    static final int HEADERS = 8;

    private static final String[] KINDS = {"partitioner", "serializer", "compressor", "filter"};

    private final Memory memory;
    private final Map<String, ExportFunction> functions = new HashMap<>();

    /** The first line that the plug-in logged as an error in the call. */
    private String said;

    /** What a call to the host did wrong. */
    private StageException fault;

    record Description(String name, String version, String kind, int columns) {}

    /** An address and a size, in bytes or in elements. */
    private record Span(int at, int size) {}

    /** Takes an instance whose plug-in has the function {@code call}. */
    Abi(Instance instance, String call) {
        memory = instance.memory();
        if (memory == null) {
            throw new StageException.Contract("it exports no memory: it is not the core module of a plug-in");
        }
        add(instance, "cabi_realloc", 4, 1, true);
        add(instance, "describe", 0, 1, true);
        add(instance, "configure", 2, 1, true);
        add(instance, call, 1, 1, true);
        for (String name : List.of("describe", "configure", call)) {
            add(instance, "cabi_post_" + name, 1, 0, false);
        }
        add(instance, "_initialize", 0, 0, false);
        if (functions.containsKey("_initialize")) {
            call("_initialize");
        }
    }

    private void add(Instance instance, String name, int arguments, int results, boolean isNeeded) {
        ExportFunction function;
        FunctionType type;
        try {
            function = instance.export(name);
            type = instance.exportType(name);
        } catch (WasmEngineException missing) {
            if (isNeeded) {
                throw new StageException.Contract("it exports no " + name + ": it is not a plug-in for this use");
            }
            return;
        }
        var wanted = FunctionType.of(Collections.nCopies(arguments, ValType.I32), Collections.nCopies(results, ValType.I32));
        if (!type.equals(wanted)) {
            throw new StageException.Contract("its function " + name + " has another type than in the contract");
        }
        functions.put(name, function);
    }

    Description describe() {
        int at = call("describe");
        Span name = span(at);
        Span version = span(at + 8);
        byte[] flags = bytes(at + 16, 2);
        if (flags[0] < 0 || flags[0] >= KINDS.length) {
            throw new StageException.Contract("describe returned the kind " + flags[0]);
        }
        var described = new Description(text(name), text(version), KINDS[flags[0]], flags[1]);
        post("describe", at);
        return described;
    }

    void configure(String json) {
        Span text = put(json.getBytes(UTF_8), 1);
        int at = call("configure", text.at, text.size);
        if (bytes(at, 20)[0] != 0) {
            throw new StageException.Config(text(span(at + 4)), text(span(at + 12)));
        }
        post("configure", at);
    }

    /** Returns the bitmap of the rows to keep. */
    byte[] filter(String topic, Batch batch, int columns) {
        ByteBuffer block = block();
        append(block, put(topic.getBytes(UTF_8), 1));
        int at = ask("filter", block, batch, columns);
        Span keep = span(at + 4);
        if (keep.size != (batch.rows() + 7) / 8) {
            throw new StageException.Contract("filter returned a bitmap of "
                + Integer.toUnsignedString(keep.size) + " bytes for " + batch.rows() + " rows");
        }
        byte[] bitmap = bytes(keep.at, keep.size);
        post("filter", at);
        return bitmap;
    }

    /** Returns one partition for each row. */
    int[] partition(String topic, long[] load, Batch batch, int columns) {
        ByteBuffer block = block();
        append(block, put(topic.getBytes(UTF_8), 1));
        int at = reserve(8 * load.length, 8);
        for (int partition = 0; partition < load.length; partition++) {
            memory.writeLong(at + 8 * partition, load[partition]);
        }
        block.putInt(load.length).putInt(at).putInt(load.length);
        int answer = ask("partition", block, batch, columns);
        Span list = span(answer + 4);
        if (list.size != batch.rows()) {
            throw new StageException.Contract("partition returned "
                + Integer.toUnsignedString(list.size) + " partitions for " + batch.rows() + " rows");
        }
        int[] chosen = new int[list.size];
        buffer(list.at, 4 * list.size).asIntBuffer().get(chosen);
        for (int one : chosen) {
            if (one < 0 || one >= load.length) {
                throw new StageException.Contract(
                    "partition returned " + Integer.toUnsignedString(one) + " of " + load.length);
            }
        }
        post("partition", answer);
        return chosen;
    }

    /** Makes a call with the records behind what the block holds already, and returns the address of a good result. */
    private int ask(String name, ByteBuffer block, Batch batch, int columns) {
        records(block, batch, columns);
        byte[] bytes = new byte[block.position()];
        block.flip().get(bytes);
        int at = call(name, put(bytes, 8).at);
        ByteBuffer area = buffer(at, 16);
        if (area.get(0) == 0) {
            return at;
        }
        Span found = new Span(area.getInt(8), area.getInt(12));
        StageException error =
            area.get(4) == 0 ? rowErrors(name, found, batch.rows()) : new StageException.Batch(text(found));
        post(name, at);
        throw error;
    }

    private StageException rowErrors(String name, Span list, int rows) {
        if (list.size <= 0 || list.size > rows) {
            return new StageException.Contract(name + " returned errors for "
                + Integer.toUnsignedString(list.size) + " of " + rows + " rows");
        }
        ByteBuffer area = buffer(list.at, 12 * list.size);
        List<StageException.Row> found = new ArrayList<>();
        while (area.hasRemaining()) {
            found.add(new StageException.Row(area.getInt(), text(new Span(area.getInt(), area.getInt()))));
        }
        found.sort((one, other) -> Integer.compareUnsigned(one.row(), other.row()));
        int last = found.get(found.size() - 1).row();
        if (Integer.compareUnsigned(last, rows) >= 0) {
            return new StageException.Contract(name + " returned an error for row "
                + Integer.toUnsignedString(last) + " of " + rows);
        }
        return new StageException.Rows(found);
    }

    private static ByteBuffer block() {
        return ByteBuffer.allocate(160).order(ByteOrder.LITTLE_ENDIAN);
    }

    /** Copies the columns that the plug-in reads, and appends the record that points at them. */
    private void records(ByteBuffer block, Batch batch, int columns) {
        int rows = batch.rows();
        block.putInt(rows);
        if ((columns & TIMESTAMPS) != 0) {
            int at = reserve(8 * rows, 8);
            long now = System.currentTimeMillis();
            for (int row = 0; row < rows; row++) {
                memory.writeLong(at + 8 * row, batch.timestamps() == null ? now : batch.timestamps()[row]);
            }
            block.putInt(at).putInt(rows);
        } else {
            block.putInt(8).putInt(0);
        }
        optional(block, batch.keys(), columns & KEYS);
        optional(block, batch.values(), columns & VALUES);
        if ((columns & HEADERS) == 0) {
            block.putInt(0).putInt(4).putInt(0);
            empty(block);
            empty(block);
            return;
        }
        List<byte[]> names = new ArrayList<>();
        List<byte[]> values = new ArrayList<>();
        int at = reserve(4 * rows, 4);
        for (int row = 0; row < rows; row++) {
            for (Batch.Header header : batch.headers().get(row)) {
                names.add(header.name().getBytes(UTF_8));
                values.add(header.value());
            }
            memory.writeI32(at + 4 * row, names.size());
        }
        block.putInt(1).putInt(at).putInt(rows);
        column(block, names);
        column(block, values);
    }

    private void optional(ByteBuffer block, List<byte[]> rows, int isRead) {
        block.putInt(isRead == 0 ? 0 : 1);
        if (isRead == 0) {
            empty(block);
        } else {
            column(block, rows == null ? List.of() : rows);
        }
    }

    private static void empty(ByteBuffer block) {
        block.putInt(1).putInt(0).putInt(4).putInt(0).putInt(1).putInt(0);
    }

    /** Copies a column straight into memory of the plug-in, and appends the record that points at it. */
    private void column(ByteBuffer block, List<byte[]> rows) {
        long size = 0;
        byte[] nulls = {};
        for (int row = 0; row < rows.size(); row++) {
            byte[] value = rows.get(row);
            if (value != null) {
                size += value.length;
            } else {
                nulls = nulls.length == 0 ? new byte[(rows.size() + 7) / 8] : nulls;
                nulls[row / 8] |= (byte) (1 << row % 8);
            }
        }
        if (size > Integer.MAX_VALUE) {
            throw new StageException.Contract("a column of " + size + " bytes is too large for a plug-in");
        }
        int data = reserve((int) size, 1);
        int ends = reserve(4 * rows.size(), 4);
        int end = 0;
        for (int row = 0; row < rows.size(); row++) {
            byte[] value = rows.get(row);
            if (value != null && value.length > 0) {
                memory.write(data + end, value, 0, value.length);
                end += value.length;
            }
            memory.writeI32(ends + 4 * row, end);
        }
        append(block, new Span(data, end));
        append(block, new Span(ends, rows.size()));
        append(block, put(nulls, 1));
    }

    private static void append(ByteBuffer block, Span span) {
        block.putInt(span.at).putInt(span.size);
    }

    /** Copies bytes into memory of the plug-in, which owns it then. */
    private Span put(byte[] bytes, int align) {
        int at = reserve(bytes.length, align);
        if (bytes.length > 0) {
            memory.write(at, bytes, 0, bytes.length);
        }
        return new Span(at, bytes.length);
    }

    /** Lets the plug-in allocate memory, which it owns then, and checks that it is there. */
    private int reserve(int size, int align) {
        return size == 0 ? align : inside(call("cabi_realloc", 0, 0, align, size), size);
    }

    private int inside(int at, int size) {
        if (Integer.toUnsignedLong(at) + Integer.toUnsignedLong(size) > (long) memory.pages() * Memory.PAGE_SIZE) {
            throw new StageException.Contract("the plug-in names " + Integer.toUnsignedString(size) + " bytes at "
                + Integer.toUnsignedString(at) + ", beyond the end of memory");
        }
        return at;
    }

    private byte[] bytes(int at, int size) {
        return memory.readBytes(inside(at, size), size);
    }

    private ByteBuffer buffer(int at, int size) {
        return ByteBuffer.wrap(bytes(at, size)).order(ByteOrder.LITTLE_ENDIAN);
    }

    private Span span(int at) {
        ByteBuffer area = buffer(at, 8);
        return new Span(area.getInt(), area.getInt());
    }

    private String text(Span span) {
        return new String(bytes(span.at, span.size), UTF_8);
    }

    /** Lets the plug-in free what its response points at. */
    private void post(String name, int at) {
        if (functions.containsKey("cabi_post_" + name)) {
            call("cabi_post_" + name, at);
        }
        said = null;
    }

    private int call(String name, long... arguments) {
        long[] result;
        try {
            result = functions.get(name).apply(arguments);
        } catch (WasmInterruptedException interrupted) {
            throw interrupted;
        } catch (RuntimeException | StackOverflowError | OutOfMemoryError trap) {
            String words = said == null ? "" : "; it said: " + said;
            throw new StageException.Trap("trapped in " + name + ": " + trap.getMessage() + words, trap);
        }
        if (fault != null) {
            throw fault;
        }
        return result == null || result.length == 0 ? 0 : (int) result[0];
    }

    /** Returns a line that the plug-in logs. */
    String logged(int level, int at, int size, int sizeMax) {
        String line = heard(at, Integer.compareUnsigned(size, sizeMax) > 0 ? sizeMax : size);
        if (level == 0 && said == null) {
            said = line;
        }
        return line;
    }

    /** Returns a text of a call to the host. An error waits for the end of the plug-in's call. */
    String heard(int at, int size) {
        try {
            return text(new Span(at, size));
        } catch (StageException.Contract error) {
            fault = error;
            return "";
        }
    }
}
