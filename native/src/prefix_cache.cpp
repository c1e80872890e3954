#include "prefix_cache.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "hash64.h"
#include "os.h"
#include "status.h"

namespace rwkv {

namespace {

// Token after token, so that all beginnings of a sequence are hashed in one go.
void add_token(Hash64& hash, int32_t token) noexcept { hash.add(&token, sizeof token); }

}  // namespace

size_t PrefixCache::Entry::n_bytes() const noexcept {
    return sizeof(Entry) + tokens.size() * sizeof tokens[0] + state.n_bytes();
}

PrefixCache::Entries::iterator PrefixCache::Shelf::find(uint64_t hash, const int32_t* tokens,
                                                        size_t n_tokens) {
    const auto [first, last] = by_hash.equal_range(hash);
    const auto same = std::find_if(first, last, [&](const auto& found) {
        const std::vector<int32_t>& t = found.second->tokens;
        return std::equal(t.begin(), t.end(), tokens, tokens + n_tokens);
    });
    return same == last ? entries.end() : same->second;
}

void PrefixCache::Shelf::drop_oldest() noexcept {
    const auto oldest = std::prev(entries.end());
    const auto [first, last] = by_hash.equal_range(oldest->hash);
    by_hash.erase(std::find_if(first, last, [&](const auto& e) { return e.second == oldest; }));
    n_bytes -= oldest->n_bytes();
    entries.erase(oldest);
}

PrefixCache::PrefixCache(std::shared_ptr<const Model> model, size_t max_bytes)
    : model_(std::move(model)), max_bytes_(max_bytes), shelf_(new Shelf(os::process_id())) {}

PrefixCache::~PrefixCache() {
    Shelf* const shelf = shelf_.load(std::memory_order_acquire);
    if (shelf->pid == os::process_id()) delete shelf;  // the parent's is left as it is
}

PrefixCache::Shelf& PrefixCache::shelf() const {
    Shelf* current = shelf_.load(std::memory_order_acquire);
    if (current->pid == os::process_id()) return *current;
    std::unique_ptr<Shelf> own(new Shelf(os::process_id()));
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
        session.state.keep_all();
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
    s.by_hash.clear();
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
    Hash64 hash;
    for (size_t n = 1; n <= tokens.size(); ++n) {
        add_token(hash, tokens[n - 1]);
        const auto entry = s.find(hash.value(), tokens.data(), n);
        if (entry == s.entries.end()) continue;
        longest = entry;
        n_found = n;
    }
    if (n_found > 0) {
        state = longest->state;
        s.entries.splice(s.entries.begin(), s.entries, longest);
    }
    return n_found;
}

void PrefixCache::put(const State& state, const int32_t* tokens, size_t n_tokens) {
    Hash64 hash;
    std::for_each(tokens, tokens + n_tokens, [&](int32_t token) { add_token(hash, token); });
    Entries made;  // what needs memory, before anything changes
    made.push_back({{tokens, tokens + n_tokens}, hash.value(), state});
    const size_t n_bytes = made.front().n_bytes();
    if (n_bytes > max_bytes_) return;
    Shelf& s = shelf();
    const std::lock_guard<std::mutex> lock(s.mutex);
    const auto same = s.find(hash.value(), tokens, n_tokens);
    if (same != s.entries.end()) {
        s.entries.splice(s.entries.begin(), s.entries, same);
        return;
    }
    s.by_hash.emplace(hash.value(), made.begin());  // stays so where it goes
    s.entries.splice(s.entries.begin(), made);
    s.n_bytes += n_bytes;
    while (s.n_bytes > max_bytes_) s.drop_oldest();
}

}  // namespace rwkv
