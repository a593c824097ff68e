/* Faults of a file system and a clock, for LD_PRELOAD; see faults.py.
 *
 * FAULT_PATH   part of a path; only calls on files whose name contains it fail
 * FAULT_CALL   one of open, read, write, fsync, rename
 * FAULT_ERRNO  number of the error
 * FAULT_FIRST  number of the call, from 1, that fails first
 * FAULT_COUNT  number of calls that fail
 * FAULT_CLOCK  seconds that the clock goes back at each call; nothing else for 0
 * FAULT_STEPS  part of a path; calls that change files whose name contains it are counted
 * FAULT_TALLY  file that grows by a byte at each of them
 * FAULT_KILL   number of a signal that this process sends itself before the FAULT_AT-th of them
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static long calls, asked, steps;

#define REAL(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))

/* Count a call that changes files, and end before it if it is the one. */
static void step(const char *path) {
    const char *part = getenv("FAULT_STEPS"), *tally = getenv("FAULT_TALLY"), *number = getenv("FAULT_KILL");
    if (!part || !path || !strstr(path, part)) return;
    long count = __sync_add_and_fetch(&steps, 1);
    if (tally) {
        int file = ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open"))(tally, O_WRONLY | O_APPEND | O_CREAT, 0600);
        if (file >= 0 && REAL(write)(file, "+", 1) == 1) close(file);
    }
    if (number && count == atol(getenv("FAULT_AT") ?: "1")) kill(getpid(), atoi(number));
}

static int fails(const char *call, const char *path) {
    const char *part = getenv("FAULT_PATH"), *wanted = getenv("FAULT_CALL");
    if (!part || !wanted || strcmp(call, wanted) || !path || !strstr(path, part)) return 0;
    long first = atol(getenv("FAULT_FIRST") ?: "1"), count = atol(getenv("FAULT_COUNT") ?: "1");
    long number = __sync_add_and_fetch(&calls, 1);
    if (number < first || number >= first + count) return 0;
    errno = atoi(getenv("FAULT_ERRNO") ?: "5");
    return 1;
}

static int fails_at(const char *call, int file) {
    if (!getenv("FAULT_PATH") && !getenv("FAULT_STEPS")) return 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    if (strcmp(call, "read")) step(path);
    return fails(call, path);
}

#define OPEN(name)                                                                                    \
    int name(const char *path, int flags, ...) {                                                      \
        va_list rest;                                                                                 \
        va_start(rest, flags);                                                                        \
        int mode = va_arg(rest, int);                                                                 \
        va_end(rest);                                                                                 \
        if (flags & O_CREAT) step(path);                                                              \
        return fails("open", path) ? -1 : ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name))(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
ssize_t read(int file, void *data, size_t size) { return fails_at("read", file) ? -1 : REAL(read)(file, data, size); }
ssize_t pread(int file, void *data, size_t size, off_t at) {
    return fails_at("read", file) ? -1 : REAL(pread)(file, data, size, at);
}
ssize_t pread64(int file, void *data, size_t size, off64_t at) {
    return fails_at("read", file) ? -1 : REAL(pread64)(file, data, size, at);
}
ssize_t write(int file, const void *data, size_t size) {
    return fails_at("write", file) ? -1 : REAL(write)(file, data, size);
}
ssize_t pwrite(int file, const void *data, size_t size, off_t at) {
    return fails_at("write", file) ? -1 : REAL(pwrite)(file, data, size, at);
}
ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) {
    return fails_at("write", file) ? -1 : REAL(pwrite64)(file, data, size, at);
}
int fsync(int file) { return fails_at("fsync", file) ? -1 : REAL(fsync)(file); }
int rename(const char *from, const char *to) {
    step(to);
    return fails("rename", to) ? -1 : REAL(rename)(from, to);
}
int ftruncate64(int file, off64_t size) { return fails_at("truncate", file) ? -1 : REAL(ftruncate64)(file, size); }
int ftruncate(int file, off_t size) { return fails_at("truncate", file) ? -1 : REAL(ftruncate)(file, size); }
int unlink(const char *path) {
    step(path);
    return REAL(unlink)(path);
}
int mkdir(const char *path, mode_t mode) {
    step(path);
    return REAL(mkdir)(path, mode);
}
int link(const char *from, const char *to) {
    step(to);
    return REAL(link)(from, to);
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = REAL(clock_gettime)(clock, now);
    const char *back = getenv("FAULT_CLOCK");
    if (back && atol(back) && clock == CLOCK_REALTIME) now->tv_sec -= atol(back) * __sync_add_and_fetch(&asked, 1);
    return result;
}
