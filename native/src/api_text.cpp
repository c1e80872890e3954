// Sections 6 and 7 of rwkv.h: check arguments, call, turn failures into a status; no logic.
#include <string_view>
#include <vector>

#include "api_guard.h"
#include "api_model.h"
#include "sampler.h"
#include "tokenizer.h"

using rwkv::Failure;
using rwkv::format;
using rwkv::guard;
using rwkv::require;
using rwkv::require_given;

struct rwkv_tokenizer {
    rwkv::Tokenizer impl;
};

struct rwkv_sampler {
    rwkv::Sampler impl;
};

namespace {

void require_capacity(size_t needed, size_t capacity, size_t* needed_out) {
    if (needed <= capacity) return;
    *needed_out = needed;
    throw Failure(RWKV_STATUS_BUFFER_TOO_SMALL,
                  format("capacity: expected at least %zu, got %zu", needed, capacity));
}

}  // namespace

// ------------------------------------------------------------------------------ 6. tokenizer ---

rwkv_status rwkv_tokenizer_open(const char* path, rwkv_tokenizer** tokenizer_out) {
    return guard([&] {
        require_given(path, "path", "the path of a vocabulary file");
        require_given(tokenizer_out, "tokenizer_out", "where to put the tokenizer");
        *tokenizer_out = new rwkv_tokenizer{rwkv::Tokenizer::open(path)};
    });
}

rwkv_status rwkv_tokenizer_create_bytes(rwkv_tokenizer** tokenizer_out) {
    return guard([&] {
        require_given(tokenizer_out, "tokenizer_out", "where to put the tokenizer");
        *tokenizer_out = new rwkv_tokenizer{rwkv::Tokenizer::bytes()};
    });
}

rwkv_status rwkv_tokenizer_create_of_model(const rwkv_model* model,
                                           rwkv_tokenizer** tokenizer_out) {
    return guard([&] {
        require_given(model, "model", "a model");
        require_given(tokenizer_out, "tokenizer_out", "where to put the tokenizer");
        const rwkv::Model& m = *model->shared;
        if (m.notes.tokens.empty()) {
            throw Failure(RWKV_STATUS_MODEL_OPTION,
                          format("%s: expected a file with a vocabulary, got one without. Open the "
                                 "vocabulary that the model was trained with",
                                 m.path.c_str()));
        }
        *tokenizer_out = new rwkv_tokenizer{rwkv::Tokenizer::of_tokens(m.notes.tokens)};
    });
}

void rwkv_tokenizer_free(rwkv_tokenizer* tokenizer) { delete tokenizer; }

size_t rwkv_tokenizer_n_vocab(const rwkv_tokenizer* tokenizer) {
    return tokenizer == nullptr ? 0 : tokenizer->impl.n_vocab();
}

int32_t rwkv_tokenizer_has(const rwkv_tokenizer* tokenizer, int32_t token) {
    return tokenizer != nullptr && tokenizer->impl.has(token) ? 1 : 0;
}

rwkv_status rwkv_tokenizer_encode(const rwkv_tokenizer* tokenizer, const char* text, size_t n_bytes,
                                  int32_t* tokens_out, size_t capacity, size_t* n_tokens_out) {
    return guard([&] {
        require_given(tokenizer, "tokenizer", "a tokenizer");
        require(text || n_bytes == 0, "text: expected bytes, got NULL");
        require(tokens_out || capacity == 0, "tokens_out: expected an array, got NULL");
        require_given(n_tokens_out, "n_tokens_out", "where to put a number");
        const std::string_view bytes(text, n_bytes);
        if (capacity < n_bytes) {
            require_capacity(tokenizer->impl.count(bytes), capacity, n_tokens_out);
        }
        *n_tokens_out = tokenizer->impl.encode(bytes, tokens_out);
    });
}

rwkv_status rwkv_tokenizer_decode(const rwkv_tokenizer* tokenizer, const int32_t* tokens,
                                  size_t n_tokens, char* text_out, size_t capacity,
                                  size_t* n_bytes_out) {
    return guard([&] {
        require_given(tokenizer, "tokenizer", "a tokenizer");
        require(tokens || n_tokens == 0, "tokens: expected an array, got NULL");
        require(text_out || capacity == 0, "text_out: expected a buffer, got NULL");
        require_given(n_bytes_out, "n_bytes_out", "where to put a number");
        // Each token is looked at once: what was counted is what is written, also if another thread
        // changes them meanwhile.
        std::vector<std::string_view> pieces(n_tokens);
        size_t n_bytes = 0;
        for (size_t i = 0; i < n_tokens; ++i) {
            pieces[i] = tokenizer->impl.decode(tokens[i]);
            n_bytes += pieces[i].size();
        }
        require_capacity(n_bytes, capacity, n_bytes_out);
        for (const std::string_view piece : pieces) text_out += piece.copy(text_out, piece.size());
        *n_bytes_out = n_bytes;
    });
}

// -------------------------------------------------------------------------------- 7. sampler ---

rwkv_sampler_options rwkv_sampler_options_default(void) {
    rwkv_sampler_options options{};
    options.struct_size = sizeof options;
    options.temperature = 1;
    options.top_p = 0.85;
    options.typical_p = 1;
    options.mirostat_eta = 0.1;
    options.repetition_penalty = 1;
    options.penalty_decay = 0.996;
    return options;
}

rwkv_status rwkv_sampler_create(size_t n_vocab, const rwkv_sampler_options* options,
                                rwkv_sampler** sampler_out) {
    return guard([&] {
        require_given(sampler_out, "sampler_out", "where to put the sampler");
        require(
            !options || options->struct_size == sizeof *options,
            "options: struct_size, expected sizeof(rwkv_sampler_options), got another. Start from "
            "rwkv_sampler_options_default()");
        *sampler_out = new rwkv_sampler{
            rwkv::Sampler(n_vocab, options ? *options : rwkv_sampler_options_default())};
    });
}

void rwkv_sampler_free(rwkv_sampler* sampler) { delete sampler; }

void rwkv_sampler_reset(rwkv_sampler* sampler, uint64_t seed) {
    if (sampler != nullptr) sampler->impl.reset(seed);
}

rwkv_status rwkv_sampler_bias(rwkv_sampler* sampler, int32_t token, float bias) {
    return guard([&] {
        require_given(sampler, "sampler", "a sampler");
        sampler->impl.bias(token, bias);
    });
}

rwkv_status rwkv_sampler_weigh(rwkv_sampler* sampler, int32_t token, double weight) {
    return guard([&] {
        require_given(sampler, "sampler", "a sampler");
        sampler->impl.weigh(token, weight);
    });
}

rwkv_status rwkv_sampler_sample(rwkv_sampler* sampler, const float* logits, int32_t* token_out) {
    return guard([&] {
        require_given(sampler, "sampler", "a sampler");
        require_given(logits, "logits", "an array of n_vocab floats");
        require_given(token_out, "token_out", "where to put the token");
        *token_out = sampler->impl.sample(logits);
    });
}

rwkv_status rwkv_sampler_accept(rwkv_sampler* sampler, int32_t token) {
    return guard([&] {
        require_given(sampler, "sampler", "a sampler");
        sampler->impl.accept(token);
    });
}
