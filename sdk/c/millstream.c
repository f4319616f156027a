/* The calls of the contract, and the memory of a call. */
#include "millstream.h"

#include <stdlib.h>

__attribute__((import_module("millstream:stage/host@1.0.0"), import_name("log")))
void ms_host_log(int level, const char *message, size_t length);
__attribute__((import_module("millstream:stage/host@1.0.0"), import_name("count")))
void ms_host_count(const char *name, size_t length, uint64_t delta);

void ms_log(int level, const char *message) { ms_host_log(level, message, strlen(message)); }
void ms_count(const char *name, uint64_t delta) { ms_host_count(name, strlen(name), delta); }

/* The memory of a call: blocks that are filled from the front, and all freed when the call ends but the first. */
typedef struct block {
    struct block *before;
    size_t size;
    size_t used;
    _Alignas(16) uint8_t bytes[];
} block;

static block *last;

void *ms_allocate(size_t bytes) {
    /* An address that is never NULL, also for nothing. */
    bytes = (bytes + 15 + !bytes) & ~(size_t)15;
    if (!last || last->size - last->used < bytes) {
        size_t size = bytes > 65536 - sizeof(block) ? bytes : 65536 - sizeof(block);
        block *next = malloc(sizeof(block) + size);
        if (!next) __builtin_trap();
        next->before = last;
        next->size = size;
        next->used = 0;
        last = next;
    }
    void *start = last->bytes + last->used;
    last->used += bytes;
    return start;
}

/* The host allocates with this what it passes. An empty list gets an address inside of memory, which the contract of
 * components demands. */
MS_EXPORT("cabi_realloc") void *ms_realloc(void *old, size_t old_size, size_t align, size_t size) {
    (void)align;
    void *start = ms_allocate(size);
    if (old_size) memcpy(start, old, old_size < size ? old_size : size);
    return start;
}

void ms_end_call(void) {
    while (last && last->before) {
        block *before = last->before;
        free(last);
        last = before;
    }
    if (last) last->used = 0;
}

/* Results. */

typedef struct {
    uint32_t row;
    ms_bytes message;
} row_error;

/* The rejected rows of a call, and why the current row or the batch is rejected. */
static row_error *rejected;
static size_t rejected_count, rejected_room;
static ms_bytes rejection, batch_rejection;
bool ms_is_rejected;

/* The bytes that the result of a call is made of. */
typedef struct {
    uint8_t *data;
    size_t length, room;
} buffer;

static buffer output;

static ms_bytes text(const char *message) {
    size_t length = strlen(message);
    uint8_t *copy = ms_allocate(length);
    memcpy(copy, message, length);
    return (ms_bytes){copy, length};
}

static void append(buffer *to, const void *bytes, size_t length) {
    if (to->room - to->length < length) {
        size_t room = to->room * 2 + length + 256;
        uint8_t *more = ms_allocate(room);
        if (to->length) memcpy(more, to->data, to->length);
        to->data = more;
        to->room = room;
    }
    if (length) memcpy(to->data + to->length, bytes, length);
    to->length += length;
}

void ms_append(const void *bytes, size_t length) { append(&output, bytes, length); }

void ms_reject(const char *message) {
    rejection = text(message);
    ms_is_rejected = true;
}
void ms_reject_batch(const char *message) { batch_rejection = text(message); }

void ms_begin(void) {
    rejected = NULL;
    rejected_count = rejected_room = 0;
    rejection = batch_rejection = (ms_bytes){NULL, 0};
    ms_is_rejected = false;
    output = (buffer){NULL, 0, 0};
}

void ms_reject_row(uint32_t row) {
    ms_is_rejected = false;
    if (rejected_count == rejected_room) {
        size_t room = rejected_room * 2 + 16;
        row_error *more = ms_allocate(room * sizeof *more);
        if (rejected_count) memcpy(more, rejected, rejected_count * sizeof *more);
        rejected = more;
        rejected_room = room;
    }
    rejected[rejected_count++] = (row_error){row, rejection};
}

/* Returns the error of the contract if the batch or rows of it were rejected. */
static uint32_t *error(void) {
    uint32_t *result = ms_allocate(16);
    if (batch_rejection.data) {
        result[0] = 1;
        result[1] = 1;
        result[2] = (uint32_t)batch_rejection.data;
        result[3] = batch_rejection.length;
    } else if (rejected_count) {
        result[0] = 1;
        result[1] = 0;
        result[2] = (uint32_t)rejected;
        result[3] = rejected_count;
    } else {
        return NULL;
    }
    return result;
}

void *ms_end_lists(const void *data, size_t length) {
    uint32_t *result = error();
    if (result) return result;
    result = ms_allocate(12);
    result[0] = 0;
    result[1] = (uint32_t)data;
    result[2] = length;
    return result;
}

