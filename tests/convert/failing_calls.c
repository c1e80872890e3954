// To be loaded before the C library (LD_PRELOAD): lets the n-th system call on files of a folder fail.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST_FILES 1024

static atomic_int seen, failing;
static atomic_bool ours[MOST_FILES];
static char folder[4096];
static char failed[16];

// From now on the n-th call fails, once; 0: none does. Calls on what lies in `within` count.
void failing_arm(const char* within, int n) {
    snprintf(folder, sizeof folder, "%s", within);
    seen = 0;
    failed[0] = '\0';
    failing = n;
}

// Ends it, and returns how many there were; and which of them failed.
int failing_disarm(void) {
    folder[0] = '\0';
    return seen;
}
const char* failing_call(void) { return failed; }

static int fails(const char* call, int error) {
    if (++seen != failing) return 0;
    snprintf(failed, sizeof failed, "%s", call);
    errno = error;
    return 1;
}
static int within(const char* path) {
    return folder[0] != '\0' && path != NULL && strncmp(path, folder, strlen(folder)) == 0;
}
static int is_ours(int file) {
    return folder[0] != '\0' && file >= 0 && file < MOST_FILES && ours[file];
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OPEN(name)                                                           \
    int name(const char* path, int flags, ...) {                             \
        va_list arguments;                                                   \
        va_start(arguments, flags);                                          \
        const mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0; \
        va_end(arguments);                                                   \
        if (within(path) && fails("open", EMFILE)) return -1;                \
        const int file = NEXT(name)(path, flags, mode);                      \
        if (file >= 0 && file < MOST_FILES) ours[file] = within(path);       \
        return file;                                                         \
    }
OPEN(open)
OPEN(open64)

int close(int file) {
    const int counted = is_ours(file);
    if (file >= 0 && file < MOST_FILES) ours[file] = 0;
    const int closed = NEXT(close)(file);
    return counted && fails("close", EIO) ? -1 : closed;
}

#define CALL(result, name, parameters, arguments, error)     \
    result name parameters {                                 \
        if (is_ours(file) && fails(#name, error)) return -1; \
        return NEXT(name) arguments;                         \
    }
CALL(ssize_t, read, (int file, void* out, size_t n), (file, out, n), EIO)
CALL(ssize_t, pread, (int file, void* out, size_t n, off_t at), (file, out, n, at), EIO)
CALL(ssize_t, pread64, (int file, void* out, size_t n, off64_t at), (file, out, n, at), EIO)
CALL(ssize_t, write, (int file, const void* in, size_t n), (file, in, n), ENOSPC)
CALL(ssize_t, pwrite64, (int file, const void* in, size_t n, off64_t at), (file, in, n, at), ENOSPC)
CALL(off_t, lseek, (int file, off_t at, int from), (file, at, from), EIO)
CALL(off64_t, lseek64, (int file, off64_t at, int from), (file, at, from), EIO)
CALL(int, fsync, (int file), (file), EIO)
CALL(int, ftruncate64, (int file, off64_t n), (file, n), EFBIG)
CALL(int, fstat, (int file, struct stat* out), (file, out), EIO)
CALL(int, fstat64, (int file, struct stat64* out), (file, out), EIO)

#define PATH_CALL(name, parameters, arguments, error)       \
    int name parameters {                                   \
        if (within(path) && fails(#name, error)) return -1; \
        return NEXT(name) arguments;                        \
    }
PATH_CALL(stat, (const char* path, struct stat* out), (path, out), EACCES)
PATH_CALL(stat64, (const char* path, struct stat64* out), (path, out), EACCES)
PATH_CALL(rename, (const char* path, const char* to), (path, to), EROFS)
PATH_CALL(renameat, (int from, const char* path, int at, const char* to), (from, path, at, to),
          EROFS)
