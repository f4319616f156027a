/* A partitioner: chooses the partition of each record. */
#include "millstream.h"

static size_t prefix;

/* Reads the configuration: what a user writes as {{name}}{"prefix":2}. */
static void configure(void) {
    prefix = (size_t)ms_config_integer("prefix", 0, 1 << 20);
}

/* Returns a partition, from 0 to count - 1. Keys with the same prefix go to the same one. */
static uint32_t partition(const ms_record *record, const ms_partitions *partitions) {
    if (!record->key.data) {
        ms_reject("a record needs a key");
        return 0;
    }
    uint32_t hash = 0;
    for (size_t i = 0; i < prefix && i < record->key.length; i++) hash = hash * 31 + record->key.data[i];
    return hash % partitions->count;
}

MILLSTREAM_PARTITIONER("{{name}}", "0.1.0", MS_KEYS, configure, partition)
