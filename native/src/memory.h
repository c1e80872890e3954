// Large aligned memory for weights and activations.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace rwkv {

// Bytes from the operating system, zeroed, aligned to 64 at least; in huge pages where it has them,
// which makes reading weights in order cheaper. Throws std::bad_alloc.
class Memory {
  public:
    Memory() = default;
    explicit Memory(size_t n_bytes);
    ~Memory();
    Memory(Memory&& other) noexcept { swap(other); }
    Memory& operator=(Memory&& other) noexcept {
        swap(other);
        return *this;
    }

    uint8_t* data() const noexcept { return data_; }
    size_t size() const noexcept { return size_; }

  private:
    void swap(Memory& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
    }

    uint8_t* data_ = nullptr;
    size_t size_ = 0;
};

// The smallest multiple of `unit` that is not below n.
constexpr size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace rwkv
