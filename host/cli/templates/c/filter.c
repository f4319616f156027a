/* A filter: decides which records a consumer sees. */
#include "millstream.h"

static ms_bytes text;

/* Reads the configuration: what a user writes as {{name}}{"text":"error"}. */
static void configure(void) {
    text = ms_config_text("text");
}

/* Returns whether to keep a record. ms_reject rejects only this record, and names its row. */
static bool keep(const ms_record *record) {
    if (!ms_is_text(record->value)) {
        ms_reject("invalid utf-8");
        return false;
    }
    return ms_contains(record->value, text);
}

MILLSTREAM_FILTER("{{name}}", "0.1.0", MS_VALUES, configure, keep)
