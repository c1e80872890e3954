// Sections 6 to 10 of rwkv.h: check arguments, call, turn failures into a status; no logic.
#include <string_view>
#include <vector>

#include "api_guard.h"
#include "api_objects.h"
#include "generator.h"
#include "prefix_cache.h"
#include "sampler.h"
#include "text_stream.h"
#include "tokenizer.h"

using rwkv::Failure;
using rwkv::format;
using rwkv::guard;
using rwkv::require;
using rwkv::require_given;

struct rwkv_prefix_cache {
    rwkv::PrefixCache impl;
};

struct rwkv_text_stream {
    rwkv::TextStream impl;
    std::string text;  // what was told last
};

struct rwkv_generator {
    rwkv::Generator impl;
};

namespace {

void require_capacity(size_t needed, size_t capacity, size_t* needed_out) {
    if (needed <= capacity) return;
    *needed_out = needed;
    throw Failure(RWKV_STATUS_BUFFER_TOO_SMALL,
                  format("capacity: expected at least %zu, got %zu", needed, capacity));
}

void give_tokenizer(rwkv_tokenizer** tokenizer_out, rwkv::Tokenizer tokenizer) {
    auto shared = std::make_shared<const rwkv::Tokenizer>(std::move(tokenizer));
    *tokenizer_out = new rwkv_tokenizer{std::move(shared)};
}

rwkv::Tokenizer tokenizer_for(const rwkv::Model& model) {
    constexpr size_t kBytes = 256;
    constexpr size_t kWorld = 65536;
    if (!model.notes.tokens.empty()) return rwkv::Tokenizer::of_tokens(model.notes.tokens);
    const size_t n_vocab = model.config.n_vocab;
    if (n_vocab == kBytes) return rwkv::Tokenizer::bytes();
    if (n_vocab == kWorld) return rwkv::Tokenizer::world();
    throw Failure(RWKV_STATUS_MODEL_OPTION,
                  format("%s: tokenizer, expected a file with a vocabulary, or 256 tokens (bytes) "
                         "or 65536 (the World vocabulary), got a file without and %zu. Open the "
                         "vocabulary that the model was trained with",
                         model.path.c_str(), n_vocab));
}

void require_bytes(const char* bytes, size_t n_bytes, const char* name) {
    if (bytes != nullptr && n_bytes > 0) return;
    throw Failure(RWKV_STATUS_INVALID_ARGUMENT,
                  format("%s: expected at least one byte, got none", name));
}

}  // namespace

// --------------------------------------------------------------------------- 6. prefix cache ---

rwkv_status rwkv_prefix_cache_create(rwkv_model* model, size_t max_bytes,
                                     rwkv_prefix_cache** cache_out) {
    return guard([&] {
        require_given(model, "model", "a model");
        require_given(cache_out, "cache_out", "where to put the cache");
        *cache_out = new rwkv_prefix_cache{{model->shared, max_bytes}};
    });
}

void rwkv_prefix_cache_free(rwkv_prefix_cache* cache) { delete cache; }

rwkv_status rwkv_prefix_cache_feed(rwkv_prefix_cache* cache, rwkv_session* session,
                                   const int32_t* tokens, size_t n_tokens, float* logits_out,
                                   size_t* n_found_out) {
    return guard([&] {
        require_given(cache, "cache", "a prefix cache");
        require_given(session, "session", "a session");
        require_given(tokens, "tokens", "an array");
        require(n_tokens > 0, "tokens: expected at least one, got none");
        const size_t n = cache->impl.feed(session->impl, tokens, n_tokens, logits_out);
        if (n_found_out != nullptr) *n_found_out = n;
    });
}

rwkv_status rwkv_prefix_cache_keep(rwkv_prefix_cache* cache, const rwkv_session* session,
                                   const int32_t* tokens, size_t n_tokens) {
    return guard([&] {
        require_given(cache, "cache", "a prefix cache");
        require_given(session, "session", "a session");
        require_given(tokens, "tokens", "an array");
        require(n_tokens > 0, "tokens: expected at least one, got none");
        cache->impl.keep(session->impl, tokens, n_tokens);
    });
}

size_t rwkv_prefix_cache_n_bytes(const rwkv_prefix_cache* cache) {
    return cache == nullptr ? 0 : cache->impl.n_bytes();
}

void rwkv_prefix_cache_clear(rwkv_prefix_cache* cache) {
    if (cache != nullptr) cache->impl.clear();
}

// ------------------------------------------------------------------------------ 7. tokenizer ---

