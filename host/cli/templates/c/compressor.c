/* A compressor: compresses the records of a batch, and decompresses them. */
#include "millstream.h"

#include <stdio.h>

/* The configuration has no fields, so a user writes just {{name}}. */
static void configure(void) {}

/* Writes each run of equal bytes as the byte and the length of the run. */
static void shrink(ms_bytes data) {
    for (size_t at = 0; at < data.length;) {
        uint8_t length = 0;
        uint8_t byte = data.data[at];
        while (at < data.length && data.data[at] == byte && length < 255) at++, length++;
        ms_append((uint8_t[]){byte, length}, 2);
    }
}

/* Returns at most `max` bytes, whatever size the data claims. */
static void expand(ms_bytes data, size_t max) {
    size_t total = 0;
    for (size_t at = 0; at < data.length; at += 2) {
        if (at + 1 == data.length) {
            ms_reject("half a run");
            return;
        }
        uint8_t length = data.data[at + 1];
        total += length;
        if (total > max) {
            char message[64];
            snprintf(message, sizeof message, "the output is over %zu bytes", max);
            ms_reject(message);
            return;
        }
        uint8_t run[255];
        memset(run, data.data[at], length);
        ms_append(run, length);
    }
}

/* MS_PRIVATE is a format that only this plug-in reads. Kafka's codecs are MS_GZIP and so on. */
MILLSTREAM_COMPRESSOR("{{name}}", "0.1.0", MS_PRIVATE, configure, shrink, expand)
