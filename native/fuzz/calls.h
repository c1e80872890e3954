// The calls that programs of fuzz_api.cpp are made of: each takes its objects and arguments from the
// program.
#pragma once

#include "world.h"

namespace {

// ---- models and sessions

void open_model(World& w) {
    Slot<rwkv_model>& slot = w.models.place(w.p);
    const size_t i = w.p.below(model_files().size() + 2);
    const char* path = i < model_files().size()    ? model_files()[i].path()
                       : i == model_files().size() ? "/no/such/file"
                                                   : nullptr;
    w.make(slot, rwkv_model_free, [&](rwkv_model** out) { return open_path(path, out); });
}

void free_model(World& w) {
    Slot<rwkv_model>& slot = w.models.place(w.p);
    rwkv_model_free(slot.object);
    slot = {};
}

void model_info(World& w) {
    const rwkv_model_info info = info_of(w.models.any(w.p).object);
    REQUIRE(info.n_vocab == 0 || info.n_vocab == kVocab);
}

void create_session(World& w) {
    Slot<rwkv_session>& slot = w.sessions.place(w.p);
    rwkv_model* model = w.models.any(w.p).object;
    w.let_go();
    if (w.make(slot, rwkv_session_free,
               [&](rwkv_session** out) { return rwkv_session_create(model, out); })) {
        slot.n_floats = info_of(model).state_size;
    }
}

void free_session(World& w) {
    Slot<rwkv_session>& slot = w.sessions.place(w.p);
    w.let_go();
    rwkv_session_free(slot.object);
    slot = {};
}

void fork_session(World& w) {
    const Slot<rwkv_session> from = w.sessions.any(w.p);
    Slot<rwkv_session>& slot = w.sessions.place(w.p);
    w.let_go();
    if (w.make(slot, rwkv_session_free,
               [&](rwkv_session** out) { return rwkv_session_fork(from.object, out); })) {
        slot.n_floats = from.n_floats;
    }
}

void feed(World& w) {
    const Slot<rwkv_session> session = w.sessions.any(w.p);
    const std::vector<int32_t> tokens = w.p.tokens(kVocab);
    Floats logits(kVocab);
    const bool wanted = w.p.below(2) == 0;
    const int32_t* given = w.p.below(16) == 0 ? nullptr : tokens.data();
    const rwkv_status status = w.note(
        rwkv_session_feed(session.object, given, tokens.size(), wanted ? logits.data() : nullptr));
    bool valid = session.object != nullptr && given != nullptr && !tokens.empty();
    for (const int32_t t : tokens) valid = valid && t >= 0 && t < static_cast<int32_t>(kVocab);
    REQUIRE((status == RWKV_STATUS_OK) == valid);
}

void reset(World& w) { rwkv_session_reset(w.sessions.any(w.p).object); }

// ---- states

void read_state(World& w) {
    const Slot<rwkv_session> session = w.sessions.any(w.p);
    Floats state(session.n_floats + w.p.below(2));
    const rwkv_status status = w.note(rwkv_state_read(session.object, state.data(), state.size()));
    REQUIRE((status == RWKV_STATUS_OK) ==
            (session.object != nullptr && state.size() == session.n_floats));
}

void write_state(World& w) {
    const Slot<rwkv_session> session = w.sessions.any(w.p);
    const Floats state = w.p.floats(session.n_floats + w.p.below(2));
    w.note(rwkv_state_write(session.object, state.data(), state.size()));
}

void copy_state(World& w) {
    rwkv_session* to = w.sessions.any(w.p).object;
    w.note(rwkv_state_copy(to, w.sessions.any(w.p).object));
}

void save_state(World& w) {
    const rwkv_session* session = w.sessions.any(w.p).object;
    const char* paths[] = {state_path(), state_path(), "/no/such/folder/file", nullptr};
    const char* path = paths[w.p.below(4)];
    w.note(rwkv_state_save(session, path, static_cast<rwkv_state_type>(w.p.below(3))));
}

void load_state(World& w) {
    rwkv_session* session = w.sessions.any(w.p).object;
    w.note(rwkv_state_load(session, w.p.below(8) == 0 ? nullptr : state_path()));
}

// ---- batches

void create_batch(World& w) {
    Slot<rwkv_batch>& slot = w.batches.place(w.p);
    rwkv_model* model = w.models.any(w.p).object;
    w.make(slot, rwkv_batch_free, [&](rwkv_batch** out) { return rwkv_batch_create(model, out); });
}

void free_batch(World& w) {
    Slot<rwkv_batch>& slot = w.batches.place(w.p);
    rwkv_batch_free(slot.object);
    slot = {};
}

void add(World& w) {
    rwkv_batch* batch = w.batches.any(w.p).object;
    rwkv_session* session = w.sessions.any(w.p).object;
    const std::vector<int32_t> tokens = w.p.tokens(kVocab);
    const size_t wanted = w.p.below(4);
    w.written.emplace_back(kVocab * (tokens.size() + 1));
    float* out = w.p.below(8) == 0 ? nullptr : w.written.back().data();
    w.note(rwkv_batch_add(batch, session, tokens.data(), tokens.size(),
                          static_cast<rwkv_logits>(wanted), out));
}

void run(World& w) { w.note(rwkv_batch_run(w.batches.any(w.p).object)); }

void clear(World& w) { rwkv_batch_clear(w.batches.any(w.p).object); }

// ---- tokenizers

void make_tokenizer(World& w) {
    w.let_go();
    Slot<rwkv_tokenizer>& slot = w.tokenizers.place(w.p);
    const size_t kind = w.p.below(4);
    const rwkv_model* model = w.models.any(w.p).object;
    w.make(slot, rwkv_tokenizer_free, [&](rwkv_tokenizer** out) {
        if (kind == 0) return rwkv_tokenizer_create_bytes(out);
        if (kind == 1) return rwkv_tokenizer_create_for(model, out);
        return rwkv_tokenizer_open(kind == 2 ? vocabulary().path() : nullptr, out);
    });
}

void free_tokenizer(World& w) {
    w.let_go();
    Slot<rwkv_tokenizer>& slot = w.tokenizers.place(w.p);
    rwkv_tokenizer_free(slot.object);
    slot = {};
}

void encode(World& w) {
    const rwkv_tokenizer* tokenizer = w.tokenizers.any(w.p).object;
    const std::string text = w.p.text();
    std::vector<int32_t> tokens(w.p.below(12));
    size_t n = 1000;
    const rwkv_status status = w.note(rwkv_tokenizer_encode(tokenizer, text.data(), text.size(),
                                                            tokens.data(), tokens.size(), &n));
    if (status == RWKV_STATUS_OK) {
        REQUIRE(n <= tokens.size() && n <= text.size());
    } else {
        REQUIRE(n == 1000 || (status == RWKV_STATUS_BUFFER_TOO_SMALL && n > tokens.size()));
    }
}

void decode(World& w) {
    const rwkv_tokenizer* tokenizer = w.tokenizers.any(w.p).object;
    const std::vector<int32_t> tokens = w.p.tokens(256);
    std::string text(w.p.below(12), '\0');
    size_t n = 1000;
    const rwkv_status status = w.note(rwkv_tokenizer_decode(tokenizer, tokens.data(), tokens.size(),
                                                            text.data(), text.size(), &n));
    if (status == RWKV_STATUS_OK) REQUIRE(n <= text.size());
}

void has_token(World& w) {
    const rwkv_tokenizer* tokenizer = w.tokenizers.any(w.p).object;
    const auto token = w.p.raw<int32_t>();
    const size_t n = rwkv_tokenizer_n_vocab(tokenizer);
    if (rwkv_tokenizer_has(tokenizer, token) != 0) {
        REQUIRE(token >= 0 && static_cast<size_t>(token) < n);
    }
}

// ---- samplers

void create_sampler(World& w) {
    w.let_go();
    Slot<rwkv_sampler>& slot = w.samplers.place(w.p);
    struct {
        rwkv_sampler_options options = sampler_options();
        uint8_t more[UINT8_MAX] = {};  // of a later version's struct
    } given_options;
    rwkv_sampler_options& options = given_options.options;
    if (w.p.below(32) == 0) given_options.more[0] = w.p.byte();
    double* const reals[] = {&options.temperature,
                             &options.top_p,
                             &options.min_p,
                             &options.typical_p,
                             &options.mirostat_tau,
                             &options.mirostat_eta,
                             &options.repetition_penalty,
                             &options.presence_penalty,
                             &options.frequency_penalty,
                             &options.penalty_decay};
    for (size_t n = w.p.below(4); n-- > 0;) *reals[w.p.below(std::size(reals))] = w.p.real();
    options.seed = w.p.byte();
    if (w.p.below(4) == 0) options.top_k = w.p.token(40);
    if (w.p.below(32) == 0) options.struct_size = w.p.byte();
    constexpr size_t kSizes[] = {kVocab, 1, 2, 300, 0, (size_t{1} << 24) + 1, SIZE_MAX};
    const size_t n_vocab = kSizes[w.p.below(std::size(kSizes))];
    const rwkv_sampler_options* given = w.p.below(8) == 0 ? nullptr : &options;
    if (w.make(slot, rwkv_sampler_free,
               [&](rwkv_sampler** out) { return rwkv_sampler_create(n_vocab, given, out); })) {
        slot.n_floats = n_vocab;
    }
}

void free_sampler(World& w) {
    w.let_go();
    Slot<rwkv_sampler>& slot = w.samplers.place(w.p);
    rwkv_sampler_free(slot.object);
    slot = {};
}

void sample(World& w) {
    const Slot<rwkv_sampler> sampler = w.samplers.any(w.p);
    const Floats logits = w.p.floats(sampler.n_floats);
    int32_t token = -7;
    if (w.note(rwkv_sampler_sample(sampler.object, logits.data(), &token)) == RWKV_STATUS_OK) {
        REQUIRE(token >= 0 && static_cast<size_t>(token) < sampler.n_floats);
        REQUIRE(rwkv_sampler_accept(sampler.object, token) == RWKV_STATUS_OK);
    } else {
        REQUIRE(token == -7);
    }
}

void accept(World& w) {
    rwkv_sampler* sampler = w.samplers.any(w.p).object;
    w.note(rwkv_sampler_accept(sampler, w.p.token(kVocab)));
}

void bias(World& w) {
    rwkv_sampler* sampler = w.samplers.any(w.p).object;
    const int32_t token = w.p.token(kVocab);
    w.note(rwkv_sampler_bias(sampler, token, static_cast<float>(w.p.real())));
}

void weigh(World& w) {
    rwkv_sampler* sampler = w.samplers.any(w.p).object;
    const int32_t token = w.p.token(kVocab);
    w.note(rwkv_sampler_weigh(sampler, token, w.p.real()));
}

void reset_sampler(World& w) {
    rwkv_sampler* sampler = w.samplers.any(w.p).object;
    rwkv_sampler_reset(sampler, w.p.byte());
}

}  // namespace
