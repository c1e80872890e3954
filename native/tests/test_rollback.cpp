// Taking rows back: a session that guesses is, to the bit, one that was only ever fed what was kept,
// whatever happens between its steps, whoever reads, copies or saves it meanwhile and whatever company
// its steps have. Each session of the test has a judge, which takes nothing back.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "check.h"
#include "model_loader.h"
#include "open_model.h"
#include "rwkv/rwkv.h"
#include "session.h"
#include "status.h"
#include "step.h"
#include "tiny_model.h"

namespace {

using namespace opened;

void feed(const Session& session, const Tokens& tokens) {
    EXPECT_OK(rwkv_session_feed(session.get(), tokens.data(), tokens.size(), nullptr));
}

// A copy that shares nothing with the session, and takes nothing back.
Session plain_copy(const Model& model, const Session& session) {
    Session copy = session_of(model);
    EXPECT_OK(rwkv_state_copy(copy.get(), session.get()));
    return copy;
}

// All that can be seen of a session: state, hidden state, logits; of the latter nothing if it has read
// nothing.
Floats all_of(const Model& model, const Session& session) {
    Floats all = state_of(model, session);
    Floats logits(vocab_of(model));
    Floats hidden(info_of(model.get()).n_embd);
    const bool has = rwkv_session_logits(session.get(), logits.data()) == RWKV_STATUS_OK;
    CHECK(has == (rwkv_session_hidden(session.get(), hidden.data()) == RWKV_STATUS_OK));
    if (!has) return all;
    all.insert(all.end(), logits.begin(), logits.end());
    all.insert(all.end(), hidden.begin(), hidden.end());
    return all;
}

struct Guessing {
    Session session;
    Session judge;       // has read what is kept
    Tokens undecided{};  // and not these, of which the session may still take some back
    size_t most = 0;
};

// Programs of random calls.
class Program {
  public:
    Program(const Model& model, uint32_t seed) : model_(model), random_(seed) {
        for (Guessing& g : all_) {
            g = {session_of(model), session_of(model)};
            allow(g, 1 + below(31));
        }
        rwkv_prefix_cache* cache = nullptr;
        EXPECT_OK(rwkv_prefix_cache_create(model.get(), 1 << 24, &cache));
        cache_.reset(cache);
    }

    void run(size_t n_calls) {
        for (size_t i = 0; i < n_calls; ++i) {
            call();
            compare(any());
        }
        for (Guessing& g : all_) {
            keep_all(g);
            compare(g);
        }
    }

  private:
    struct FreeCache {
        void operator()(rwkv_prefix_cache* c) const { rwkv_prefix_cache_free(c); }
    };

    size_t below(size_t n) { return random_() % n; }
    Guessing& any() { return all_[below(std::size(all_))]; }
    Tokens tokens(size_t n) { return random_tokens(n, vocab_of(model_), random_()); }
    Tokens some() {  // mostly guesses, now and then more than can be taken back
        const size_t kind = below(64);
        return tokens(kind == 0 ? 270 : kind < 4 ? 32 + below(9) : 1 + below(kind < 16 ? 31 : 6));
    }

    // What happens when it is not said how many are kept.
    void keep_all(Guessing& g) {
        if (!g.undecided.empty()) feed(g.judge, g.undecided);
        g.undecided.clear();
    }
    void has_read(Guessing& g, const Tokens& read) {
        if (read.size() <= g.most) {
            g.undecided = read;
        } else {
            feed(g.judge, read);
        }
    }
    void allow(Guessing& g, size_t most) {
        EXPECT_OK(rwkv_session_allow_take_back(g.session.get(), most));
        keep_all(g);
        g.most = most;
    }
    // The session's state has become another's.
    void becomes(Guessing& g, Session judge) {
        g.judge = std::move(judge);
        g.undecided.clear();
        EXPECT_STATUS(rwkv_session_keep(g.session.get(), 0), RWKV_STATUS_INVALID_ARGUMENT,
                      "can be taken back");
    }

    // What the session is to look like, also as long as nothing is decided.
    Session expected_of(const Guessing& g) {
        Session expected = plain_copy(model_, g.judge);
        // The same however rows are cut.
        for (size_t at = 0; at < g.undecided.size();) {
            const size_t n = std::min(1 + below(4), g.undecided.size() - at);
            EXPECT_OK(rwkv_session_feed(expected.get(), g.undecided.data() + at, n, nullptr));
            at += n;
        }
        return expected;
    }
    void compare(const Guessing& g) {
        CHECK(same_bits(all_of(model_, g.session), all_of(model_, expected_of(g))));
    }

