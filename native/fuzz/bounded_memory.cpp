#include "bounded_memory.h"

#include <malloc.h>
#include <sys/mman.h>
#include <sys/types.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>

namespace {

std::atomic<long long> held{0};
std::atomic<long long> most{0};
std::atomic<long long> before{0};
std::atomic<long long> limit{-1};  // below 0: none

void add(size_t n) {
    const long long now = held += static_cast<long long>(n);
    long long seen = most;
    while (now > seen && !most.compare_exchange_weak(seen, now)) {
    }
    const long long allowed = limit;
    if (allowed < 0 || now - before <= allowed) return;
    limit = -1;
    std::fprintf(stderr, "ERROR: expected at most %lld bytes of memory, got %lld with one of %zu\n",
                 allowed, now - before.load(), n);
    std::abort();
}

void* allocate_or_null(size_t n) noexcept {
    void* p = std::malloc(n == 0 ? 1 : n);
    if (p != nullptr) add(malloc_usable_size(p));
    return p;
}

void* allocate(size_t n) {
    void* p = allocate_or_null(n);
    if (p == nullptr) throw std::bad_alloc();
    return p;
}

void release(void* p) noexcept {
    if (p == nullptr) return;
    held -= static_cast<long long>(malloc_usable_size(p));
    std::free(p);
}

}  // namespace

namespace bounded {

void allow(size_t n) noexcept {
    before = held.load();
    most = held.load();
    limit = static_cast<long long>(n);
}

size_t most_held() noexcept {
    limit = -1;
    return static_cast<size_t>(most - before);
}

}  // namespace bounded

void* operator new(size_t n) { return allocate(n); }
void* operator new[](size_t n) { return allocate(n); }
void* operator new(size_t n, const std::nothrow_t&) noexcept { return allocate_or_null(n); }
void* operator new[](size_t n, const std::nothrow_t&) noexcept { return allocate_or_null(n); }
void operator delete(void* p) noexcept { release(p); }
void operator delete[](void* p) noexcept { release(p); }
void operator delete(void* p, size_t) noexcept { release(p); }
void operator delete[](void* p, size_t) noexcept { release(p); }

// The names are the linker's: see --wrap in its manual.
// NOLINTBEGIN(bugprone-reserved-identifier)
extern "C" {

void* __real_mmap(void*, size_t, int, int, int, off_t);
void* __wrap_mmap(void* at, size_t n, int protection, int flags, int file, off_t offset) {
    void* p = __real_mmap(at, n, protection, flags, file, offset);
    if (p != MAP_FAILED) add(n);
    return p;
}

int __real_munmap(void*, size_t);
int __wrap_munmap(void* p, size_t n) {
    held -= static_cast<long long>(n);
    return __real_munmap(p, n);
}

}  // extern "C"
// NOLINTEND(bugprone-reserved-identifier)