rwkv_status rwkv_tokenizer_open(const char* path, rwkv_tokenizer** tokenizer_out) {
    return guard([&] {
        require_given(path, "path", "the path of a vocabulary file");
        require_given(tokenizer_out, "tokenizer_out", "where to put the tokenizer");
        give_tokenizer(tokenizer_out, rwkv::Tokenizer::open(path));
    });
}

rwkv_status rwkv_tokenizer_create_bytes(rwkv_tokenizer** tokenizer_out) {
    return guard([&] {
        require_given(tokenizer_out, "tokenizer_out", "where to put the tokenizer");
        give_tokenizer(tokenizer_out, rwkv::Tokenizer::bytes());
    });
}

rwkv_status rwkv_tokenizer_create_world(rwkv_tokenizer** tokenizer_out) {
    return guard([&] {
        require_given(tokenizer_out, "tokenizer_out", "where to put the tokenizer");
        give_tokenizer(tokenizer_out, rwkv::Tokenizer::world());
    });
}

rwkv_status rwkv_tokenizer_create_for(const rwkv_model* model, rwkv_tokenizer** tokenizer_out) {
    return guard([&] {
        require_given(model, "model", "a model");
        require_given(tokenizer_out, "tokenizer_out", "where to put the tokenizer");
        give_tokenizer(tokenizer_out, tokenizer_for(*model->shared));
    });
}

void rwkv_tokenizer_free(rwkv_tokenizer* tokenizer) { delete tokenizer; }

size_t rwkv_tokenizer_n_vocab(const rwkv_tokenizer* tokenizer) {
    return tokenizer == nullptr ? 0 : tokenizer->shared->n_vocab();
}

int32_t rwkv_tokenizer_has(const rwkv_tokenizer* tokenizer, int32_t token) {
    return tokenizer != nullptr && tokenizer->shared->has(token) ? 1 : 0;
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
            require_capacity(tokenizer->shared->count(bytes), capacity, n_tokens_out);
        }
        *n_tokens_out = tokenizer->shared->encode(bytes, tokens_out);
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
            pieces[i] = tokenizer->shared->decode(tokens[i]);
            n_bytes += pieces[i].size();
        }
        require_capacity(n_bytes, capacity, n_bytes_out);
        for (const std::string_view piece : pieces) text_out += piece.copy(text_out, piece.size());
        *n_bytes_out = n_bytes;
    });
}

// ---------------------------------------------------------------------------- 8. text stream ---

namespace {

// What is pushed counts only when all is done.
template <class Piece>
rwkv_status push(rwkv_text_stream* stream, Piece piece, const char** text_out,
                 size_t* n_bytes_out) {
    return guard([&] {
        require_given(stream, "stream", "a text stream");
        require_given(text_out, "text_out", "where to put a pointer");
        require_given(n_bytes_out, "n_bytes_out", "where to put a number");
        rwkv::TextStream after = stream->impl;
        stream->text = after.push(piece);
        stream->impl = std::move(after);
        *text_out = stream->text.data();
        *n_bytes_out = stream->text.size();
    });
}

}  // namespace

rwkv_status rwkv_text_stream_create(const rwkv_tokenizer* tokenizer,
                                    rwkv_text_stream** stream_out) {
    return guard([&] {
        require_given(stream_out, "stream_out", "where to put the stream");
        std::shared_ptr<const rwkv::Tokenizer> shared;
        if (tokenizer != nullptr) shared = tokenizer->shared;
        *stream_out = new rwkv_text_stream{rwkv::TextStream(std::move(shared)), {}};
    });
}

void rwkv_text_stream_free(rwkv_text_stream* stream) { delete stream; }

rwkv_status rwkv_text_stream_stop(rwkv_text_stream* stream, const char* stop, size_t n_bytes) {
    return guard([&] {
        require_given(stream, "stream", "a text stream");
        require_bytes(stop, n_bytes, "stop");
        stream->impl.stop({stop, n_bytes});
    });
}

rwkv_status rwkv_text_stream_push(rwkv_text_stream* stream, int32_t token, const char** text_out,
                                  size_t* n_bytes_out) {
    return push(stream, token, text_out, n_bytes_out);
}

rwkv_status rwkv_text_stream_push_bytes(rwkv_text_stream* stream, const char* bytes, size_t n_bytes,
                                        const char** text_out, size_t* n_bytes_out) {
    if (bytes == nullptr && n_bytes > 0) {
        return guard([] { require(false, "bytes: expected bytes, got NULL"); });
    }
    return push(stream, std::string_view(bytes, n_bytes), text_out, n_bytes_out);
}

