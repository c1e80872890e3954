// What the handles of the C API hold, and structs that can grow.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>

#include "api_guard.h"
#include "model.h"
#include "rwkv/rwkv.h"
#include "sampler.h"
#include "session.h"
#include "tokenizer.h"

struct rwkv_model {
    std::shared_ptr<const rwkv::Model> shared;
};

struct rwkv_session {
    rwkv::Session impl;
};

struct rwkv_tokenizer {
    std::shared_ptr<const rwkv::Tokenizer> shared;
};

struct rwkv_sampler {
    rwkv::Sampler impl;
};

namespace rwkv {

// Structs begin with their size, as the header of the caller's program has it. Ours may be shorter
// or longer.
constexpr size_t kMostStructBytes = 4096;  // a size beyond is one that was never set

// Fills the caller's struct: what ours does not know is 0.
template <class T>
void fill_struct(T* out, size_t struct_size, const T& from) noexcept {
    if (out == nullptr || struct_size < sizeof(size_t) || struct_size > kMostStructBytes) return;
    std::memset(static_cast<void*>(out), 0, struct_size);
    std::memcpy(static_cast<void*>(out), &from, std::min(struct_size, sizeof from));
    out->struct_size = struct_size;
}

// The caller's options: what theirs does not know has its default; what ours does not know must be
// 0, since it asks for something that this library cannot do.
template <class T>
T options_of(const T* given, const T& defaults, const char* init) {
    if (given == nullptr) return defaults;
    const size_t size = given->struct_size;
    const auto* const bytes = reinterpret_cast<const unsigned char*>(given);
    if (size < sizeof(size_t) || size > kMostStructBytes) {
        throw Failure(RWKV_STATUS_INVALID_ARGUMENT,
                      format("options: struct_size, expected the size of the struct, got %zu. "
                             "Begin them with %s",
                             size, init));
    }
    for (size_t i = sizeof(T); i < size; ++i) {
        if (bytes[i] == 0) continue;
        throw Failure(RWKV_STATUS_INVALID_ARGUMENT,
                      format("options: expected those of version " RWKV_VERSION_STRING
                             ", got one of a later version at byte %zu. Load a newer library",
                             i));
    }
    T options = defaults;
    std::memcpy(static_cast<void*>(&options), given, std::min(size, sizeof options));
    options.struct_size = sizeof options;
    return options;
}

}  // namespace rwkv
