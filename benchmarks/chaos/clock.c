/* The wall clock of a process, moved by whoever writes to a file: loaded before libc by the chaos bench.
 *
 * The file CHAOS_CLOCK has an int64 of nanoseconds for each process, at its number modulo the number
 * of places; forked children share their parent's. The monotonic clock stays what it is, as it does when
 * somebody sets a machine's time. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define PLACES 65536
#define SECOND 1000000000LL

static const volatile long long nothing, *moved = &nothing;
static int (*real_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CHAOS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    long long *places = mmap(NULL, PLACES * sizeof *places, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (places != MAP_FAILED) moved = places + getpid() % PLACES;
}

int clock_gettime(clockid_t clock, struct timespec *out) {
    if (!real_gettime) real_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real_gettime(clock, out);
    long long by = *moved;
    if (!failed && by && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        long long now = out->tv_sec * SECOND + out->tv_nsec + by;
        out->tv_sec = now / SECOND;
        out->tv_nsec = now % SECOND;
    }
    return failed;
}

int gettimeofday(struct timeval *out, void *zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
