/* A filter that does what its configuration says: each way in which a plug-in in C misbehaves. */
#include "millstream.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define BLOCK 65536
#define MIB (1 << 20)

/* What the copy of the SDK does wrong, if the test has changed it so. */
bool ms_logs;
size_t ms_more;

static ms_bytes how;
static volatile int turns;
static int calls;
static void *volatile leaked;
static volatile double zero;

static bool is(const char *name) { return strlen(name) == how.length && memcmp(name, how.data, how.length) == 0; }

static _Noreturn void die(void) {
    fprintf(stderr, "two rows are too few\nand there is more to say\n");
    abort();
}

static __attribute__((noinline)) int recurse(int depth) {
    return turns++ < 0 ? 0 : depth + recurse(depth + 1) % 7;
}

static void *block(size_t size, int byte) {
    void *start = malloc(size);
    if (!start) abort();
    if (byte >= 0) memset(start, byte, size);
    return start;
}

/* Rejects the record with the bits of a number that was computed. */
static void reject_bits(double number) {
    uint64_t bits;
    char text[32];
    memcpy(&bits, &number, sizeof bits);
    snprintf(text, sizeof text, "%016llx", (unsigned long long)bits);
    ms_reject(text);
}

static void configure(void) {
    how = ms_config_text("how");
    if (is("configure-die")) die();
    if (is("configure-loop")) for (;;) turns++;
    ms_logs = is("realloc");
    ms_more = is("rows");
}

static bool keep(const ms_record *record) {
    (void)record;
    calls++;
    if (is("die")) die();
    if (is("assert")) assert(how.length == 0);
    if (is("loop")) for (;;) turns++;
    if (is("fill")) for (;; turns++) free(block(8 * MIB, turns));
    if (is("recurse")) return recurse(0) > 0;
    if (is("leak")) for (;;) if (!(leaked = malloc(BLOCK))) abort();
    if (is("hoard")) while ((leaked = malloc(BLOCK)));
    if (is("flood")) for (int i = 0; i < 1000; i++) fprintf(stderr, "line %d\n", i);
    if (is("print")) printf("a line\n"
        "not UTF-8: \xff \xc3( \xe2\x82 \xed\xa0\x80 \xf4\x90\x80\x80, and UTF-8: é€𝄞\n");
    if (is("terminal")) fprintf(stderr, "\x1b[31mred\x07\n");
    if (is("third") && calls == 3) die();
    if (is("nan")) reject_bits(zero / zero);
    if (is("long")) {
        char *message = block(MIB, 'x');
        message[MIB - 1] = 0;
        ms_reject(message);
    }
    if (is("stain")) { leaked = block(4 * MIB, 0xaa); abort(); }
    if (is("fresh")) {
        const uint8_t *start = block(4 * MIB, -1);
        for (size_t at = 0; at < 4 * MIB; at++) if (start[at] == 0xaa) ms_reject("it has the bytes of another plug-in");
    }
    return true;
}

#ifdef START
__attribute__((constructor)) static void start(void) { START; }
#endif

MILLSTREAM_FILTER("c-filter", "0.1.0", MS_VALUES, configure, keep)
