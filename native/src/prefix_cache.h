// States after beginnings of token sequences.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "session.h"

namespace rwkv {

class PrefixCache {
  public:
    PrefixCache(std::shared_ptr<const Model> model, size_t max_bytes);
    ~PrefixCache();
    PrefixCache(const PrefixCache&) = delete;
    PrefixCache& operator=(const PrefixCache&) = delete;

    // rwkv_prefix_cache_feed: returns how many tokens were found. After a failure the session is as
    // it was.
    size_t feed(Session& session, const int32_t* tokens, size_t n_tokens, float* logits_out);

    void keep(const Session& session, const int32_t* tokens, size_t n_tokens);
    void clear();
    size_t n_bytes() const;

  private:
    struct Entry {
        std::vector<int32_t> tokens;
        uint64_t hash;  // of the tokens
        State state;
        size_t n_bytes() const noexcept;
    };
    using Entries = std::list<Entry>;
    // What the threads of one process share: a child of fork() may find the lock held for ever, and
    // begins with an empty one of its own.
    struct Shelf {
        explicit Shelf(int64_t of) : pid(of) {}
        // The entry of these tokens and their hash; entries.end() if there is none.
        Entries::iterator find(uint64_t hash, const int32_t* tokens, size_t n_tokens);
        void drop_oldest() noexcept;

        const int64_t pid;
        std::mutex mutex;
        Entries entries;  // the one used last first
        std::unordered_multimap<uint64_t, Entries::iterator> by_hash;
        size_t n_bytes = 0;
    };
    Shelf& shelf() const;
    void require_model(const Session& session) const;
    void put(const State& state, const int32_t* tokens, size_t n_tokens);
    size_t find(State& state, const std::vector<int32_t>& tokens) const;

    const std::shared_ptr<const Model> model_;
    const size_t max_bytes_;
    mutable std::atomic<Shelf*> shelf_;
};

}  // namespace rwkv
