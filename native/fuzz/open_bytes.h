// Bytes as a model, and what programs do with one that opens.
#pragma once

#include <cstring>
#include <vector>

#include "harness.h"
#include "rwkv/rwkv.h"
#include "structs.h"

inline rwkv_status open_path(const char* path, rwkv_model** model) {
    rwkv_model_options options = model_options();
    options.n_threads = 1;
    return rwkv_model_open(path, &options, model);
}

// Feeds it one token, then many; reads, writes and forks its state; makes its tokenizer.
inline void use(rwkv_model* model) {
    const rwkv_model_info info = info_of(model);
    REQUIRE(info.n_vocab > 0 && info.state_size > 0 && info.name != nullptr);
    rwkv_session* session = nullptr;
    REQUIRE(rwkv_session_create(model, &session) == RWKV_STATUS_OK);
    std::vector<float> logits(info.n_vocab);
    std::vector<float> state(info.state_size);
    const std::vector<int32_t> tokens(40, static_cast<int32_t>(info.n_vocab - 1));
    for (const size_t n : {size_t{1}, tokens.size()}) {
        REQUIRE(rwkv_session_feed(session, tokens.data(), n, logits.data()) == RWKV_STATUS_OK);
        REQUIRE(rwkv_state_read(session, state.data(), state.size()) == RWKV_STATUS_OK);
        REQUIRE(rwkv_state_write(session, state.data(), state.size()) == RWKV_STATUS_OK);
    }
    rwkv_tokenizer* tokenizer = nullptr;
    const rwkv_status status = rwkv_tokenizer_create_for(model, &tokenizer);
    if (status == RWKV_STATUS_OK) {
        REQUIRE(info.has_tokenizer == 1 || info.n_vocab == 256 || info.n_vocab == 65536);
        const char text[] = "a\n\tb\xe4\xb8\\";
        int32_t ids[sizeof text];
        size_t n = 0;
        if (rwkv_tokenizer_encode(tokenizer, text, sizeof text, ids, sizeof text, &n) ==
            RWKV_STATUS_OK) {
            char again[sizeof text];
            size_t n_bytes = 0;
            REQUIRE(rwkv_tokenizer_decode(tokenizer, ids, n, again, sizeof again, &n_bytes) ==
                    RWKV_STATUS_OK);
            REQUIRE(n_bytes == sizeof text && std::memcmp(again, text, n_bytes) == 0);
        }
    } else {
        REQUIRE(status == RWKV_STATUS_MODEL_OPTION || status == RWKV_STATUS_VOCABULARY);
        require_message();
    }
    rwkv_tokenizer_free(tokenizer);
    rwkv_session_free(session);
}

// The file opens, and can be used, or fails with a sentence.
inline void open_and_use(const char* path) {
    rwkv_model* model = nullptr;
    if (open_path(path, &model) != RWKV_STATUS_OK) {
        REQUIRE(model == nullptr);
        require_message();
        return;
    }
    use(model);
    rwkv_model_free(model);
}
