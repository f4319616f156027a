package millstream.stage;

import java.util.List;

/** Any error of a plug-in, or about one. Its message has the plug-in's own words. */
@SuppressWarnings("serial")
public class StageException extends RuntimeException {
    StageException(String message, Throwable cause) {
        super(message, cause);
    }

    /** The plug-in rejects its configuration. */
    public static final class Config extends StageException {
        private final String field;

        Config(String field, String message) {
            super(field.isEmpty() ? message : "at `" + field + "`: " + message, null);
            this.field = field;
        }

        /** Returns a JSON Pointer to what is wrong, empty for the whole configuration. */
        public String field() {
            return field;
        }
    }

    /** The plug-in rejects the whole batch. */
    public static final class Batch extends StageException {
        Batch(String message) {
            super(message, null);
        }
    }

    /** The message about one row. */
    public record Row(int row, String message) {}

    /** The plug-in rejects some rows; the others are good. */
    public static final class Rows extends StageException {
        private final List<Row> rows;

        Rows(List<Row> rows) {
            super("row " + rows.get(0).row() + ": " + rows.get(0).message()
                + (rows.size() > 1 ? " (and " + (rows.size() - 1) + " more rows)" : ""), null);
            this.rows = rows;
        }

        /** Returns the bad rows, in order. */
        public List<Row> rows() {
            return rows;
        }
    }

    /** The plug-in has trapped. Its next call runs in a new instance. */
    public static class Trap extends StageException {
        Trap(String message, Throwable cause) {
            super(message, cause);
        }
    }

    /** A call has run past its deadline and was stopped. The next one runs in a new instance. */
    public static final class Deadline extends Trap {
        Deadline(String call) {
            super(call + " has run past its deadline and was stopped", null);
        }
    }

    /** The file is not a plug-in for this use, or a response breaks the contract. */
    public static final class Contract extends StageException {
        Contract(String message) {
            super(message, null);
        }

        Contract(String message, Throwable cause) {
            super(message, cause);
        }
    }
}
