package millstream.stage;

import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import org.apache.kafka.common.config.AbstractConfig;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.common.config.ConfigDef.Importance;
import org.apache.kafka.common.config.ConfigDef.Type;

/** The configs of a stage inside a client of Kafka: {@code PREFIX.path}, {@code .config}, {@code .deadline.ms}, {@code .memory.bytes}. */
record StageConfig(Path path, String config, Stage.Limits limits) {
    static StageConfig of(String prefix, Map<String, ?> configs) {
        ConfigDef keys = new ConfigDef()
            .define(prefix + ".path", Type.STRING, Importance.HIGH, "The core module of the plug-in.")
            .define(prefix + ".config", Type.STRING, "{}", Importance.MEDIUM, "Its configuration, a JSON object.")
            .define(prefix + ".deadline.ms", Type.LONG, 0L, Importance.LOW, "The time of a call; 0: without a limit.")
            .define(prefix + ".memory.bytes", Type.INT, 16 << 20, Importance.LOW, "The most memory of the plug-in.");
        AbstractConfig found = new AbstractConfig(keys, configs, false);
        long deadline = found.getLong(prefix + ".deadline.ms");
        var limits = new Stage.Limits(
            deadline > 0 ? Duration.ofMillis(deadline) : null, found.getInt(prefix + ".memory.bytes"));
        return new StageConfig(Path.of(found.getString(prefix + ".path")), found.getString(prefix + ".config"), limits);
    }
}
