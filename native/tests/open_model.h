// What tests of whole models share: handles that free themselves, and short words for the C API.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "check.h"
#include "rwkv/rwkv.h"
#include "structs.h"
#include "tiny_model.h"

namespace opened {

struct Free {
    void operator()(rwkv_model* m) const { rwkv_model_free(m); }
    void operator()(rwkv_session* s) const { rwkv_session_free(s); }
    void operator()(rwkv_batch* b) const { rwkv_batch_free(b); }
};
using Model = std::unique_ptr<rwkv_model, Free>;
using Session = std::unique_ptr<rwkv_session, Free>;
using Batch = std::unique_ptr<rwkv_batch, Free>;
using Floats = std::vector<float>;
using Tokens = std::vector<int32_t>;

inline void expect_status(rwkv_status got, rwkv_status expected, const char* word, int line) {
    const char* message = rwkv_error_message();
    if (got == expected && std::strstr(message, word) != nullptr) return;
    std::fprintf(stderr, "line %d: status %d, expected %d with '%s' in the message: %s\n", line,
                 got, expected, word, message);
    std::exit(1);
}
#define EXPECT_STATUS(call, status, word) expect_status(call, status, word, __LINE__)
#define EXPECT_OK(call)                                                        \
    do {                                                                       \
        if ((call) != RWKV_STATUS_OK) {                                        \
            std::fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, \
                         rwkv_error_message());                                \
            std::exit(1);                                                      \
        }                                                                      \
    } while (0)

inline Model open(const tiny::File& file, size_t n_threads = 1) {
    rwkv_model_options options = model_options();
    options.n_threads = n_threads;
    rwkv_model* model = nullptr;
    EXPECT_OK(rwkv_model_open(file.path(), &options, &model));
    CHECK(info_of(model).n_threads == n_threads);
    return Model(model);
}

inline Model open(const tiny::Model& made) { return open(tiny::File(made)); }

inline Session session_of(const Model& model) {
    rwkv_session* session = nullptr;
    EXPECT_OK(rwkv_session_create(model.get(), &session));
    return Session(session);
}

inline Batch batch_of(const Model& model) {
    rwkv_batch* batch = nullptr;
    EXPECT_OK(rwkv_batch_create(model.get(), &batch));
    return Batch(batch);
}

inline size_t vocab_of(const Model& model) { return info_of(model.get()).n_vocab; }

inline size_t state_size_of(const Model& model) { return info_of(model.get()).state_size; }

inline Floats state_of(const Model& model, const Session& session) {
    Floats state(state_size_of(model));
    EXPECT_OK(rwkv_state_read(session.get(), state.data(), state.size()));
    return state;
}

inline Tokens random_tokens(size_t n, size_t n_vocab, uint32_t seed = 7) {
    std::mt19937 random(seed);
    Tokens tokens(n);
    for (int32_t& t : tokens) t = static_cast<int32_t>(random() % n_vocab);
    return tokens;
}

inline void choose_level(const char* level) { CHECK(setenv("RWKV_KERNELS", level, 1) == 0); }

inline bool same_bits(const Floats& a, const Floats& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace opened
