/* Reads the configuration, a JSON object. The broker has checked that it is valid JSON in UTF-8. */
#include "millstream.h"

#include <stdlib.h>

/* A field. `value` is its JSON; a text is decoded in place when it is asked for. */
typedef struct {
    ms_bytes name;
    uint8_t *value, *end;
    bool is_used;
} field;

static field *fields;
static size_t count;
static uint8_t *at, *end;
static bool is_rejected;
static ms_bytes rejected_field, rejection;

static void *lasting(size_t bytes) {
    void *start = malloc(bytes + !bytes);
    if (!start) __builtin_trap();
    return start;
}

static ms_bytes joined(const char *first, ms_bytes second, const char *third) {
    size_t lengths[] = {strlen(first), second.length, strlen(third)};
    uint8_t *to = lasting(lengths[0] + lengths[1] + lengths[2]);
    memcpy(to, first, lengths[0]);
    if (lengths[1]) memcpy(to + lengths[0], second.data, lengths[1]);
    memcpy(to + lengths[0] + lengths[1], third, lengths[2]);
    return (ms_bytes){to, lengths[0] + lengths[1] + lengths[2]};
}

static ms_bytes of(const char *text) { return (ms_bytes){(const uint8_t *)text, strlen(text)}; }

static void reject(ms_bytes field, ms_bytes message) {
    if (is_rejected) return;
    is_rejected = true;
    rejected_field = joined("", field, "");
    rejection = joined("", message, "");
}

void ms_config_reject(const char *field, const char *message) { reject(of(field), of(message)); }

static void reject_field(const char *name, ms_bytes message) { reject(joined("/", of(name), ""), message); }

static void skip_space(void) {
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')) at++;
}

/* Skips a text after its first quote. */
static void skip_text(void) {
    while (at < end && *at != '"') at += *at == '\\' ? 2 : 1;
    if (at < end) at++;
}

static void skip_value(void) {
    size_t depth = 0;
    do {
        skip_space();
        if (at >= end) return;
        uint8_t c = *at++;
        if (c == '"') skip_text();
        else if (c == '{' || c == '[') depth++;
        else if (c == '}' || c == ']') depth--;
        else while (at < end && !strchr(",:]} \t\n\r", *at)) at++;
        skip_space();
        while (depth && at < end && (*at == ',' || *at == ':')) { at++; skip_space(); }
    } while (depth && at < end);
}

static unsigned hex(const uint8_t *digits) {
    unsigned value = 0;
    for (int i = 0; i < 4; i++) {
        uint8_t c = digits[i];
        value = value * 16 + (c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
    }
    return value;
}

/* Decodes the text between two quotes, in place: no escape is shorter than what it stands for. */
static ms_bytes decode(uint8_t *from, uint8_t *to_end) {
    uint8_t *start = from, *to = from;
    while (from < to_end) {
        if (*from != '\\') { *to++ = *from++; continue; }
        uint8_t c = from[1];
        from += 2;
        if (c != 'u') {
            const char *escape = strchr("b\bf\fn\nr\rt\t", c);
            *to++ = escape ? (uint8_t)escape[1] : c;
            continue;
        }
        uint32_t code = hex(from);
        from += 4;
        if (code >= 0xd800 && code < 0xdc00 && to_end - from >= 6 && from[0] == '\\' && from[1] == 'u') {
            code = 0x10000 + ((code - 0xd800) << 10) + (hex(from + 2) - 0xdc00);
            from += 6;
        }
        int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
        static const uint8_t marks[] = {0, 0xc0, 0xe0, 0xf0};
        *to++ = (uint8_t)(marks[more] | code >> 6 * more);
        while (more--) *to++ = (uint8_t)(0x80 | (code >> 6 * more & 63));
    }
    return (ms_bytes){start, (size_t)(to - start)};
}

static void parse(void) {
    skip_space();
    if (at == end) return;
    if (*at++ != '{') {
        ms_config_reject("", "the configuration must be a JSON object, such as {\"field\": 1}");
        return;
    }
    for (skip_space(); at < end && *at == '"'; skip_space()) {
        uint8_t *name = ++at;
        skip_text();
        fields = realloc(fields, (count + 1) * sizeof *fields);
        if (!fields) __builtin_trap();
        field *next = &fields[count++];
        next->name = decode(name, at - 1);
        next->is_used = false;
        skip_space();
        if (at >= end || *at++ != ':') break;
        skip_space();
        next->value = at;
        skip_value();
        next->end = at;
        skip_space();
        if (at < end && *at == ',') at++;
    }
    if (at >= end || *at != '}') ms_config_reject("", "the configuration is not valid JSON");
}

static field *find(const char *name, bool is_needed) {
    for (size_t i = 0; i < count; i++) {
        if (fields[i].name.length == strlen(name) && memcmp(fields[i].name.data, name, strlen(name)) == 0) {
            fields[i].is_used = true;
            return &fields[i];
        }
    }
    if (is_needed) reject_field(name, joined("missing field `", of(name), "`"));
    return NULL;
}

static ms_bytes text_of(const char *name, field *found, ms_bytes missing) {
    if (!found) return missing;
    if (*found->value != '"') { reject_field(name, of("a text is needed")); return missing; }
    /* Without the space after it. */
    uint8_t *close = found->end;
    while (close[-1] != '"') close--;
    ms_bytes text = decode(found->value + 1, close - 1);
    /* The second time it is asked for, it is shorter. */
    found->end = (uint8_t *)text.data + text.length;
    *found->end++ = '"';
    return text;
}

static int64_t integer_of(const char *name, field *found, int64_t least, int64_t most, int64_t missing) {
    if (!found) return missing;
    char *rest;
    uint8_t after = *found->end;
    *found->end = 0;
    long long value = strtoll((char *)found->value, &rest, 10);
    bool is_integer = rest != (char *)found->value && (*rest == 0 || strchr(" \t\r\n", *rest));
    *found->end = after;
    if (is_integer && value >= least && value <= most) return value;
    reject_field(name, of("the number is not one of those allowed"));
    return missing;
}

ms_bytes ms_config_text(const char *name) { return text_of(name, find(name, true), MS_TEXT("")); }
ms_bytes ms_config_text_or(const char *name, ms_bytes missing) { return text_of(name, find(name, false), missing); }
int64_t ms_config_integer(const char *name, int64_t least, int64_t most) {
    return integer_of(name, find(name, true), least, most, least);
}
int64_t ms_config_integer_or(const char *name, int64_t least, int64_t most, int64_t missing) {
    return integer_of(name, find(name, false), least, most, missing);
}
bool ms_config_flag_or(const char *name, bool missing) {
    field *found = find(name, false);
    if (!found) return missing;
    if (*found->value != 't' && *found->value != 'f') reject_field(name, of("`true` or `false` is needed"));
    return *found->value == 't';
}

void *ms_configure(uint8_t *json, size_t length, void (*configure)(void)) {
    /* A copy that stays, with room for a zero at its end. */
    at = lasting(length + 1);
    if (length) memcpy(at, json, length);
    end = at + length;
    *end = 0;
    fields = NULL;
    count = 0;
    is_rejected = false;
    parse();
    if (!is_rejected) configure();
    for (size_t i = 0; i < count; i++)
        if (!fields[i].is_used) reject(joined("/", fields[i].name, ""), of("unknown field"));
    free(fields);
    fields = NULL;
    uint32_t *result = ms_allocate(20);
    result[0] = is_rejected;
    result[1] = (uint32_t)rejected_field.data;
    result[2] = rejected_field.length;
    result[3] = (uint32_t)rejection.data;
    result[4] = rejection.length;
    return result;
}
