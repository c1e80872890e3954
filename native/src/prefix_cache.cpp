#include "prefix_cache.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "status.h"

namespace rwkv {

size_t PrefixCache::Entry::n_bytes() const noexcept {
    return sizeof(Entry) + tokens.size() * sizeof tokens[0] + state.n_bytes();
}

PrefixCache::PrefixCache(std::shared_ptr<const Model> model, size_t max_bytes)
    : model_(std::move(model)), max_bytes_(max_bytes), shelf_(new Shelf{::getpid(), {}, {}}) {}

PrefixCache::~PrefixCache() {
    Shelf* const shelf = shelf_.load(std::memory_order_acquire);
    if (shelf->pid == ::getpid()) delete shelf;  // the parent's is left as it is
}

PrefixCache::Shelf& PrefixCache::shelf() const {
    Shelf* current = shelf_.load(std::memory_order_acquire);
    if (current->pid == ::getpid()) return *current;
    std::unique_ptr<Shelf> own(new Shelf{::getpid(), {}, {}});
    if (shelf_.compare_exchange_strong(current, own.get(), std::memory_order_acq_rel)) {
        return *own.release();
    }
    return *current;
}

void PrefixCache::require_model(const Session& session) const {
    if (session.model == model_) return;
    throw Failure(RWKV_STATUS_STATE_MISMATCH,
                  "session: expected one of the cache's model, got one of another");
}

size_t PrefixCache::feed(Session& session, const int32_t* tokens, size_t n_tokens,
                         float* logits_out) {
    require_model(session);
    const std::vector<int32_t> all = checked_tokens(*model_, tokens, n_tokens);
    const State before = session.state;
    session.cancelled.store(false, std::memory_order_relaxed);
    try {
        session.reset();
        const size_t n_found = find(session.state, all);
        for (size_t at = n_found; at < all.size();) {
            const size_t n = std::min(all.size() - at, kPieceRows);
            session.read(all.data() + at, n, RWKV_LOGITS_NONE, nullptr);
            at += n;
            put(session.state, all.data(), at);
        }
        if (logits_out != nullptr) session.logits(logits_out);
        session.forget_step();
        return n_found;
    } catch (...) {
        session.set_state(before);
        throw;
    }
}

void PrefixCache::keep(const Session& session, const int32_t* tokens, size_t n_tokens) {
    require_model(session);
    const std::vector<int32_t> all = checked_tokens(*model_, tokens, n_tokens);
    session.hidden();  // it has read something
    put(session.state, all.data(), all.size());
}

void PrefixCache::clear() {
    Shelf& s = shelf();
    const std::lock_guard<std::mutex> lock(s.mutex);
    s.entries.clear();
    s.n_bytes = 0;
}

size_t PrefixCache::n_bytes() const {
    Shelf& s = shelf();
    const std::lock_guard<std::mutex> lock(s.mutex);
    return s.n_bytes;
}

// Gives `state` what is kept after the longest beginning of `tokens`; returns its length, 0 if there
// is none.
size_t PrefixCache::find(State& state, const std::vector<int32_t>& tokens) const {
    Shelf& s = shelf();
    const std::lock_guard<std::mutex> lock(s.mutex);
    auto longest = s.entries.end();
    size_t n_found = 0;
    for (auto e = s.entries.begin(); e != s.entries.end(); ++e) {
        const size_t n = e->tokens.size();
        if (n <= n_found || n > tokens.size()) continue;
        if (!std::equal(e->tokens.begin(), e->tokens.end(), tokens.begin())) continue;
        longest = e;
        n_found = n;
    }
    if (n_found > 0) {
        state = longest->state;
        s.entries.splice(s.entries.begin(), s.entries, longest);
    }
    return n_found;
}

void PrefixCache::put(const State& state, const int32_t* tokens, size_t n_tokens) {
    std::list<Entry> made;  // what needs memory, before anything changes
    made.push_back({{tokens, tokens + n_tokens}, state});
    const Entry& entry = made.front();
    if (entry.n_bytes() > max_bytes_) return;
    Shelf& s = shelf();
    const std::lock_guard<std::mutex> lock(s.mutex);
    const auto same = std::find_if(s.entries.begin(), s.entries.end(),
                                   [&](const Entry& e) { return e.tokens == entry.tokens; });
    if (same != s.entries.end()) {
        s.entries.splice(s.entries.begin(), s.entries, same);
        return;
    }
    s.n_bytes += entry.n_bytes();
    s.entries.splice(s.entries.begin(), made);
    while (s.n_bytes > max_bytes_) {
        s.n_bytes -= s.entries.back().n_bytes();
        s.entries.pop_back();
    }
}

}  // namespace rwkv
