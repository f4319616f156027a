/* Faults of the system below one process, which a test switches on and off: a clock that jumps, fsyncs that fail or
 * stall. Loaded with LD_PRELOAD. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The content of the file that MILLSTREAM_TEST_FAULTS names. */
struct faults {
    _Atomic long long clock_seconds;
    _Atomic long long failing_records;
    _Atomic long long failing_metadata;
    _Atomic long long stall_ms;
};

static struct faults none;
static struct faults *faults = &none;

__attribute__((constructor)) static void map_faults(void) {
    const char *path = getenv("MILLSTREAM_TEST_FAULTS");
    int fd = path ? open(path, O_RDWR) : -1;
    if (fd < 0) return;
    void *map = mmap(NULL, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED) faults = map;
    close(fd);
}

static int takes_one(_Atomic long long *count) {
    return atomic_load(count) > 0 && atomic_fetch_sub(count, 1) > 0;
}

static int ends_with(const char *text, const char *end) {
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

/* Returns whether the sync of this file fails, after the time that it stalls. */
static int fails(int fd) {
    long long stall = atomic_load(&faults->stall_ms);
    if (stall > 0) usleep(stall * 1000);
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    return (ends_with(path, ".log") && takes_one(&faults->failing_records)) ||
           (ends_with(path, ".wal") && takes_one(&faults->failing_metadata));
}

static int sync_file(long call, int fd) {
    if (fails(fd)) {
        errno = EIO;
        return -1;
    }
    return syscall(call, fd);
}

int fsync(int fd) { return sync_file(SYS_fsync, fd); }

int fdatasync(int fd) { return sync_file(SYS_fdatasync, fd); }

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && clock == CLOCK_REALTIME) time->tv_sec += atomic_load(&faults->clock_seconds);
    return result;
}
