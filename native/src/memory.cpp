#include "memory.h"

#include <sys/mman.h>

#include <new>

namespace rwkv {

Memory::Memory(size_t n_bytes) : size_(n_bytes) {
    if (n_bytes == 0) return;
    void* p = ::mmap(nullptr, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
    if (n_bytes >= (size_t{4} << 20)) ::madvise(p, n_bytes, MADV_HUGEPAGE);
#endif
    data_ = static_cast<uint8_t*>(p);
}

Memory::~Memory() {
    if (data_ != nullptr) ::munmap(data_, size_);
}

}  // namespace rwkv