    void feed_one(Guessing& g) {
        keep_all(g);
        const Tokens read = some();
        const size_t n_vocab = vocab_of(model_);
        Floats logits(read.size() * n_vocab);
        Floats expected(logits.size());
        EXPECT_OK(rwkv_session_feed_all(g.session.get(), read.data(), read.size(), logits.data()));
        const Session judge = plain_copy(model_, g.judge);
        EXPECT_OK(rwkv_session_feed_all(judge.get(), read.data(), read.size(), expected.data()));
        CHECK(same_bits(logits, expected));
        has_read(g, read);
    }

    void keep(Guessing& g) {
        if (g.undecided.empty()) {
            EXPECT_STATUS(rwkv_session_keep(g.session.get(), 0), RWKV_STATUS_INVALID_ARGUMENT,
                          "can be taken back");
            return;
        }
        EXPECT_STATUS(rwkv_session_keep(g.session.get(), g.undecided.size() + 1),
                      RWKV_STATUS_INVALID_ARGUMENT, "n_kept");
        const size_t n = below(2) == 0 ? g.undecided.size() : below(g.undecided.size() + 1);
        EXPECT_OK(rwkv_session_keep(g.session.get(), n));
        g.undecided.resize(n);
        keep_all(g);
    }

    void batch() {
        const Batch batch = batch_of(model_);
        std::vector<std::pair<Guessing*, Tokens>> work;
        std::vector<Floats> logits(std::size(all_), Floats(vocab_of(model_)));
        for (Guessing& g : all_) {
            if (below(3) == 0) continue;
            keep_all(g);
            float* const out = logits[work.size()].data();
            work.emplace_back(&g, some());
            const Tokens& read = work.back().second;
            EXPECT_OK(rwkv_batch_add(batch.get(), g.session.get(), read.data(), read.size(),
                                     RWKV_LOGITS_LAST, out));
        }
        // What is allowed counts when the step begins.
        if (!work.empty() && below(4) == 0) allow(*work.front().first, below(32));
        EXPECT_OK(rwkv_batch_run(batch.get()));
        for (size_t i = 0; i < work.size(); ++i) {
            has_read(*work[i].first, work[i].second);
            Floats expected(vocab_of(model_));
            const Session judge = expected_of(*work[i].first);
            EXPECT_OK(rwkv_session_logits(judge.get(), expected.data()));
            CHECK(same_bits(logits[i], expected));
        }
    }

    void save_and_load(const Guessing& from, Guessing& to) {
        std::vector<uint8_t> bytes(1 << 20);
        size_t n = 0;
        EXPECT_OK(rwkv_state_save_memory(from.session.get(), RWKV_STATE_FP32, bytes.data(),
                                         bytes.size(), &n));
        EXPECT_OK(rwkv_state_load_memory(to.session.get(), bytes.data(), n));
        becomes(to, expected_of(from));
    }

    void read_and_write(const Guessing& from, Guessing& to) {
        const Floats state = state_of(model_, from.session);
        EXPECT_OK(rwkv_state_write(to.session.get(), state.data(), state.size()));
        Session judge = session_of(model_);
        EXPECT_OK(rwkv_state_write(judge.get(), state.data(), state.size()));
        becomes(to, std::move(judge));
    }

    void fork(const Guessing& from, Guessing& to) {
        rwkv_session* made = nullptr;
        EXPECT_OK(rwkv_session_fork(from.session.get(), &made));
        Guessing fork{Session(made), expected_of(from)};
        fork.most = from.most;
        to = std::move(fork);
    }

    // What is kept in a cache, by the cache itself or by hand, is found by another.
    void cache(Guessing& g, Guessing& other) {
        const Tokens read = random_tokens(1 + below(31), vocab_of(model_));
        const auto cache_feed = [&](Guessing& to, const Tokens& all) {
            EXPECT_OK(rwkv_prefix_cache_feed(cache_.get(), to.session.get(), all.data(), all.size(),
                                             nullptr, nullptr));
        };
        Session judge = expected_of(g);
        const Tokens name = tokens(200);
        if (rwkv_prefix_cache_keep(cache_.get(), g.session.get(), name.data(), name.size()) ==
            RWKV_STATUS_OK) {
            cache_feed(other, name);
            becomes(other, std::move(judge));
        }
        cache_feed(g, read);
        judge = session_of(model_);
        feed(judge, read);
        becomes(g, std::move(judge));
    }

