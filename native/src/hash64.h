// A fast 64-bit hash of bytes: tells models apart and finds damage. It is no defence against
// someone who wants two inputs to collide.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace rwkv {

// Over the bytes as little-endian words of 64 bits, the last filled up with zeros, then their
// number:
//     h = (h xor word) * 0x9e3779b97f4a7c15 mod 2^64;  h = h xor (h >> 32)
// Each step is a bijection of h, so a change of a single word always shows.
class Hash64 {
  public:
    void add(const void* bytes, size_t n) noexcept {
        const auto* p = static_cast<const uint8_t*>(bytes);
        size_t left = n;
        for (; left >= sizeof(uint64_t); left -= sizeof(uint64_t), p += sizeof(uint64_t)) {
            uint64_t word;
            std::memcpy(&word, p, sizeof word);
            mix(word);
        }
        if (left > 0) {
            uint64_t word = 0;
            std::memcpy(&word, p, left);
            mix(word);
        }
        mix(n);
    }

    uint64_t value() const noexcept { return h_; }

  private:
    void mix(uint64_t word) noexcept {
        h_ = (h_ ^ word) * 0x9e3779b97f4a7c15u;
        h_ ^= h_ >> 32;
    }

    uint64_t h_ = 0;
};

}  // namespace rwkv
