// What goes wrong with a plug-in, in its own words.

/** Any error of a plug-in, or about one. */
export class StageError extends Error {
  get name() {
    return this.constructor.name;
  }
}

/** The plug-in rejects its configuration. `field` is a JSON Pointer, empty for the whole configuration. */
export class ConfigError extends StageError {
  constructor({ field, message }) {
    super(field ? `at \`${field}\`: ${message}` : message);
    this.field = field;
  }
}

/** The plug-in rejects the whole batch. */
export class BatchError extends StageError {}

/** The plug-in rejects these rows; the others are good. `rows` has objects with a row and its message. */
export class RowErrors extends StageError {
  constructor(rows) {
    const more = rows.length > 1 ? ` (and ${rows.length - 1} more rows)` : '';
    super(`row ${rows[0].row}: ${rows[0].message}${more}`);
    this.rows = rows;
  }
}

/** The plug-in has trapped. Its next call runs in a new instance. */
export class Trap extends StageError {}

/** The plug-in has more memory than it may have. Its next call runs in a new instance. */
export class MemoryError extends Trap {}

/** The folder is not a plug-in for this use, or a response breaks the contract. */
export class ContractError extends StageError {}
