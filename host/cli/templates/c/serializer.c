/* A serializer: changes keys and values on the way to a topic, and back on the way from it. */
#include "millstream.h"

static ms_bytes prefix;

/* Reads the configuration: what a user writes as {{name}}{"prefix":"v1:"}. */
static void configure(void) {
    prefix = ms_config_text("prefix");
}

/* Adds the prefix. A key or value that is not set stays the same. */
static void add(const ms_record *record) {
    ms_bytes value = record->value;
    if (!value.data) return;
    uint8_t *longer = ms_allocate(prefix.length + value.length);
    memcpy(longer, prefix.data, prefix.length);
    memcpy(longer + prefix.length, value.data, value.length);
    ms_set_value((ms_bytes){longer, prefix.length + value.length});
}

/* Removes the prefix. ms_reject rejects only this record, and names its row. */
static void take(const ms_record *record) {
    ms_bytes value = record->value;
    if (!value.data) return;
    if (value.length < prefix.length || memcmp(value.data, prefix.data, prefix.length) != 0) {
        ms_reject("the prefix is not there");
        return;
    }
    ms_set_value((ms_bytes){value.data + prefix.length, value.length - prefix.length});
}

MILLSTREAM_SERIALIZER("{{name}}", "0.1.0", MS_VALUES, configure, add, take)
