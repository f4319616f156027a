/* contains-c{"text":"error"}: keeps the records whose value contains a text, byte for byte. */
#include "millstream.h"

static ms_bytes text;

static void configure(void) {
    text = ms_config_text("text");
    if (text.length == 0) ms_config_reject("/text", "the text is empty: every record would be kept");
}

static bool keep(const ms_record *record) {
    return record->value.data && ms_contains(record->value, text);
}

MILLSTREAM_FILTER("contains-c", "0.1.0", MS_VALUES, configure, keep)
