#include "failing_calls.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <new>
#include <system_error>

namespace {

std::atomic<unsigned> armed{0};
std::atomic<size_t> seen{0};
std::atomic<size_t> failing_one{0};
std::atomic<size_t> mapped{0};
std::atomic<size_t> files{0};
char writes[64];
size_t n_writes = 0;

bool fails(unsigned call) {
    if ((armed.load() & call) == 0) return false;
    return ++seen == failing_one.load();
}

void* allocate(size_t n) {
    void* p = fails(failing::kMemory) ? nullptr : std::malloc(n == 0 ? 1 : n);
    if (p == nullptr) throw std::bad_alloc();
    return p;
}

}  // namespace

namespace failing {

void arm(unsigned calls, size_t n) noexcept {
    seen = 0;
    failing_one = n;
    n_writes = 0;
    writes[0] = '\0';
    armed = calls;
}

size_t disarm() noexcept {
    armed = 0;
    return seen;
}

size_t mapped_bytes() noexcept { return mapped; }
size_t open_files() noexcept { return files; }
const char* order_of_writes() noexcept { return writes; }

}  // namespace failing

static void write_down(char what) {
    if (armed == 0 || n_writes + 1 >= sizeof writes) return;
    writes[n_writes++] = what;
    writes[n_writes] = '\0';
}

void* operator new(size_t n) { return allocate(n); }
void* operator new[](size_t n) { return allocate(n); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t) noexcept { std::free(p); }

// The names are the linker's: see --wrap in its manual.
// NOLINTBEGIN(bugprone-reserved-identifier)
extern "C" {

void* __real_mmap(void*, size_t, int, int, int, off_t);
void* __wrap_mmap(void* at, size_t n, int protection, int flags, int file, off_t offset) {
    if (fails(failing::kMemory)) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    void* p = __real_mmap(at, n, protection, flags, file, offset);
    if (p != MAP_FAILED) mapped += n;
    return p;
}

int __real_munmap(void*, size_t);
int __wrap_munmap(void* p, size_t n) {
    mapped -= n;
    return __real_munmap(p, n);
}

int __real_open(const char*, int, ...);
int __wrap_open(const char* path, int flags, ...) {
    if (fails(failing::kReading | failing::kWriting)) {
        errno = EMFILE;
        return -1;
    }
    const int file = __real_open(path, flags);
    if (file >= 0) ++files;
    return file;
}

int __real_openat(int, const char*, int, ...);
int __wrap_openat(int folder, const char* name, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    const unsigned mode = va_arg(arguments, unsigned);
    va_end(arguments);
    if (fails(failing::kWriting)) {
        errno = EACCES;
        return -1;
    }
    const int file = __real_openat(folder, name, flags, mode);
    if (file >= 0) ++files;
    return file;
}

int __real_fstat(int, struct stat*);

int __real_close(int);
int __wrap_close(int file) {
    --files;
    struct stat info = {};
    const bool is_file = __real_fstat(file, &info) == 0 && S_ISREG(info.st_mode);
    const int closed = __real_close(file);
    if (is_file && fails(failing::kWriting)) {  // closed it is, but not all was written
        errno = EIO;
        return -1;
    }
    return closed;
}

int __wrap_fstat(int file, struct stat* info) {
    if (fails(failing::kReading)) {
        errno = EIO;
        return -1;
    }
    return __real_fstat(file, info);
}

ssize_t __real_pread(int, void*, size_t, off_t);
ssize_t __wrap_pread(int file, void* bytes, size_t n, off_t offset) {
    if (fails(failing::kReading)) {
        errno = EIO;
        return -1;
    }
    if (fails(failing::kShrinking)) return 0;
    if (fails(failing::kChanging)) {
        const ssize_t got = __real_pread(file, bytes, n, offset);
        auto* const p = static_cast<unsigned char*>(bytes);
        for (ssize_t i = 0; i < got; ++i) p[i] = static_cast<unsigned char>(~p[i]);
        return got;
    }
    // A read may give less than was asked for, or be interrupted, and is then gone on with.
    static std::atomic<unsigned> calls{0};
    if (++calls % 5 == 0) {
        errno = EINTR;
        return -1;
    }
    return __real_pread(file, bytes, n > 1 && calls % 3 == 0 ? n / 2 : n, offset);
}

ssize_t __real_write(int, const void*, size_t);
ssize_t __wrap_write(int file, const void* bytes, size_t n) {
    if (fails(failing::kWriting)) {
        errno = ENOSPC;
        return -1;
    }
    static std::atomic<unsigned> calls{0};
    if (++calls % 5 == 0) {
        errno = EINTR;
        return -1;
    }
    return __real_write(file, bytes, n > 1 && calls % 3 == 0 ? n / 2 : n);
}

int __real_fsync(int);
int __wrap_fsync(int file) {
    write_down('s');
    if (fails(failing::kWriting)) {
        errno = EIO;
        return -1;
    }
    return __real_fsync(file);
}

int __real_renameat(int, const char*, int, const char*);
int __wrap_renameat(int from_folder, const char* from, int to_folder, const char* to) {
    write_down('r');
    if (fails(failing::kWriting)) {
        errno = EROFS;
        return -1;
    }
    return __real_renameat(from_folder, from, to_folder, to);
}

}  // extern "C"
// NOLINTEND(bugprone-reserved-identifier)
