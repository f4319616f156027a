/* What a plug-in in C includes. It is written as one of the macros at the end and the functions that the macro names.
 *
 * Types lie in memory as the host writes and reads them (the canonical ABI of components on wasm32). Bytes belong to
 * the host or to the SDK, and stay until the call ends; those of a configuration stay for as long as the plug-in runs.
 */
#ifndef MILLSTREAM_H
#define MILLSTREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Bytes or a text. `data` is NULL for a key, a value or a field that is not there. */
typedef struct {
    const uint8_t *data;
    size_t length;
} ms_bytes;

#define MS_TEXT(text) ((ms_bytes){(const uint8_t *)("" text), sizeof(text) - 1})

/* Row i is data[ends[i - 1]..ends[i]]; bit i of `nulls` marks a null. */
typedef struct {
    const uint8_t *data;
    size_t length;
    const uint32_t *ends;
    size_t rows;
    const uint8_t *nulls;
    size_t nulls_length;
} ms_column;

/* Row i has the headers ends[i - 1]..ends[i]. */
typedef struct {
    const uint32_t *ends;
    size_t rows;
    ms_column names;
    ms_column values;
} ms_headers;

/* A batch. It has only the columns that the plug-in reads. */
typedef struct {
    uint32_t rows;
    const int64_t *timestamps;
    size_t timestamps_length;
    bool has_keys;
    ms_column keys;
    bool has_values;
    ms_column values;
    bool has_headers;
    ms_headers headers;
} ms_batch;

_Static_assert(sizeof(ms_column) == 24 && sizeof(ms_batch) == 128, "the layout of the contract");

/* One record of a batch. */
typedef struct {
    const ms_batch *batch;
    uint32_t row;
    ms_bytes topic;
    int64_t timestamp;
    ms_bytes key;
    ms_bytes value;
} ms_record;

/* The partitions that a partitioner chooses from. `load` has the bytes that wait for each; UINT64_MAX marks one without
 * a leader. */
typedef struct {
    uint32_t count;
    const uint64_t *load;
} ms_partitions;

/* The columns that a plug-in reads. The host copies no others. */
enum { MS_TIMESTAMPS = 1, MS_KEYS = 2, MS_VALUES = 4, MS_HEADERS = 8 };

/* The formats of a compressor: one of Kafka's, or MS_PRIVATE for one that only the plug-in reads. */
enum { MS_GZIP = 0, MS_SNAPPY = 1, MS_LZ4 = 2, MS_ZSTD = 3, MS_PRIVATE = 4 };

enum { MS_ERROR = 0, MS_WARN = 1, MS_INFO = 2, MS_DEBUG = 3 };

/* Write a line to the host's log, and add to a counter. Not during `cabi_realloc`. */
void ms_log(int level, const char *message);
void ms_count(const char *name, uint64_t delta);

/* Fields of the configuration, a JSON object. Each function rejects a configuration whose field has another type, or is
 * missing, unless the function's name ends in `_or`. Call them in `configure` alone. */
ms_bytes ms_config_text(const char *field);
ms_bytes ms_config_text_or(const char *field, ms_bytes missing);
int64_t ms_config_integer(const char *field, int64_t least, int64_t most);
int64_t ms_config_integer_or(const char *field, int64_t least, int64_t most, int64_t missing);
bool ms_config_flag_or(const char *field, bool missing);

/* Rejects the configuration. The first rejection counts. `field` is a JSON Pointer, such as "/text". */
void ms_config_reject(const char *field, const char *message);

/* Rejects the record of this call, or the whole batch. The result of the function is then ignored. */
void ms_reject(const char *message);
void ms_reject_batch(const char *message);

/* Memory until the call ends. Traps if there is none left. */
void *ms_allocate(size_t bytes);

/* Whether `bytes` are valid UTF-8, and whether they contain `part`. */
bool ms_is_text(ms_bytes bytes);
bool ms_contains(ms_bytes bytes, ms_bytes part);

/* Sets the new key or value of a record in `serialize` and `deserialize`. The bytes are copied; `data` may be NULL. */
void ms_set_key(ms_bytes bytes);
void ms_set_value(ms_bytes bytes);