void *ms_end_bytes(void) {
    uint32_t *result = ms_allocate(12);
    ms_bytes bytes = {output.data ? output.data : ms_allocate(0), output.length};
    if (batch_rejection.data) bytes = batch_rejection;
    if (rejection.data) bytes = rejection;
    result[0] = rejection.data || batch_rejection.data;
    result[1] = (uint32_t)bytes.data;
    result[2] = bytes.length;
    return result;
}

/* Changes of a serializer. */

/* A new column. It begins with the first row that gets a new value. */
typedef struct {
    bool is_begun;
    buffer data;
    uint32_t *ends;
    uint8_t *nulls;
    /* The new value of the current row, if it has one. */
    bool is_set;
    ms_bytes value;
} column;

/* Keys and values. */
static column columns[2];
static uint32_t changed_rows;

void ms_begin_changes(uint32_t rows) {
    changed_rows = rows;
    memset(columns, 0, sizeof columns);
}

static void set(column *of, ms_bytes bytes) {
    of->is_set = true;
    of->value = (ms_bytes){NULL, 0};
    if (bytes.data) {
        uint8_t *copy = ms_allocate(bytes.length);
        memcpy(copy, bytes.data, bytes.length);
        of->value = (ms_bytes){copy, bytes.length};
    }
}

void ms_set_key(ms_bytes bytes) { set(&columns[0], bytes); }
void ms_set_value(ms_bytes bytes) { set(&columns[1], bytes); }

static void put(column *of, uint32_t row, ms_bytes bytes) {
    if (bytes.data) append(&of->data, bytes.data, bytes.length);
    else of->nulls[row / 8] |= (uint8_t)(1 << row % 8);
    of->ends[row] = of->data.length;
}

static void begin(column *of, const ms_column *old, uint32_t rows) {
    size_t bits = (changed_rows + 7) / 8;
    of->is_begun = true;
    of->ends = ms_allocate(changed_rows * sizeof *of->ends);
    of->nulls = ms_allocate(bits);
    memset(of->nulls, 0, bits);
    for (uint32_t row = 0; row < rows; row++) put(of, row, old ? ms_row(old, row) : (ms_bytes){NULL, 0});
}

void ms_end_change(const ms_record *record) {
    const ms_batch *batch = record->batch;
    const ms_column *olds[] = {batch->has_keys ? &batch->keys : NULL, batch->has_values ? &batch->values : NULL};
    ms_bytes old_values[] = {record->key, record->value};
    for (int i = 0; i < 2; i++) {
        column *of = &columns[i];
        if (of->is_set && !of->is_begun) begin(of, olds[i], record->row);
        if (of->is_begun) put(of, record->row, of->is_set ? of->value : old_values[i]);
        of->is_set = false;
    }
}

void *ms_end_changes(void) {
    uint32_t *result = error();
    if (result) return result;
    result = ms_allocate(60);
    memset(result, 0, 60);
    for (int i = 0; i < 2; i++) {
        const column *of = &columns[i];
        uint32_t *option = result + 1 + 7 * i;
        if (!of->is_begun) continue;
        option[0] = 1;
        option[1] = (uint32_t)(of->data.data ? of->data.data : ms_allocate(0));
        option[2] = of->data.length;
        option[3] = (uint32_t)of->ends;
        option[4] = changed_rows;
        option[5] = (uint32_t)of->nulls;
        option[6] = (changed_rows + 7) / 8;
    }
    return result;
}

void *ms_describe(ms_bytes name, ms_bytes version, int kind, int columns, int format) {
    uint32_t *result = ms_allocate(36);
    memset(result, 0, 36);
    result[0] = (uint32_t)name.data;
    result[1] = name.length;
    result[2] = (uint32_t)version.data;
    result[3] = version.length;
    result[4] = (uint32_t)kind | (uint32_t)columns << 8;
    result[5] = format >= 0;
    if (format >= 0) result[6] = (uint32_t)format;
    if (format == MS_PRIVATE) {
        result[7] = (uint32_t)name.data;
        result[8] = name.length;
    }
    return result;
}

/* Texts. */

bool ms_contains(ms_bytes bytes, ms_bytes part) {
    if (part.length == 0) return true;
    if (part.length > bytes.length) return false;
    const uint8_t *at = bytes.data, *end = bytes.data + (bytes.length - part.length);
    while (at <= end && (at = memchr(at, part.data[0], (size_t)(end - at) + 1))) {
        if (memcmp(at, part.data, part.length) == 0) return true;
        at++;
    }
    return false;
}

bool ms_is_text(ms_bytes bytes) {
    const uint8_t *at = bytes.data, *end = at + bytes.length;
    while (at < end) {
        uint8_t first = *at++;
        if (first < 0x80) continue;
        if (first < 0xc2 || first > 0xf4) return false;
        int more = first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
        if (end - at < more) return false;
        uint8_t least = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
        uint8_t most = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
        if (*at < least || *at > most) return false;
        for (int i = 1; i < more; i++)
            if ((at[i] & 0xc0) != 0x80) return false;
        at += more;
    }
    return true;
}
