// A batch of records as columns, as the contract has them.

const EMPTY = new Uint8Array(0);
const NO_TIMESTAMPS = new BigInt64Array(0);

/**
 * Returns the records of a call. `batch` has an array for each column: `keys` and `values` of bytes or null,
 * `timestamps` of numbers or BigInts in milliseconds, and `headers` of arrays of pairs of a name and a value. A plug-in
 * gets only the columns that it asks for. Without timestamps records have that of the call. A batch with a number of
 * `rows` is passed on as it is: `records` has made it.
 */
export function records(batch, rows, columns) {
  if (batch.rows !== undefined) return batch;
  return {
    rows,
    timestamps: columns.timestamps ? longs(batch.timestamps ?? new Array(rows).fill(Date.now())) : NO_TIMESTAMPS,
    keys: columns.keys ? column(batch.keys) : undefined,
    values: columns.values ? column(batch.values) : undefined,
    headers: columns.headers ? headers(batch.headers) : undefined,
  };
}

function longs(values) {
  return BigInt64Array.from(values, (value) => BigInt(value));
}

function column(values) {
  const ends = new Uint32Array(values.length);
  let size = 0;
  let nulls = EMPTY;
  for (let row = 0; row < values.length; row++) {
    const value = values[row];
    if (value === null || value === undefined) {
      if (nulls.length === 0) nulls = new Uint8Array((values.length + 7) >> 3);
      nulls[row >> 3] |= 1 << (row & 7);
    } else {
      size += value.length;
    }
    ends[row] = size;
  }
  // Not filled with zeros: every byte is written below.
  const data = Buffer.allocUnsafe(size);
  let at = 0;
  for (let row = 0; row < values.length; row++) {
    const value = values[row];
    if (ends[row] > at) data.set(value, at);
    at = ends[row];
  }
  return { data, ends, nulls };
}

function headers(rows) {
  const ends = new Uint32Array(rows.length);
  const names = [];
  const values = [];
  rows.forEach((row, index) => {
    for (const [name, value] of row ?? []) {
      names.push(Buffer.from(name));
      values.push(value);
    }
    ends[index] = names.length;
  });
  return { ends, names: column(names), values: column(values) };
}
