package millstream.stage;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.BiFunction;
import java.util.function.Function;
import java.util.function.Supplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import run.endive.compiler.InterpreterFallback;
import run.endive.compiler.MachineFactoryCompiler;
import run.endive.runtime.HostFunction;
import run.endive.runtime.ImportValues;
import run.endive.runtime.Instance;
import run.endive.runtime.Machine;
import run.endive.runtime.Memory;
import run.endive.runtime.WasmInterruptedException;
import run.endive.wasm.Parser;
import run.endive.wasm.WasmModule;
import run.endive.wasm.types.FunctionType;
import run.endive.wasm.types.MemoryLimits;
import run.endive.wasm.types.ValType;

/**
 * A plug-in with its configuration. Threads may share one: their calls take turns. After a trap the next call runs in a
 * new instance.
 */
public abstract class Stage {
    private static final Logger LOGGER = LoggerFactory.getLogger("millstream.stage");
    private static final int LINES_A_SECOND = 50;
    private static final int LINE_BYTES = 1024;
    private static final int COUNTERS_MAX = 64;

    /**
     * The limits of a plug-in. Without a deadline (null) a call may run forever.
     *
     * @param deadline the time of a call
     * @param memoryBytes the most memory of the plug-in
     */
    public record Limits(Duration deadline, int memoryBytes) {
        /** No deadline, and 16 MiB of memory as in Millstream. */
        public static final Limits DEFAULT = new Limits(null, 16 << 20);
    }

    private final String kind;
    private final String call;
    private final String config;
    private final Limits limits;
    private final WasmModule module;
    private final Function<Instance, Machine> code;
    private final Map<String, Long> counters = new HashMap<>();
    private Abi abi;
    private Abi.Description description;
    private long second;
    private int lines;

    /** Loads a core module, as {@code millstream plugin unbundle} writes it. */
    Stage(Path path, String kind, String call, String config, Limits limits) {
        this.kind = kind;
        this.call = call;
        this.config = config;
        this.limits = limits;
        try {
            module = Parser.parse(Files.readAllBytes(path));
        } catch (IOException error) {
            throw new StageException.Contract("cannot read " + path + ": " + error, error);
        } catch (RuntimeException error) {
            throw new StageException.Contract(
                path + " is not a core module (`millstream plugin unbundle` writes one): " + error.getMessage(), error);
        }
        try {
            // The interpreter would be some sixty times slower.
            code = MachineFactoryCompiler.builder(module).withInterpreterFallback(InterpreterFallback.FAIL).compile();
        } catch (RuntimeException error) {
            throw new StageException.Contract(path + " cannot be compiled: Endive has no vector instructions,"
                + " so build it with `millstream plugin build --no-simd`: " + error.getMessage(), error);
        }
        try {
            start();
        } catch (StageException error) {
            // The plug-in's words stay, with the file in front of the trace.
            error.addSuppressed(new IllegalArgumentException(path.toString()));
            throw error;
        }
    }

    /** Returns what the plug-in calls itself. */
    public String name() {
        return description.name();
    }

    /** Returns what the plug-in has counted, by name. */
    public synchronized Map<String, Long> counters() {
        return Map.copyOf(counters);
    }

    /** Returns whether the plug-in reads headers. */
    boolean readsHeaders() {
        return (description.columns() & Abi.HEADERS) != 0;
    }

    private void start() {
        abi = null;
        abi = within(() -> {
            Abi[] made = new Abi[1];
            Instance.Builder builder = Instance.builder(module).withImportValues(host(made)).withMachineFactory(code);
            module.memorySection().filter(memories -> memories.memoryCount() > 0).ifPresent(memories -> {
                MemoryLimits declared = memories.getMemory(0).limits();
                int most = Math.min(declared.maximumPages(), limits.memoryBytes() / Memory.PAGE_SIZE);
                if (declared.initialPages() > most) {
                    throw new StageException.Contract("it needs " + declared.initialPages() + " pages of memory, over " + most);
                }
                builder.withMemoryLimits(new MemoryLimits(declared.initialPages(), most));
            });
            Instance instance;
            try {
                instance = builder.build();
            } catch (RuntimeException error) {
                throw new StageException.Contract("it cannot be started: " + error.getMessage(), error);
            }
            made[0] = new Abi(instance, call);
            description = made[0].describe();
            if (!description.kind().equals(kind)) {
                throw new StageException.Contract(name() + " is a " + description.kind() + ", not a " + kind);
            }
            made[0].configure(config);
            return made[0];
        });
    }

    /** Makes a call with a batch and the columns that the plug-in reads. */
    final synchronized <T> T call(Batch batch, BiFunction<Abi, Integer, T> work) {
        batch.check(description.columns());
        if (abi == null) {
            start();
        }
        try {
            return within(() -> work.apply(abi, description.columns()));
        } catch (StageException.Rows | StageException.Batch error) {
            throw error;
        } catch (RuntimeException error) {
            // Its memory may hold anything now.
            abi = null;
            throw error;
        }
    }

    /** Runs work within the deadline. Compiled code looks for an interrupt of its thread at each turn of a loop. */
    private <T> T within(Supplier<T> work) {
        Watch watch = limits.deadline() == null ? null : new Watch(Thread.currentThread(), limits.deadline());
        try {
            return work.get();
        } catch (WasmInterruptedException interrupted) {
            if (watch != null && watch.end()) {
                throw new StageException.Deadline(call);
            }
            throw new StageException.Trap("the thread was interrupted in " + call, interrupted);
        } finally {
            if (watch != null) {
                watch.end();
            }
        }
    }

    private ImportValues host(Abi[] caller) {
        var i32 = ValType.I32;
        return ImportValues.builder()
            .addFunction(new HostFunction(Abi.HOST, "log", FunctionType.of(List.of(i32, i32, i32), List.of()),
                (instance, words) -> {
                    int level = (int) words[0];
                    if (caller[0] != null) {
                        log(level, caller[0].logged(level, (int) words[1], (int) words[2], LINE_BYTES));
                    }
                    return null;
                }))
            .addFunction(new HostFunction(Abi.HOST, "count", FunctionType.of(List.of(i32, i32, ValType.I64), List.of()),
                (instance, words) -> {
                    int size = (int) words[1];
                    if (caller[0] != null && size > 0 && size <= COUNTERS_MAX) {
                        count(caller[0].heard((int) words[0], size), words[2]);
                    }
                    return null;
                }))
            .build();
    }

    private void log(int level, String line) {
        long now = System.currentTimeMillis() / 1000;
        if (now != second) {
            second = now;
            lines = 0;
        }
        if (++lines > LINES_A_SECOND) {
            return;
        }
        String plain = (description == null ? "a plug-in" : name()) + ": " + line.replaceAll("\\p{Cntrl}", "?");
        switch (level) {
            case 0 -> LOGGER.error(plain);
            case 1 -> LOGGER.warn(plain);
            case 2 -> LOGGER.info(plain);
            default -> LOGGER.debug(plain);
        }
    }

    private void count(String name, long delta) {
        if (counters.containsKey(name) || counters.size() < COUNTERS_MAX) {
            counters.merge(name, delta, Long::sum);
        }
    }
}
