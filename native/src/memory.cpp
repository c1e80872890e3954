#include "memory.h"

#include <new>

#include "os.h"

namespace rwkv {

Memory::Memory(size_t n_bytes) : size_(n_bytes) {
    if (n_bytes == 0) return;
    data_ = static_cast<uint8_t*>(os::allocate_pages(n_bytes));
    if (data_ == nullptr) throw std::bad_alloc();
}

Memory::~Memory() {
    if (data_ != nullptr) os::free_pages(data_, size_);
}

}  // namespace rwkv
