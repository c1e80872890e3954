// Models that harnesses work with, small and always the same.
#pragma once

#include <vector>

#include "memory_file.h"
#include "open_bytes.h"
#include "tiny_gguf.h"
#include "tiny_model.h"

inline tiny::Sizes fuzz_sizes() {
    tiny::Sizes sizes;
    sizes.n_layer = 1;
    sizes.n_head = 1;
    sizes.n_ffn = 32;
    sizes.n_vocab = 8;
    return sizes;
}

// The smallest there are, which fuzzing is fastest with: not for quantised types.
inline tiny::Sizes smallest_sizes() {
    tiny::Sizes sizes = fuzz_sizes();
    sizes.head_size = 8;
    sizes.n_ffn = 8;
    sizes.rank = 4;
    return sizes;
}

inline std::vector<uint8_t> ggmf_bytes(const char* version, rwkv_type type,
                                       const tiny::Sizes& sizes) {
    return tiny::random_model(version, type, sizes).bytes();
}

// With a vocabulary.
inline std::vector<uint8_t> gguf_bytes(const char* version, rwkv_type type,
                                       const tiny::Sizes& sizes) {
    return tiny::gguf_of(tiny::random_model(version, type, sizes), version, sizes).bytes();
}

inline rwkv_model* open_tiny(const char* version) {
    const std::vector<uint8_t> bytes = ggmf_bytes(version, RWKV_TYPE_FP32, smallest_sizes());
    const MemoryFile file(bytes.data(), bytes.size());
    rwkv_model* model = nullptr;
    REQUIRE(open_path(file.path(), &model) == RWKV_STATUS_OK);
    return model;
}
