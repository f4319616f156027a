/* A partitioner that chooses a partition that is not there. */
#include "millstream.h"

static int64_t beyond;

static void configure(void) { beyond = ms_config_integer("beyond", 0, UINT32_MAX); }

static uint32_t partition(const ms_record *record, const ms_partitions *partitions) {
    (void)record;
    return beyond == UINT32_MAX ? UINT32_MAX : partitions->count + (uint32_t)beyond;
}

MILLSTREAM_PARTITIONER("c-partitioner", "0.1.0", 0, configure, partition)
