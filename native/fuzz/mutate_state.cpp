// Changes of state files: they end with a checksum, which most changes are given.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>

#include "hash64.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t most);
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t most, unsigned seed);
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t most, unsigned seed) {
    const size_t n = LLVMFuzzerMutate(data, size, most);
    if (n < sizeof(uint64_t) || std::minstd_rand(seed)() % 8 == 0) return n;
    rwkv::Hash64 hash;
    hash.add(data, n - sizeof(uint64_t));
    const uint64_t checksum = hash.value();
    std::memcpy(data + n - sizeof checksum, &checksum, sizeof checksum);
    return n;
}