    void run_layers(Guessing& g) {
        keep_all(g);
        const size_t n = 1 + below(40);
        Floats rows(n * info_of(model_.get()).n_embd);
        for (float& x : rows) x = std::normal_distribution<float>()(random_);
        Floats same_rows = rows;
        Floats v_first(rows.size());
        EXPECT_OK(
            rwkv_session_run_layers(g.session.get(), rows.data(), v_first.data(), n, nullptr));
        EXPECT_OK(
            rwkv_session_run_layers(g.judge.get(), same_rows.data(), v_first.data(), n, nullptr));
        CHECK(same_bits(rows, same_rows));
    }

    void reset(Guessing& g) {
        rwkv_session_reset(g.session.get());
        becomes(g, session_of(model_));
    }

    void call() {
        Guessing& g = any();
        Guessing& other = any();
        switch (below(20)) {
            case 0:
                return allow(g, below(32));
            case 1:
                return save_and_load(g, other);
            case 2:
                return read_and_write(g, other);
            case 3:
                if (&g != &other) fork(g, other);
                return;
            case 4:
                EXPECT_OK(rwkv_state_copy(other.session.get(), g.session.get()));
                return becomes(other, expected_of(g));
            case 5:
                return cache(g, other);
            case 6:
                return run_layers(g);
            case 7:
                return reset(g);
            case 8:
            case 9:
            case 10:
                return batch();
            case 11:
            case 12:
            case 13:
            case 14:
                return keep(g);
            default:
                return feed_one(g);
        }
    }

    const Model& model_;
    std::mt19937 random_;
    Guessing all_[4];
    std::unique_ptr<rwkv_prefix_cache, FreeCache> cache_;
};

// ---- steps that fail

Floats numbers_of(const rwkv::Session& session) {
    Floats all(session.model->config.state_size());
    session.state.read(all.data());
    const float* const hidden = session.hidden();
    all.insert(all.end(), hidden, hidden + session.model->config.n_embd);
    return all;
}

// A session in whose last step 8 tokens were read, and one that has read n of them.
struct Failing {
    explicit Failing(const std::shared_ptr<const rwkv::Model>& model, size_t n)
        : guesses(random_tokens(8, model->config.n_vocab, 2)), session(model), judge(model) {
        const Tokens begin = random_tokens(20, model->config.n_vocab, 1);
        session.allow_take_back(guesses.size());
        for (rwkv::Session* s : {&session, &judge}) read(*s, begin, begin.size());
        read(session, guesses, guesses.size());
        read(judge, guesses, n);
    }
    static void read(rwkv::Session& s, const Tokens& tokens, size_t n) {
        if (n > 0) s.feed(tokens.data(), n, RWKV_LOGITS_NONE, nullptr);
    }
    // As it was, and goes on as ever.
    void expect_unchanged() {
        for (size_t i = 0; i < 3; ++i) {
            CHECK(same_bits(numbers_of(session), numbers_of(judge)));
            for (rwkv::Session* s : {&session, &judge}) read(*s, guesses, 5);
        }
    }

