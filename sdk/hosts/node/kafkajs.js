// Partitioner and filter for KafkaJS.

/**
 * Returns what KafkaJS calls a `createPartitioner`: `kafka.producer({ createPartitioner: partitioner(stage) })`. KafkaJS
 * shows one record a call.
 */
export function partitioner(stage) {
  return () => ({ topic, partitionMetadata, message }) => {
    const known = [...partitionMetadata].sort((one, other) => one.partitionId - other.partitionId);
    const unavailable = known.flatMap((one, at) => (one.leader < 0 ? [at] : []));
    return known[stage.partition(topic, known.length, columns([message]), unavailable)[0]].partitionId;
  };
}

/** Returns the messages of a batch, as `eachBatch` of a consumer gets it, that the filter keeps. */
export function kept(stage, batch) {
  return stage.kept(batch.topic, columns(batch.messages), batch.messages);
}

function columns(messages) {
  return {
    keys: messages.map(({ key }) => bytes(key)),
    values: messages.map(({ value }) => bytes(value)),
    timestamps: messages.map(({ timestamp }) => timestamp ?? Date.now()),
    headers: messages.map(({ headers }) => pairs(headers)),
  };
}

function bytes(value) {
  return typeof value === 'string' ? Buffer.from(value) : value;
}

function pairs(headers) {
  // A name that occurs several times has an array of values.
  return Object.entries(headers ?? {}).flatMap(([name, value]) =>
    (Array.isArray(value) ? value : [value]).map((one) => [name, bytes(one)]));
}