/* Appends to the result of `compress` and `decompress`. */
void ms_append(const void *bytes, size_t length);

/* What follows is used by the macros. */

typedef struct {
    ms_bytes topic;
    ms_batch batch;
} ms_filter_call;

typedef struct {
    ms_bytes topic;
    uint32_t count;
    const uint64_t *load;
    size_t load_length;
    ms_batch batch;
} ms_partition_call;

#define MS_EXPORT(name) __attribute__((export_name(name), used))

void *ms_describe(ms_bytes name, ms_bytes version, int kind, int columns, int format);
void *ms_configure(uint8_t *json, size_t length, void (*configure)(void));
void ms_begin(void);
void *ms_end_lists(const void *data, size_t length);
void ms_begin_changes(uint32_t rows);
void ms_end_change(const ms_record *record);
void *ms_end_changes(void);
void *ms_end_bytes(void);
void ms_reject_row(uint32_t row);
void ms_end_call(void);

/* Whether the function of the current row has rejected it. */
extern bool ms_is_rejected;

static inline bool ms_took(uint32_t row) {
    if (__builtin_expect(ms_is_rejected, 0)) {
        ms_reject_row(row);
        return false;
    }
    return true;
}

static inline ms_bytes ms_row(const ms_column *column, uint32_t row) {
    if (column->nulls_length && column->nulls[row / 8] >> row % 8 & 1) return (ms_bytes){NULL, 0};
    uint32_t start = row ? column->ends[row - 1] : 0;
    return (ms_bytes){column->data + start, column->ends[row] - start};
}

static inline ms_record ms_record_at(ms_bytes topic, const ms_batch *batch, uint32_t row) {
    return (ms_record){
        .batch = batch,
        .row = row,
        .topic = topic,
        .timestamp = batch->timestamps_length ? batch->timestamps[row] : 0,
        .key = batch->has_keys ? ms_row(&batch->keys, row) : (ms_bytes){NULL, 0},
        .value = batch->has_values ? ms_row(&batch->values, row) : (ms_bytes){NULL, 0},
    };
}

/* The number of headers of a record, and one of them. */
static inline uint32_t ms_headers_of(const ms_record *record) {
    const ms_batch *batch = record->batch;
    if (!batch->has_headers) return 0;
    return batch->headers.ends[record->row] - (record->row ? batch->headers.ends[record->row - 1] : 0);
}
static inline ms_bytes ms_header_name(const ms_record *record, uint32_t header) {
    const ms_headers *headers = &record->batch->headers;
    return ms_row(&headers->names, (record->row ? headers->ends[record->row - 1] : 0) + header);
}
static inline ms_bytes ms_header_value(const ms_record *record, uint32_t header) {
    const ms_headers *headers = &record->batch->headers;
    return ms_row(&headers->values, (record->row ? headers->ends[record->row - 1] : 0) + header);
}

#define MS_COMMON(name, version, kind, columns, format, configure)                                                    \
    MS_EXPORT("describe") void *ms_export_describe(void) {                                                            \
        return ms_describe(MS_TEXT(name), MS_TEXT(version), kind, columns, format);                                   \
    }                                                                                                                 \
    MS_EXPORT("configure") void *ms_export_configure(uint8_t *json, size_t length) {                                  \
        return ms_configure(json, length, configure);                                                                 \
    }                                                                                                                 \
    MS_EXPORT("cabi_post_describe") void ms_post_describe(void *result) { (void)result; ms_end_call(); }              \
    MS_EXPORT("cabi_post_configure") void ms_post_configure(void *result) { (void)result; ms_end_call(); }