    const Tokens guesses;
    rwkv::Session session;
    rwkv::Session judge;
};

bool is_cancelled_in(const rwkv::Model& model, const std::vector<rwkv::Work>& work,
                     const rwkv::Cancelled& cancelled) {
    try {
        rwkv::step(model, work, cancelled);
        return false;
    } catch (const rwkv::Failure& failure) {
        CHECK(failure.status() == RWKV_STATUS_CANCELLED);
        return true;
    }
}

// A step that fails before it has begun leaves it to be decided what is kept of the one before.
void test_failing_before(const std::shared_ptr<const rwkv::Model>& model) {
    for (const size_t n_kept : {0, 3, 8}) {
        Failing f(model, n_kept);
        std::vector<rwkv::Work> work;
        work.push_back(f.session.work(f.guesses.data(), 5, RWKV_LOGITS_NONE, nullptr));
        CHECK(is_cancelled_in(*model, work, rwkv::Cancelled{true}));
        f.session.keep(n_kept);
        f.expect_unchanged();
    }
}

// One that is cancelled between its passes, the session's own among them, brings back what was kept.
size_t test_failing_between(const std::shared_ptr<const rwkv::Model>& model) {
    const Tokens many = random_tokens(2000, model->config.n_vocab, 3);
    size_t n_cancelled = 0;
    for (const size_t n_kept : {0, 3, 8}) {
        Failing f(model, n_kept);
        rwkv::Session neighbour(model);
        f.session.keep(n_kept);
        std::vector<rwkv::Work> work;
        work.push_back(f.session.work(f.guesses.data(), 5, RWKV_LOGITS_NONE, nullptr));
        work.push_back(neighbour.work(many.data(), many.size(), RWKV_LOGITS_NONE, nullptr));
        rwkv::Cancelled cancelled{false};
        std::thread canceller([&] {
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
            cancelled.store(true);
        });
        const bool failed = is_cancelled_in(*model, work, cancelled);
        canceller.join();
        if (!failed) continue;
        ++n_cancelled;
        f.expect_unchanged();
    }
    return n_cancelled;
}

// ---- many at once

// As an engine guesses: steps of all, each bringing and keeping another number.
void test_many(const Model& model) {
    constexpr size_t kSessions = 40;
    std::mt19937 random(5);
    std::vector<Guessing> all;
    for (size_t i = 0; i < kSessions; ++i) {
        all.push_back({session_of(model), session_of(model)});
        if (i % 3 == 0) continue;  // some guess nothing
        all.back().most = 1 + i % 9;
        EXPECT_OK(rwkv_session_allow_take_back(all.back().session.get(), all.back().most));
    }
    const Batch batch = batch_of(model);
    for (size_t step = 0; step < 6; ++step) {
        for (Guessing& g : all) {
            const size_t n = 1 + random() % std::max<size_t>(g.most, 2);
            g.undecided = random_tokens(n, vocab_of(model), random());
            EXPECT_OK(rwkv_batch_add(batch.get(), g.session.get(), g.undecided.data(), n,
                                     RWKV_LOGITS_NONE, nullptr));
        }
        EXPECT_OK(rwkv_batch_run(batch.get()));
        for (Guessing& g : all) {
            if (g.undecided.size() <= g.most && random() % 4 != 0) {
                if (random() % 2 != 0) g.undecided.resize(random() % (g.undecided.size() + 1));
                EXPECT_OK(rwkv_session_keep(g.session.get(), g.undecided.size()));
            }
            if (!g.undecided.empty()) feed(g.judge, g.undecided);
        }
    }
    for (Guessing& g : all) {
        CHECK(same_bits(all_of(model, g.session), all_of(model, g.judge)));
    }
}

}  // namespace

int main() {
    std::vector<std::string> levels = {"reference_wide"};
    for (const char* const* level = rwkv_kernels_all(); *level != nullptr; ++level) {
        if (rwkv_kernels_supported(*level) != 0) levels.emplace_back(*level);
    }
    uint32_t seed = 0;
    for (const std::string& level : levels) {
        choose_level(level.c_str());
        for (const char* version : tiny::kVersions) {
            tiny::Sizes sizes;
            const bool is_v4 = std::strcmp(version, "4") == 0;
            const bool is_slow = level.find("reference") == 0;
            sizes.n_head = is_v4 ? 3 : 2;  // its 96 channels are worked on as 64 and 32
            sizes.head_size = is_slow && !is_v4 ? 16 : 32;
            sizes.n_ffn = 32;
            sizes.n_vocab = 16;
            sizes.time_state = !is_v4;
            ++seed;
            const rwkv_type type = seed % 2 == 0 ? RWKV_TYPE_FP32 : RWKV_TYPE_Q4_0;
            const tiny::File file(tiny::random_model(version, type, sizes));
            const Model model = open(file, 1 + seed % 2);
            CHECK(info_of(model.get()).kernels == level);
            Program(model, seed).run(kBrief ? 15 : 60);
            test_many(model);
        }
    }
    CHECK(unsetenv("RWKV_KERNELS") == 0);
    size_t n_cancelled = 0;
    for (const char* version : tiny::kVersions) {
        const auto model =
            rwkv::load_model(tiny::File(tiny::random_model(version, RWKV_TYPE_Q4_0)).path(), {2});
        test_failing_before(model);
        n_cancelled += test_failing_between(model);
    }
    CHECK(n_cancelled > 0);  // or no wish came in time
    return 0;
}