int32_t rwkv_text_stream_stopped(const rwkv_text_stream* stream) {
    return stream != nullptr && stream->impl.stopped() ? 1 : 0;
}

rwkv_status rwkv_text_stream_finish(rwkv_text_stream* stream, const char** text_out,
                                    size_t* n_bytes_out) {
    return guard([&] {
        require_given(stream, "stream", "a text stream");
        require_given(text_out, "text_out", "where to put a pointer");
        require_given(n_bytes_out, "n_bytes_out", "where to put a number");
        stream->text = stream->impl.finish();
        *text_out = stream->text.data();
        *n_bytes_out = stream->text.size();
    });
}

void rwkv_text_stream_reset(rwkv_text_stream* stream) {
    if (stream != nullptr) stream->impl.reset();
}

// -------------------------------------------------------------------------------- 9. sampler ---

namespace {

rwkv_sampler_options sampler_defaults() {
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

}  // namespace

void rwkv_sampler_options_init(rwkv_sampler_options* options, size_t struct_size) {
    rwkv::fill_struct(options, struct_size, sampler_defaults());
}

rwkv_status rwkv_sampler_create(size_t n_vocab, const rwkv_sampler_options* options,
                                rwkv_sampler** sampler_out) {
    return guard([&] {
        require_given(sampler_out, "sampler_out", "where to put the sampler");
        const auto chosen =
            rwkv::options_of(options, sampler_defaults(), "rwkv_sampler_options_init");
        *sampler_out = new rwkv_sampler{rwkv::Sampler(n_vocab, chosen)};
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

rwkv_status rwkv_sampler_sample_masked(rwkv_sampler* sampler, const float* logits,
                                       const uint32_t* mask, int32_t* token_out) {
    return guard([&] {
        require_given(sampler, "sampler", "a sampler");
        require_given(logits, "logits", "an array of n_vocab floats");
        require_given(mask, "mask", "an array of (n_vocab + 31) / 32 words");
        require_given(token_out, "token_out", "where to put the token");
        *token_out = sampler->impl.sample(logits, mask);
    });
}

rwkv_status rwkv_sampler_accept(rwkv_sampler* sampler, int32_t token) {
    return guard([&] {
        require_given(sampler, "sampler", "a sampler");
        sampler->impl.accept(token);
    });
}

// ----------------------------------------------------------------------------- 10. generator ---

rwkv_status rwkv_generator_create(rwkv_session* session, const rwkv_tokenizer* tokenizer,
                                  rwkv_sampler* sampler, rwkv_generator** generator_out) {
    return guard([&] {
        require_given(session, "session", "a session");
        require_given(tokenizer, "tokenizer", "a tokenizer");
        require_given(sampler, "sampler", "a sampler");
        require_given(generator_out, "generator_out", "where to put the generator");
        *generator_out = new rwkv_generator{{session->impl, tokenizer->shared, sampler->impl}};
    });
}

void rwkv_generator_free(rwkv_generator* generator) { delete generator; }

rwkv_status rwkv_generator_stop(rwkv_generator* generator, const char* stop, size_t n_bytes) {
    return guard([&] {
        require_given(generator, "generator", "a generator");
        require_bytes(stop, n_bytes, "stop");
        generator->impl.stop({stop, n_bytes});
    });
}

rwkv_status rwkv_generator_stop_token(rwkv_generator* generator, int32_t token) {
    return guard([&] {
        require_given(generator, "generator", "a generator");
        generator->impl.stop_token(token);
    });
}

rwkv_status rwkv_generator_begin(rwkv_generator* generator, const char* prompt, size_t n_bytes,
                                 size_t max_tokens) {
    return guard([&] {
        require_given(generator, "generator", "a generator");
        require(prompt != nullptr || n_bytes == 0, "prompt: expected bytes, got NULL");
        generator->impl.begin({prompt, n_bytes}, max_tokens);
    });
}

rwkv_status rwkv_generator_next(rwkv_generator* generator, const char** text_out,
                                size_t* n_bytes_out) {
    return guard([&] {
        require_given(generator, "generator", "a generator");
        require_given(text_out, "text_out", "where to put a pointer");
        require_given(n_bytes_out, "n_bytes_out", "where to put a number");
        const std::string* const text = generator->impl.next();
        *text_out = text == nullptr ? nullptr : text->data();
        *n_bytes_out = text == nullptr ? 0 : text->size();
    });
}

rwkv_finish rwkv_generator_finish_reason(const rwkv_generator* generator) {
    return generator == nullptr ? RWKV_FINISH_NONE : generator->impl.reason();
}
