// What the programs of fuzz_api.cpp work with.
#pragma once

#include <unistd.h>

#include <array>
#include <cstdlib>
#include <deque>
#include <string>
#include <vector>

#include "program.h"
#include "tiny_models.h"

using Floats = std::vector<float>;

constexpr size_t kVocab = 8;  // of all models
constexpr size_t kMostCalls = 200;

template <class T>
struct Slot {
    T* object = nullptr;
    size_t n_floats = 0;  // of a session's state; of a sampler's logits
};

template <class T, size_t n>
struct Slots {
    std::array<Slot<T>, n> all;
    Slot<T>& place(Program& p) { return all[p.below(n)]; }
    // One of them, which may be empty; now and then none.
    Slot<T> any(Program& p) {
        const size_t i = p.below(4 * n + 1);
        return i == 4 * n ? Slot<T>{} : all[i % n];
    }
};

struct World {
    Program p;
    Slots<rwkv_model, 3> models{};
    Slots<rwkv_session, 4> sessions{};
    Slots<rwkv_batch, 2> batches{};
    Slots<rwkv_tokenizer, 2> tokenizers{};
    Slots<rwkv_sampler, 2> samplers{};
    Slots<rwkv_prefix_cache, 2> caches{};
    Slots<rwkv_text_stream, 2> streams{};
    Slots<rwkv_generator, 2> generators{};
    std::vector<Floats> written{};  // by batches

    rwkv_status note(rwkv_status status) {
        REQUIRE(*rwkv_status_sentence(status) != '\0' && status != RWKV_STATUS_INTERNAL);
        if (status != RWKV_STATUS_OK) require_message();
        return status;
    }
    // A call that makes an object, if it succeeds only, for a slot that may hold an older one.
    template <class T, class Call>
    bool make(Slot<T>& slot, void (*release)(T*), Call call) {
        T* made = nullptr;
        const rwkv_status status = note(call(&made));
        REQUIRE((made != nullptr) == (status == RWKV_STATUS_OK));
        if (made == nullptr) return false;
        release(slot.object);
        slot = {made, 0};
        return true;
    }
    template <class T, size_t n>
    static void free_all(Slots<T, n>& slots, void (*release)(T*)) {
        for (auto& slot : slots.all) {
            release(slot.object);
            slot = {};
        }
    }
    // Before a session, tokenizer or sampler goes: what would still use it.
    void let_go() {
        clear_batches();
        free_all(generators, rwkv_generator_free);
        free_all(streams, rwkv_text_stream_free);
    }
    void clear_batches() {
        for (auto& slot : batches.all) rwkv_batch_clear(slot.object);
        written.clear();
    }
};

inline const std::deque<MemoryFile>& model_files() {
    static std::deque<MemoryFile> all;
    if (all.empty()) {
        const tiny::Sizes sizes = smallest_sizes();
        for (const auto& bytes :
             {gguf_bytes("7", RWKV_TYPE_FP32, sizes), gguf_bytes("6", RWKV_TYPE_FP16, sizes),
              ggmf_bytes("4", RWKV_TYPE_FP32, sizes), ggmf_bytes("5.2", RWKV_TYPE_FP16, sizes)}) {
            all.emplace_back(bytes.data(), bytes.size());
        }
    }
    return all;
}

inline const MemoryFile& vocabulary() {
    static const std::string text = "1 'a' 1\n2 'ab' 2\n5 b'\\xff' 1\n";
    static const MemoryFile file(reinterpret_cast<const uint8_t*>(text.data()), text.size());
    return file;
}

inline const char* state_path() {
    static const std::string path = "/dev/shm/fuzz-api-" + std::to_string(::getpid()) + ".state";
    static const int registered = std::atexit([] { ::unlink(state_path()); });
    (void)registered;
    return path.c_str();
}