#define MS_POST(call)                                                                                                 \
    MS_EXPORT("cabi_post_" #call) void ms_post_##call(void *result) { (void)result; ms_end_call(); }

/* A filter. `configure` reads the configuration; bool keep(const ms_record *) says whether to keep a record. */
#define MILLSTREAM_FILTER(name, version, columns, configure, keep)                                                    \
    MS_COMMON(name, version, 3, columns, -1, configure)                                                               \
    MS_EXPORT("filter") void *ms_export_filter(const ms_filter_call *call) {                                          \
        ms_begin();                                                                                                   \
        size_t length = (call->batch.rows + 7) / 8;                                                                   \
        uint8_t *kept = ms_allocate(length);                                                                          \
        memset(kept, 0, length);                                                                                      \
        for (uint32_t row = 0; row < call->batch.rows; row++) {                                                       \
            ms_record record = ms_record_at(call->topic, &call->batch, row);                                          \
            bool is_kept = keep(&record);                                                                             \
            if (ms_took(row) && is_kept) kept[row / 8] |= (uint8_t)(1 << row % 8);                                    \
        }                                                                                                             \
        return ms_end_lists(kept, length);                                                                            \
    }                                                                                                                 \
    MS_POST(filter)

/* A partitioner. uint32_t partition(const ms_record *, const ms_partitions *) returns 0 to count - 1. */
#define MILLSTREAM_PARTITIONER(name, version, columns, configure, partition_of)                                       \
    MS_COMMON(name, version, 0, columns, -1, configure)                                                               \
    MS_EXPORT("partition") void *ms_export_partition(const ms_partition_call *call) {                                 \
        ms_begin();                                                                                                   \
        ms_partitions partitions = {call->count, call->load};                                                         \
        uint32_t *chosen = ms_allocate(call->batch.rows * sizeof *chosen);                                            \
        for (uint32_t row = 0; row < call->batch.rows; row++) {                                                       \
            ms_record record = ms_record_at(call->topic, &call->batch, row);                                          \
            chosen[row] = partition_of(&record, &partitions);                                                         \
            ms_took(row);                                                                                             \
        }                                                                                                             \
        return ms_end_lists(chosen, call->batch.rows);                                                                \
    }                                                                                                                 \
    MS_POST(partition)

#define MS_CHANGES(call_name, function)                                                                               \
    MS_EXPORT(#call_name) void *ms_export_##call_name(const ms_filter_call *call) {                                   \
        ms_begin();                                                                                                   \
        ms_begin_changes(call->batch.rows);                                                                           \
        for (uint32_t row = 0; row < call->batch.rows; row++) {                                                       \
            ms_record record = ms_record_at(call->topic, &call->batch, row);                                          \
            function(&record);                                                                                        \
            if (ms_took(row)) ms_end_change(&record);                                                                 \
        }                                                                                                             \
        return ms_end_changes();                                                                                      \
    }                                                                                                                 \
    MS_POST(call_name)

/* A serializer. void serialize(const ms_record *) and void deserialize(const ms_record *) call ms_set_key and
 * ms_set_value; a key or value that is not set stays the same. */
#define MILLSTREAM_SERIALIZER(name, version, columns, configure, on_serialize, on_deserialize)                        \
    MS_COMMON(name, version, 1, columns, -1, configure)                                                               \
    MS_CHANGES(serialize, on_serialize)                                                                               \
    MS_CHANGES(deserialize, on_deserialize)

/* A compressor. void compress(ms_bytes) and void decompress(ms_bytes, size_t max) call ms_append; the result of the
 * second has at most `max` bytes. */
#define MILLSTREAM_COMPRESSOR(name, version, format, configure, on_compress, on_decompress)                           \
    MS_COMMON(name, version, 2, 0, format, configure)                                                                 \
    MS_EXPORT("compress") void *ms_export_compress(const uint8_t *data, size_t length) {                              \
        ms_begin();                                                                                                   \
        on_compress((ms_bytes){data, length});                                                                        \
        return ms_end_bytes();                                                                                        \
    }                                                                                                                 \
    MS_POST(compress)                                                                                                 \
    MS_EXPORT("decompress") void *ms_export_decompress(const uint8_t *data, size_t length, size_t max) {              \
        ms_begin();                                                                                                   \
        on_decompress((ms_bytes){data, length}, max);                                                                 \
        return ms_end_bytes();                                                                                        \
    }                                                                                                                 \
    MS_POST(decompress)

#endif
