// More calls: those that came with version 4 of the ABI.
#pragma once

#include "world.h"

namespace {

// ---- files in memory, logits, taking back

void open_memory(World& w) {
    Slot<rwkv_model>& slot = w.models.place(w.p);
    static const std::vector<uint8_t> bytes = gguf_bytes("7", RWKV_TYPE_FP32, smallest_sizes());
    const size_t n = w.p.below(4) == 0 ? w.p.byte() : bytes.size();
    const rwkv_model_options options = model_options();
    w.make(slot, rwkv_model_free, [&](rwkv_model** out) {
        return rwkv_model_open_memory(w.p.below(8) == 0 ? nullptr : bytes.data(), n, &options, out);
    });
}

void state_memory(World& w) {
    const rwkv_session* from = w.sessions.any(w.p).object;
    rwkv_session* to = w.sessions.any(w.p).object;
    std::vector<uint8_t> bytes(w.p.below(4) == 0 ? w.p.byte() : 4096);
    size_t n = 0;
    const rwkv_status status = w.note(rwkv_state_save_memory(
        from, static_cast<rwkv_state_type>(w.p.below(3)), bytes.data(), bytes.size(), &n));
    if (status != RWKV_STATUS_OK) return;
    REQUIRE(n <= bytes.size());
    if (w.p.below(4) == 0 && n > 0) bytes[w.p.byte() % n] ^= w.p.byte();
    w.note(rwkv_state_load_memory(to, bytes.data(), n - (w.p.below(4) == 0 ? 1 : 0)));
}

void last_logits(World& w) {
    const rwkv_session* session = w.sessions.any(w.p).object;
    Floats out(64);  // n_vocab and n_embd are 8
    w.note(rwkv_session_logits(session, out.data()));
    w.note(rwkv_session_hidden(session, out.data()));
}

void feed_all(World& w) {
    rwkv_session* session = w.sessions.any(w.p).object;
    const std::vector<int32_t> tokens = w.p.tokens(kVocab);
    Floats logits(kVocab * tokens.size());
    w.note(rwkv_session_feed_all(session, tokens.data(), tokens.size(), logits.data()));
}

void allow_take_back(World& w) {
    rwkv_session* session = w.sessions.any(w.p).object;
    w.note(rwkv_session_allow_take_back(session, w.p.below(40)));
}

void keep(World& w) {
    rwkv_session* session = w.sessions.any(w.p).object;
    w.note(rwkv_session_keep(session, w.p.below(40)));
}

void set_time_state(World& w) {
    const Slot<rwkv_session> session = w.sessions.any(w.p);
    const Floats state = w.p.floats(w.p.below(3) == 0 ? w.p.byte() : 64);  // one head of 8 x 8
    const bool none = w.p.below(4) == 0;
    w.note(rwkv_session_set_time_state(session.object, none ? nullptr : state.data(),
                                       none ? 0 : state.size()));
}

void cancel(World& w) {
    rwkv_session_cancel(w.sessions.any(w.p).object);
    rwkv_batch_cancel(w.batches.any(w.p).object);
}

void sample_masked(World& w) {
    const Slot<rwkv_sampler> sampler = w.samplers.any(w.p);
    const Floats logits = w.p.floats(sampler.n_floats);
    std::vector<uint32_t> mask((sampler.n_floats + 31) / 32);
    for (uint32_t& word : mask) word = w.p.raw<uint32_t>();
    int32_t token = -7;
    const uint32_t* given = w.p.below(8) == 0 ? nullptr : mask.data();
    if (w.note(rwkv_sampler_sample_masked(sampler.object, logits.data(), given, &token)) ==
        RWKV_STATUS_OK) {
        REQUIRE(token >= 0 && static_cast<size_t>(token) < sampler.n_floats);
        const auto t = static_cast<size_t>(token);
        REQUIRE(given == nullptr || (mask[t / 32] >> t % 32 & 1) == 1);
    }
}

// ---- layers by themselves

void open_layers(World& w) {
    Slot<rwkv_model>& slot = w.models.place(w.p);
    static const std::vector<uint8_t> bytes = gguf_bytes("7", RWKV_TYPE_FP32, smallest_sizes());
    rwkv_model_options options = model_options();
    options.first_layer = w.p.below(3);
    options.n_layers = w.p.below(4);
    w.make(slot, rwkv_model_free, [&](rwkv_model** out) {
        return rwkv_model_open_memory(bytes.data(), bytes.size(), &options, out);
    });
}

// All inputs of all matrices, of whatever model the session is.
void run_layers(World& w) {
    rwkv_session* session = w.sessions.any(w.p).object;
    const rwkv_model* model = w.models.any(w.p).object;
    const size_t n_rows = w.p.below(4);
    Floats x(8 * n_rows + 1);
    Floats v_first(x.size());
    for (size_t i = 0; i < rwkv_model_n_matrices(model); ++i) {
        rwkv_matrix_info info = {};
        REQUIRE(w.note(rwkv_model_matrix_get(model, i, &info, sizeof info)) == RWKV_STATUS_OK);
        REQUIRE(*info.name != '\0' && info.n_in > 0);
    }
    w.note(rwkv_session_run_layers(session, x.data(), w.p.below(4) == 0 ? nullptr : v_first.data(),
                                   n_rows, nullptr));
}

// ---- prefix caches

void create_cache(World& w) {
    Slot<rwkv_prefix_cache>& slot = w.caches.place(w.p);
    rwkv_model* model = w.models.any(w.p).object;
    const size_t most = w.p.below(4) == 0 ? SIZE_MAX : size_t{64} * w.p.byte();
    w.make(slot, rwkv_prefix_cache_free,
           [&](rwkv_prefix_cache** out) { return rwkv_prefix_cache_create(model, most, out); });
}

void free_cache(World& w) {
    Slot<rwkv_prefix_cache>& slot = w.caches.place(w.p);
    rwkv_prefix_cache_free(slot.object);
    slot = {};
}

void cache_feed(World& w) {
    rwkv_prefix_cache* cache = w.caches.any(w.p).object;
    rwkv_session* session = w.sessions.any(w.p).object;
    const std::vector<int32_t> tokens = w.p.tokens(kVocab);
    Floats logits(kVocab);
    size_t found = 0;
    w.note(rwkv_prefix_cache_feed(cache, session, tokens.data(), tokens.size(),
                                  w.p.below(2) == 0 ? nullptr : logits.data(), &found));
    REQUIRE(found <= tokens.size());
}

void cache_keep(World& w) {
    rwkv_prefix_cache* cache = w.caches.any(w.p).object;
    const rwkv_session* session = w.sessions.any(w.p).object;
    const std::vector<int32_t> tokens = w.p.tokens(kVocab);
    w.note(rwkv_prefix_cache_keep(cache, session, tokens.data(), tokens.size()));
    (void)rwkv_prefix_cache_n_bytes(cache);
    if (w.p.below(8) == 0) rwkv_prefix_cache_clear(cache);
}

// ---- texts

void expect_text(World& w, rwkv_status status, const char* text, size_t n) {
    if (w.note(status) != RWKV_STATUS_OK || text == nullptr) return;
    volatile char last = 0;
    for (size_t i = 0; i < n; ++i) last = text[i];  // all of it is there
    (void)last;
}

void create_stream(World& w) {
    Slot<rwkv_text_stream>& slot = w.streams.place(w.p);
    const rwkv_tokenizer* tokenizer = w.tokenizers.any(w.p).object;
    w.make(slot, rwkv_text_stream_free,
           [&](rwkv_text_stream** out) { return rwkv_text_stream_create(tokenizer, out); });
}

void stop_stream(World& w) {
    rwkv_text_stream* stream = w.streams.any(w.p).object;
    const std::string stop = w.p.text();
    w.note(rwkv_text_stream_stop(stream, stop.data(), stop.size()));
}

void push(World& w) {
    rwkv_text_stream* stream = w.streams.any(w.p).object;
    const char* text = nullptr;
    size_t n = 0;
    if (w.p.below(2) == 0) {
        const rwkv_status status = rwkv_text_stream_push(stream, w.p.token(256), &text, &n);
        expect_text(w, status, text, n);
    } else {
        const std::string bytes = w.p.text();
        const rwkv_status status =
            rwkv_text_stream_push_bytes(stream, bytes.data(), bytes.size(), &text, &n);
        expect_text(w, status, text, n);
    }
    (void)rwkv_text_stream_stopped(stream);
}

void finish_stream(World& w) {
    rwkv_text_stream* stream = w.streams.any(w.p).object;
    const char* text = nullptr;
    size_t n = 0;
    const rwkv_status status = rwkv_text_stream_finish(stream, &text, &n);
    expect_text(w, status, text, n);
    if (w.p.below(2) == 0) rwkv_text_stream_reset(stream);
}

void create_generator(World& w) {
    Slot<rwkv_generator>& slot = w.generators.place(w.p);
    rwkv_session* session = w.sessions.any(w.p).object;
    const rwkv_tokenizer* tokenizer = w.tokenizers.any(w.p).object;
    rwkv_sampler* sampler = w.samplers.any(w.p).object;
    w.make(slot, rwkv_generator_free, [&](rwkv_generator** out) {
        return rwkv_generator_create(session, tokenizer, sampler, out);
    });
}

void stop_generator(World& w) {
    rwkv_generator* generator = w.generators.any(w.p).object;
    const std::string stop = w.p.text();
    w.note(rwkv_generator_stop(generator, stop.data(), stop.size()));
    w.note(rwkv_generator_stop_token(generator, w.p.token(kVocab)));
}

void begin_text(World& w) {
    rwkv_generator* generator = w.generators.any(w.p).object;
    const std::string prompt = w.p.text();
    w.note(rwkv_generator_begin(generator, prompt.data(), prompt.size(), w.p.byte()));
}

void next_text(World& w) {
    rwkv_generator* generator = w.generators.any(w.p).object;
    const char* text = nullptr;
    size_t n = 0;
    for (size_t i = w.p.below(8); i-- > 0;) {
        const rwkv_status status = rwkv_generator_next(generator, &text, &n);
        expect_text(w, status, text, n);
    }
    const rwkv_finish finish = rwkv_generator_finish_reason(generator);
    REQUIRE(finish >= RWKV_FINISH_NONE && finish <= RWKV_FINISH_LENGTH);
}

}  // namespace
