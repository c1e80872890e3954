// What a session offers beside feeding: what the last token left behind, taking tokens back, ending
// a call early, states in memory, initial states.
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "executor.h"
#include "model_loader.h"
#include "open_model.h"
#include "rwkv/rwkv.h"
#include "session.h"
#include "status.h"
#include "tiny_model.h"

namespace {

using namespace opened;

Floats logits_of(const Model& model, const Session& session) {
    Floats logits(vocab_of(model));
    EXPECT_OK(rwkv_session_logits(session.get(), logits.data()));
    return logits;
}

Floats feed(const Model& model, const Session& session, const Tokens& tokens) {
    Floats logits(vocab_of(model));
    EXPECT_OK(rwkv_session_feed(session.get(), tokens.data(), tokens.size(), logits.data()));
    return logits;
}

Session fork_of(const Session& session) {
    rwkv_session* fork = nullptr;
    EXPECT_OK(rwkv_session_fork(session.get(), &fork));
    return Session(fork);
}

void expect_same(const Model& model, const Session& a, const Session& b) {
    CHECK(same_bits(state_of(model, a), state_of(model, b)));
    CHECK(same_bits(logits_of(model, a), logits_of(model, b)));
}

// ---- what the last token left behind

void test_logits_and_hidden(const Model& model) {
    const size_t n_embd = info_of(model.get()).n_embd;
    const Session session = session_of(model);
    Floats hidden(n_embd);
    Floats none(vocab_of(model), 7.0f);
    EXPECT_STATUS(rwkv_session_logits(session.get(), none.data()), RWKV_STATUS_INVALID_ARGUMENT,
                  "has read a token");
    EXPECT_STATUS(rwkv_session_hidden(session.get(), hidden.data()), RWKV_STATUS_INVALID_ARGUMENT,
                  "has read a token");
    CHECK(none == Floats(none.size(), 7.0f));

    for (const size_t n : {1, 3, 31, 70, 300}) {  // one row, some, wide ones, several passes
        const Floats expected = feed(model, session, random_tokens(n, vocab_of(model), n));
        CHECK(same_bits(logits_of(model, session), expected));
        CHECK(same_bits(logits_of(model, fork_of(session)), expected));
    }
    // Without logits wanted they can be had afterwards.
    const Session other = session_of(model);
    const Tokens tokens = random_tokens(5, vocab_of(model), 9);
    EXPECT_OK(rwkv_session_feed(other.get(), tokens.data(), tokens.size(), nullptr));
    const Floats later = logits_of(model, other);
    const Session again = session_of(model);
    CHECK(same_bits(later, feed(model, again, tokens)));

    // All logits and all hidden states of a feed, and the last of them.
    const Session all = session_of(model);
    Floats all_logits(tokens.size() * vocab_of(model));
    EXPECT_OK(rwkv_session_feed_all(all.get(), tokens.data(), tokens.size(), all_logits.data()));
    CHECK(same_bits(
        Floats(all_logits.end() - static_cast<ptrdiff_t>(vocab_of(model)), all_logits.end()),
        later));
    const Batch batch = batch_of(model);
    const Session a = session_of(model);
    const Session b = session_of(model);
    Floats each(tokens.size() * n_embd);
    Floats last(n_embd);
    EXPECT_OK(rwkv_batch_add(batch.get(), a.get(), tokens.data(), tokens.size(), RWKV_HIDDEN_ALL,
                             each.data()));
    EXPECT_OK(rwkv_batch_add(batch.get(), b.get(), tokens.data(), tokens.size(), RWKV_HIDDEN_LAST,
                             last.data()));
    EXPECT_OK(rwkv_batch_run(batch.get()));
    EXPECT_OK(rwkv_session_hidden(all.get(), hidden.data()));
    CHECK(same_bits(last, hidden));
    CHECK(same_bits(Floats(each.end() - static_cast<ptrdiff_t>(n_embd), each.end()), hidden));
    CHECK(std::memcmp(each.data(), hidden.data(), n_embd * sizeof(float)) != 0);

    // Numbers that were written say nothing of a last token; nor does a fresh state.
    const Floats state = state_of(model, session);
    EXPECT_OK(rwkv_state_write(session.get(), state.data(), state.size()));
    EXPECT_STATUS(rwkv_session_logits(session.get(), none.data()), RWKV_STATUS_INVALID_ARGUMENT,
                  "has read a token");
    rwkv_session_reset(all.get());
    EXPECT_STATUS(rwkv_session_logits(all.get(), none.data()), RWKV_STATUS_INVALID_ARGUMENT,
                  "has read a token");
}

// ---- taking tokens back

void test_keep(const Model& model) {
    const Tokens begin = random_tokens(40, vocab_of(model), 1);
    const Tokens guesses = random_tokens(9, vocab_of(model), 2);
    const Session session = session_of(model);
    feed(model, session, begin);
    EXPECT_STATUS(rwkv_session_keep(session.get(), 0), RWKV_STATUS_INVALID_ARGUMENT,
                  "can be taken back");
    EXPECT_STATUS(rwkv_session_allow_take_back(session.get(), 32), RWKV_STATUS_INVALID_ARGUMENT,
                  "0 to 31");
    EXPECT_OK(rwkv_session_allow_take_back(session.get(), guesses.size()));
    for (size_t n_kept = 0; n_kept <= guesses.size(); ++n_kept) {
        const Session guessing = fork_of(session);
        feed(model, guessing, guesses);
        EXPECT_STATUS(rwkv_session_keep(guessing.get(), guesses.size() + 1),
                      RWKV_STATUS_INVALID_ARGUMENT, "n_kept");
        EXPECT_OK(rwkv_session_keep(guessing.get(), n_kept));
        const Session expected = fork_of(session);
        for (size_t i = 0; i < n_kept; ++i) feed(model, expected, {guesses[i]});
        expect_same(model, guessing, expected);
        // Once only.
        EXPECT_STATUS(rwkv_session_keep(guessing.get(), 0), RWKV_STATUS_INVALID_ARGUMENT,
                      "can be taken back");
        // And it goes on as ever.
        CHECK(same_bits(feed(model, guessing, begin), feed(model, expected, begin)));
    }
    // Several in a batch, each with another number; one that brought too many.
    const Batch batch = batch_of(model);
    const Session a = fork_of(session);
    const Session b = fork_of(session);
    const Session c = fork_of(session);
    for (const auto& [s, n] : {std::pair{a.get(), size_t{3}}, {b.get(), size_t{9}}}) {
        EXPECT_OK(rwkv_batch_add(batch.get(), s, guesses.data(), n, RWKV_LOGITS_NONE, nullptr));
    }
    EXPECT_OK(rwkv_batch_add(batch.get(), c.get(), begin.data(), begin.size(), RWKV_LOGITS_NONE,
                             nullptr));
    EXPECT_OK(rwkv_batch_run(batch.get()));
    EXPECT_OK(rwkv_session_keep(a.get(), 1));
    EXPECT_OK(rwkv_session_keep(b.get(), 6));
    EXPECT_STATUS(rwkv_session_keep(c.get(), 1), RWKV_STATUS_INVALID_ARGUMENT, "taken back");
    const Session one = fork_of(session);
    const Session six = fork_of(session);
    feed(model, one, {guesses[0]});
    for (size_t i = 0; i < 6; ++i) feed(model, six, {guesses[i]});
    expect_same(model, a, one);
    expect_same(model, b, six);

    // What happens in between ends it.
    for (int way = 0; way < 4; ++way) {
        const Session s = fork_of(session);
        feed(model, s, guesses);
        const Floats state = state_of(model, s);
        if (way == 0) rwkv_session_reset(s.get());
        if (way == 1) EXPECT_OK(rwkv_state_write(s.get(), state.data(), state.size()));
        if (way == 2) EXPECT_OK(rwkv_state_copy(s.get(), session.get()));
        if (way == 3) feed(model, s, begin);
        EXPECT_STATUS(rwkv_session_keep(s.get(), 1), RWKV_STATUS_INVALID_ARGUMENT, "taken back");
    }
    EXPECT_OK(rwkv_session_allow_take_back(session.get(), 0));
    feed(model, session, {1});
    EXPECT_STATUS(rwkv_session_keep(session.get(), 0), RWKV_STATUS_INVALID_ARGUMENT, "taken back");
}

// ---- ending a call early

// A call that waits for its turn is cancelled; a long one is, between its passes.
void test_cancel() {
    const tiny::File file(tiny::random_model("7", RWKV_TYPE_Q4_0));
    const auto model = rwkv::load_model(file.path(), {1});
    rwkv::Session session(model);
    const Tokens tokens = random_tokens(1000, model->config.n_vocab);
    session.feed(tokens.data(), 5, RWKV_LOGITS_NONE, nullptr);
    Floats before(model->config.state_size());
    session.state.read(before.data());
    const auto expect_cancelled = [&](auto&& call) {
        try {
            call();
            CHECK(false);
        } catch (const rwkv::Failure& failure) {
            CHECK(failure.status() == RWKV_STATUS_CANCELLED);
        }
        Floats after(before.size());
        session.state.read(after.data());
        CHECK(same_bits(after, before));
        CHECK(session.state.has_hidden());
    };
    expect_cancelled([&] {
        model->executor().turn.lock();
        std::thread canceller([&] {
            while (model->executor().turn.n_waiting() == 0) std::this_thread::yield();
            session.cancelled.store(true);
            model->executor().turn.unlock();
        });
        try {
            session.feed(tokens.data(), 1, RWKV_LOGITS_NONE, nullptr);
        } catch (...) {
            canceller.join();
            throw;
        }
        canceller.join();
    });
    // Between passes: by a batch of two, of which one session says so when the first pass is over.
    std::atomic<bool> stop{false};
    size_t n_cancelled = 0;
    std::thread canceller([&] {
        while (!stop.load()) {
            session.cancelled.store(true);
            std::this_thread::sleep_for(std::chrono::microseconds(50));
        }
    });
    for (int i = 0; i < 20; ++i) {
        rwkv::Session other(session);
        try {
            rwkv::StepBatch batch(model);
            batch.add(session, tokens.data(), tokens.size(), RWKV_LOGITS_NONE, nullptr);
            batch.add(other, tokens.data(), 700, RWKV_LOGITS_NONE, nullptr);
            batch.run();
            rwkv::State back(*model);
            back.write(before.data(), session.hidden());
            session.set_state(back);
        } catch (const rwkv::Failure& failure) {
            CHECK(failure.status() == RWKV_STATUS_CANCELLED);
            ++n_cancelled;
            for (const rwkv::Session* s : {&session, &other}) {
                Floats after(before.size());
                s->state.read(after.data());
                CHECK(same_bits(after, before));
            }
        }
    }
    stop.store(true);
    canceller.join();
    CHECK(n_cancelled > 0);
    // A wish that came before the call is not one for this call.
    session.cancelled.store(true);
    session.feed(tokens.data(), tokens.size(), RWKV_LOGITS_NONE, nullptr);
    rwkv_session_cancel(nullptr);
    rwkv_batch_cancel(nullptr);
}

// ---- states in memory

void test_memory_states(const Model& model) {
    const Session session = session_of(model);
    const Floats expected = feed(model, session, random_tokens(20, vocab_of(model)));
    for (const rwkv_state_type type : {RWKV_STATE_FP32, RWKV_STATE_FP16}) {
        size_t n = 0;
        EXPECT_STATUS(rwkv_state_save_memory(session.get(), type, nullptr, 0, &n),
                      RWKV_STATUS_BUFFER_TOO_SMALL, "capacity");
        std::vector<uint8_t> bytes(n);
        EXPECT_STATUS(rwkv_state_save_memory(session.get(), type, bytes.data(), n - 1, &n),
                      RWKV_STATUS_BUFFER_TOO_SMALL, "capacity");
        CHECK(bytes == std::vector<uint8_t>(n));
        EXPECT_OK(rwkv_state_save_memory(session.get(), type, bytes.data(), n, &n));
        CHECK(n == bytes.size());
        const Session other = session_of(model);
        EXPECT_OK(rwkv_state_load_memory(other.get(), bytes.data(), n));
        CHECK(same_bits(logits_of(model, other), expected));  // the hidden state is in fp32
        if (type == RWKV_STATE_FP32) expect_same(model, other, session);
        for (size_t cut = 0; cut < n; ++cut) {
            const rwkv_status status = rwkv_state_load_memory(other.get(), bytes.data(), cut);
            CHECK(status == RWKV_STATUS_STATE_TRUNCATED || status == RWKV_STATUS_STATE_FORMAT);
        }
        bytes[n / 2] ^= 1;
        EXPECT_STATUS(rwkv_state_load_memory(other.get(), bytes.data(), n),
                      RWKV_STATUS_STATE_FORMAT, "memory: checksum");
        CHECK(same_bits(logits_of(model, other), expected));
    }
}

// ---- initial states

void test_time_state(const char* version) {
    const Model model = open(tiny::random_model(version, RWKV_TYPE_FP32));
    const rwkv_model_info info = info_of(model.get());
    const size_t N = info.head_size;
    const Session session = session_of(model);
    if (info.n_head == 0) {
        const float number = 0;
        EXPECT_STATUS(rwkv_session_set_time_state(session.get(), &number, 1),
                      RWKV_STATUS_MODEL_OPTION, "time_state");
        return;
    }
    Floats heads(info.n_layer * info.n_head * N * N);
    for (size_t i = 0; i < heads.size(); ++i) heads[i] = 0.001f * static_cast<float>(i);
    EXPECT_STATUS(rwkv_session_set_time_state(session.get(), heads.data(), heads.size() - 1),
                  RWKV_STATUS_STATE_MISMATCH, "time_state");
    feed(model, session, {1, 2});
    EXPECT_OK(rwkv_session_set_time_state(session.get(), heads.data(), heads.size()));
    const Floats state = state_of(model, session);
    // The public layout has row = key in versions 5 and 6, row = value in 7; time states the latter.
    const bool same_rows = std::string(version) == "7";
    const size_t layer_size = info.state_size / info.n_layer;
    for (size_t layer = 0; layer < info.n_layer; ++layer) {
        for (size_t head = 0; head < info.n_head; ++head) {
            for (size_t i = 0; i < N; ++i) {
                for (size_t j = 0; j < N; ++j) {
                    const float got = state[layer * layer_size + 2 * info.n_embd + head * N * N +
                                            (same_rows ? i * N + j : j * N + i)];
                    CHECK(got == heads[((layer * info.n_head + head) * N + i) * N + j]);
                }
            }
        }
    }
    feed(model, session, {1, 2});
    const Session fork = fork_of(session);
    rwkv_session_reset(session.get());
    rwkv_session_reset(fork.get());
    CHECK(same_bits(state_of(model, session), state));
    CHECK(same_bits(state_of(model, fork), state));
    EXPECT_OK(rwkv_session_set_time_state(session.get(), nullptr, 0));
    CHECK(same_bits(state_of(model, session), state_of(model, session_of(model))));
}

// ---- opening

void test_opening() {
    const tiny::File file(tiny::random_model("5.2", RWKV_TYPE_Q8_0));
    struct Seen {
        size_t n_calls = 0;
        uint64_t done = 0;
        uint64_t total = 0;
        int32_t answer = 0;
    } seen;
    rwkv_model_options options = model_options();
    options.n_threads = 1;
    options.progress_data = &seen;
    options.progress = [](void* data, uint64_t done, uint64_t total) -> int32_t {
        auto& s = *static_cast<Seen*>(data);
        CHECK(done >= s.done && done <= total && (s.total == 0 || s.total == total));
        ++s.n_calls;
        s.done = done;
        s.total = total;
        return s.answer;
    };
    rwkv_model* opened = nullptr;
    EXPECT_OK(rwkv_model_open(file.path(), &options, &opened));
    const Model model(opened);
    CHECK(seen.n_calls > 1 && seen.n_calls < 1000 && seen.done == seen.total && seen.total > 0);
    seen = {};
    seen.answer = 1;
    opened = nullptr;
    EXPECT_STATUS(rwkv_model_open(file.path(), &options, &opened), RWKV_STATUS_CANCELLED,
                  "progress");
    CHECK(opened == nullptr && seen.n_calls == 1);

    // From memory: the same model.
    std::vector<char> bytes;
    std::FILE* f = std::fopen(file.path(), "rb");
    CHECK(f != nullptr);
    for (int c; (c = std::fgetc(f)) != EOF;) bytes.push_back(static_cast<char>(c));
    std::fclose(f);
    std::vector<std::string> notes;
    rwkv_log_set(
        [](void* data, const char* message) {
            static_cast<std::vector<std::string>*>(data)->emplace_back(message);
        },
        &notes);
    EXPECT_OK(rwkv_model_open_memory(bytes.data(), bytes.size(), nullptr, &opened));
    const Model from_memory(opened);
    CHECK(notes.size() == 1 && notes[0].find("1e-5") != std::string::npos);
    rwkv_log_set(nullptr, nullptr);
    std::fill(bytes.begin(), bytes.end(), '\0');  // they are not needed any more
    CHECK(info_of(from_memory.get()).fingerprint == info_of(model.get()).fingerprint);
    const Session a = session_of(model);
    const Session b = session_of(from_memory);
    CHECK(same_bits(feed(model, a, {1, 2, 3}), feed(from_memory, b, {1, 2, 3})));
    EXPECT_STATUS(rwkv_model_open_memory(bytes.data(), bytes.size(), nullptr, &opened),
                  RWKV_STATUS_FILE_FORMAT, "memory: not a model file");
    EXPECT_STATUS(rwkv_model_open_memory(bytes.data(), 0, nullptr, &opened),
                  RWKV_STATUS_FILE_FORMAT, "empty");
    EXPECT_STATUS(rwkv_model_open_memory(nullptr, 0, nullptr, &opened),
                  RWKV_STATUS_INVALID_ARGUMENT, "bytes");
    CHECK(notes.size() == 1);

    // Programs of an older header have shorter structs, those of a newer one longer ones.
    struct Longer {
        rwkv_model_options options;
        uint64_t later;
    } longer;
    rwkv_model_options_init(&longer.options, sizeof longer);
    CHECK(longer.options.struct_size == sizeof longer && longer.later == 0);
    EXPECT_OK(rwkv_model_open(file.path(), &longer.options, &opened));
    rwkv_model_free(opened);
    longer.later = 1;
    EXPECT_STATUS(rwkv_model_open(file.path(), &longer.options, &opened),
                  RWKV_STATUS_INVALID_ARGUMENT, "later version");
    rwkv_model_options shorter = model_options();
    shorter.progress = [](void*, uint64_t, uint64_t) -> int32_t { return 1; };  // unknown to it
    shorter.struct_size = offsetof(rwkv_model_options, progress);
    EXPECT_OK(rwkv_model_open(file.path(), &shorter, &opened));
    rwkv_model_free(opened);
    rwkv_model_info info;
    std::memset(&info, 0x55, sizeof info);
    EXPECT_OK(rwkv_model_info_get(model.get(), &info, offsetof(rwkv_model_info, n_embd)));
    CHECK(info.n_vocab == vocab_of(model) && info.n_embd == 0x5555555555555555u);
}

}  // namespace

int main() {
    for (const char* version : tiny::kVersions) {
        for (const rwkv_type type : {RWKV_TYPE_FP32, RWKV_TYPE_Q4_0}) {
            const Model model = open(tiny::random_model(version, type));
            test_logits_and_hidden(model);
            test_keep(model);
            test_memory_states(model);
        }
        test_time_state(version);
    }
    test_cancel();
    test_opening();
    return 0;
}
