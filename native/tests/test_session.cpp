// Sessions, states and batches through the C API, on tiny models of every version and weight type:
// however tokens are cut, whoever the neighbours are and however many threads compute, a sequence
// gets the same numbers; and what fails leaves everything as it was.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "rwkv/rwkv.h"
#include "tiny_model.h"

namespace {

// Below this many rows of a sequence in one piece, results are the same to the bit however tokens
// are cut; from here on a level may use wider arithmetic.
constexpr size_t kExactRows = 32;

struct Free {
    void operator()(rwkv_model* m) const { rwkv_model_free(m); }
    void operator()(rwkv_session* s) const { rwkv_session_free(s); }
    void operator()(rwkv_batch* b) const { rwkv_batch_free(b); }
};
using Model = std::unique_ptr<rwkv_model, Free>;
using Session = std::unique_ptr<rwkv_session, Free>;
using Batch = std::unique_ptr<rwkv_batch, Free>;
using Floats = std::vector<float>;
using Tokens = std::vector<int32_t>;

constexpr rwkv_type kTypes[] = {RWKV_TYPE_FP32, RWKV_TYPE_FP16, RWKV_TYPE_Q4_0, RWKV_TYPE_Q4_1,
                                RWKV_TYPE_Q5_0, RWKV_TYPE_Q5_1, RWKV_TYPE_Q8_0};

void expect_status(rwkv_status got, rwkv_status expected, const char* word, int line) {
    const char* message = rwkv_error_message();
    if (got == expected && std::strstr(message, word) != nullptr) return;
    std::fprintf(stderr, "line %d: status %d, expected %d with '%s' in the message: %s\n", line,
                 got, expected, word, message);
    std::exit(1);
}
#define EXPECT_STATUS(call, status, word) expect_status(call, status, word, __LINE__)
#define EXPECT_OK(call)                                                        \
    do {                                                                       \
        if ((call) != RWKV_STATUS_OK) {                                        \
            std::fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, \
                         rwkv_error_message());                                \
            std::exit(1);                                                      \
        }                                                                      \
    } while (0)

Model open(const tiny::File& file, size_t n_threads = 1) {
    rwkv_model_options options = rwkv_model_options_default();
    options.n_threads = n_threads;
    rwkv_model* model = nullptr;
    EXPECT_OK(rwkv_model_open(file.path(), &options, &model));
    CHECK(rwkv_model_info_of(model).n_threads == n_threads);
    return Model(model);
}

Session session_of(const Model& model) {
    rwkv_session* session = nullptr;
    EXPECT_OK(rwkv_session_create(model.get(), &session));
    return Session(session);
}

Batch batch_of(const Model& model) {
    rwkv_batch* batch = nullptr;
    EXPECT_OK(rwkv_batch_create(model.get(), &batch));
    return Batch(batch);
}

size_t vocab_of(const Model& model) { return rwkv_model_info_of(model.get()).n_vocab; }

size_t state_size_of(const Model& model) { return rwkv_model_info_of(model.get()).state_size; }

Floats state_of(const Model& model, const Session& session) {
    Floats state(state_size_of(model));
    EXPECT_OK(rwkv_state_read(session.get(), state.data(), state.size()));
    return state;
}

Tokens random_tokens(size_t n, size_t n_vocab, uint32_t seed = 7) {
    std::mt19937 random(seed);
    Tokens tokens(n);
    for (int32_t& t : tokens) t = static_cast<int32_t>(random() % n_vocab);
    return tokens;
}

void choose_level(const char* level) { CHECK(setenv("RWKV_KERNELS", level, 1) == 0); }

std::vector<std::string> supported_levels() {
    std::vector<std::string> levels;
    for (const char* const* name = rwkv_kernels_all(); *name != nullptr; ++name) {
        if (rwkv_kernels_supported(*name)) levels.emplace_back(*name);
    }
    return levels;
}

// What a sequence got: logits after each of its tokens, and the state after the last.
struct Result {
    Floats logits;
    Floats state;
};

bool same_bits(const Floats& a, const Floats& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// The largest difference, relative to the range of `expected`.
double difference(const Floats& got, const Floats& expected) {
    CHECK(got.size() == expected.size());
    double largest = 0.0;
    for (size_t i = 0; i < got.size(); ++i) {
        const double d = std::fabs(static_cast<double>(got[i]) - expected[i]);
        if (!(d <= largest)) largest = d;  // NaN stays
    }
    const auto [low, high] = std::minmax_element(expected.begin(), expected.end());
    return largest / (static_cast<double>(*high) - *low);
}

// How far results may be apart: 0, not a bit, or a fraction of their range.
constexpr double kExact = 0.0;

void expect_same(const Floats& got, const Floats& expected, double tolerance,
                 const std::string& what) {
    if (tolerance == kExact ? same_bits(got, expected) : difference(got, expected) <= tolerance) {
        return;
    }
    std::fprintf(stderr, "%s differ by %g of their range, expected at most %g\n", what.c_str(),
                 difference(got, expected), tolerance);
    std::exit(1);
}

void expect_same(const Result& got, const Result& expected, double tolerance, const char* what,
                 const std::string& where) {
    expect_same(got.logits, expected.logits, tolerance, where + ": " + what + ": logits");
    expect_same(got.state, expected.state, tolerance, where + ": " + what + ": state");
}

// Feeds tokens in pieces of the given sizes (the last is repeated), taking logits after each token.
Result feed_in_pieces(const Model& model, const Tokens& tokens, const std::vector<size_t>& sizes) {
    const Session session = session_of(model);
    const Batch batch = batch_of(model);
    const size_t n_vocab = vocab_of(model);
    Result result;
    result.logits.resize(tokens.size() * n_vocab);
    size_t done = 0;
    for (size_t i = 0; done < tokens.size(); ++i) {
        const size_t n = std::min(sizes[std::min(i, sizes.size() - 1)], tokens.size() - done);
        EXPECT_OK(rwkv_batch_add(batch.get(), session.get(), tokens.data() + done, n,
                                 RWKV_LOGITS_ALL, result.logits.data() + done * n_vocab));
        EXPECT_OK(rwkv_batch_run(batch.get()));
        done += n;
    }
    result.state = state_of(model, session);
    return result;
}

// The same tokens one by one, through rwkv_session_feed.
Result feed_one_by_one(const Model& model, const Tokens& tokens) {
    const Session session = session_of(model);
    const size_t n_vocab = vocab_of(model);
    Result result;
    result.logits.resize(tokens.size() * n_vocab);
    for (size_t i = 0; i < tokens.size(); ++i) {
        EXPECT_OK(
            rwkv_session_feed(session.get(), &tokens[i], 1, result.logits.data() + i * n_vocab));
    }
    result.state = state_of(model, session);
    return result;
}

// Each of several sequences' tokens in one step.
std::vector<Result> feed_together(const Model& model, const std::vector<Tokens>& all) {
    const Batch batch = batch_of(model);
    std::vector<Session> sessions;
    std::vector<Result> results(all.size());
    for (size_t i = 0; i < all.size(); ++i) {
        sessions.push_back(session_of(model));
        results[i].logits.resize(all[i].size() * vocab_of(model));
        EXPECT_OK(rwkv_batch_add(batch.get(), sessions[i].get(), all[i].data(), all[i].size(),
                                 RWKV_LOGITS_ALL, results[i].logits.data()));
    }
    EXPECT_OK(rwkv_batch_run(batch.get()));
    for (size_t i = 0; i < all.size(); ++i) results[i].state = state_of(model, sessions[i]);
    return results;
}

// ---- the same numbers, whatever the cut, the company and the number of threads

void test_short_sequence(const tiny::File& file, const std::string& where) {
    const Model model = open(file);
    const Tokens tokens = random_tokens(24, vocab_of(model));
    const Result expected = feed_one_by_one(model, tokens);
    for (const float x : expected.logits) CHECK(std::isfinite(x));
    CHECK(difference(expected.logits, Floats(expected.logits.size(), 0.0f)) > 0);

    expect_same(feed_in_pieces(model, tokens, {24}), expected, kExact, "one chunk", where);
    expect_same(feed_in_pieces(model, tokens, {1, 7, 2, 13}), expected, kExact, "uneven", where);
    for (size_t n_threads = 2; n_threads <= 4; ++n_threads) {
        const Model threaded = open(file, n_threads);
        const std::string at = where + ", threads " + std::to_string(n_threads);
        expect_same(feed_one_by_one(threaded, tokens), expected, kExact, "one by one", at);
        expect_same(feed_in_pieces(threaded, tokens, {24}), expected, kExact, "one chunk", at);
    }

    const std::vector<Tokens> company = {random_tokens(5, vocab_of(model), 1), tokens,
                                         random_tokens(31, vocab_of(model), 2),
                                         random_tokens(1, vocab_of(model), 3)};
    const std::vector<Result> together = feed_together(model, company);
    for (size_t i = 0; i < company.size(); ++i) {
        expect_same(together[i], feed_in_pieces(model, company[i], {31}), kExact, "in company",
                    where);
    }
}

// Prompts longer than a piece, which is what the library computes at a time. `wide` is how far
// results of kExactRows rows or more may be from those of fewer.
void test_long_prompt(const tiny::File& file, double wide, const std::string& where) {
    const Model model = open(file);
    const Tokens tokens = random_tokens(300, vocab_of(model));
    const Result expected = feed_in_pieces(model, tokens, {kExactRows - 1});
    const Result whole = feed_in_pieces(model, tokens, {300});
    expect_same(feed_in_pieces(model, tokens, {3, 30}), expected, kExact, "small pieces", where);
    expect_same(whole, expected, wide, "one chunk", where);
    expect_same(feed_in_pieces(model, tokens, {100, 1, 64, 33}), expected, wide, "uneven", where);

    // A long prompt is cut in the same places wherever it enters, so this is one and the same work.
    const size_t piece = rwkv_session_piece_size();
    CHECK(piece < tokens.size());
    expect_same(feed_in_pieces(model, tokens, {piece}), whole, kExact, "piece by piece", where);
    for (size_t n_threads = 2; n_threads <= 4; ++n_threads) {
        expect_same(feed_in_pieces(open(file, n_threads), tokens, {300}), whole, kExact, "threads",
                    where);
    }

    const Session session = session_of(model);
    Floats last(vocab_of(model));
    EXPECT_OK(rwkv_session_feed(session.get(), tokens.data(), tokens.size(), last.data()));
    const Floats row(whole.logits.end() - static_cast<std::ptrdiff_t>(last.size()),
                     whole.logits.end());
    expect_same({last, state_of(model, session)}, {row, whole.state}, kExact, "feed", where);

    // Neighbours that together need several passes, longer and shorter than a piece.
    const std::vector<Tokens> company = {
        random_tokens(31, vocab_of(model), 1), random_tokens(600, vocab_of(model), 2),
        random_tokens(1, vocab_of(model), 3), tokens, random_tokens(31, vocab_of(model), 4)};
    const std::vector<Result> together = feed_together(open(file, 2), company);
    for (size_t i = 0; i < company.size(); ++i) {
        expect_same(together[i], feed_in_pieces(model, company[i], {company[i].size()}),
                    company[i].size() < kExactRows ? kExact : wide, "in long company", where);
    }
}

// More sequences than rows in a pass, each wanting something else.
void test_many_sequences(const tiny::File& file, const std::string& where) {
    constexpr size_t kSessions = 300;
    const Model model = open(file, 2);
    const size_t n_vocab = vocab_of(model);
    const Batch batch = batch_of(model);
    std::vector<Session> sessions;
    std::vector<Floats> logits(kSessions, Floats(2 * n_vocab, -1.0f));
    for (size_t i = 0; i < kSessions; ++i) {
        sessions.push_back(session_of(model));
        const Tokens tokens = {static_cast<int32_t>(i % n_vocab), 3};
        const auto wanted = static_cast<rwkv_logits>(i % 3);
        EXPECT_OK(rwkv_batch_add(batch.get(), sessions[i].get(), tokens.data(), 1 + i % 2, wanted,
                                 wanted == RWKV_LOGITS_NONE ? nullptr : logits[i].data()));
    }
    EXPECT_OK(rwkv_batch_run(batch.get()));
    for (size_t i = 0; i < kSessions; ++i) {
        const size_t n_tokens = 1 + i % 2;
        const Tokens tokens = {static_cast<int32_t>(i % n_vocab), 3};
        const Result alone = feed_one_by_one(
            model, {tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(n_tokens)});
        Floats expected(2 * n_vocab, -1.0f);
        const size_t first = i % 3 == RWKV_LOGITS_NONE   ? n_tokens
                             : i % 3 == RWKV_LOGITS_LAST ? n_tokens - 1
                                                         : 0;
        std::copy(alone.logits.begin() + static_cast<std::ptrdiff_t>(first * n_vocab),
                  alone.logits.end(), expected.begin());
        expect_same({logits[i], state_of(model, sessions[i])}, {expected, alone.state}, kExact,
                    "one of many", where);
    }
}

// The levels agree with the first, the reference: in fp32 nearly, in quantised types within what a
// rounding of the activations that falls the other way can do.
void test_levels_agree(const tiny::File& file, bool quantised, const std::string& where) {
    Result expected;
    for (const std::string& level : supported_levels()) {
        choose_level(level.c_str());
        const Model model = open(file);
        const Result got = feed_in_pieces(model, random_tokens(48, vocab_of(model)), {48});
        if (level == "reference") expected = got;
        const double d = difference(got.logits, expected.logits);
        if (d <= (quantised ? 2e-2 : 1e-5)) continue;
        std::fprintf(stderr, "%s: level %s differs from reference by %g of the range\n",
                     where.c_str(), level.c_str(), d);
        std::exit(1);
    }
}

std::string at_level(std::string name, const std::string& level) {
    return name.append(", ").append(level);
}

void test_all_models(const std::vector<std::string>& versions) {
    for (const std::string& version : versions) {
        for (const rwkv_type type : kTypes) {
            const tiny::File file(tiny::random_model(version.c_str(), type));
            const std::string name = "version " + version + ", type " + std::to_string(type);
            test_levels_agree(file, type >= RWKV_TYPE_Q4_0, name);
            for (const std::string& level : supported_levels()) {
                choose_level(level.c_str());
                const std::string where = at_level(name, level);
                test_short_sequence(file, where);
                const bool long_too = level == "reference"
                                          ? type == RWKV_TYPE_Q4_1
                                          : type == RWKV_TYPE_FP32 || type == RWKV_TYPE_Q4_0 ||
                                                type == RWKV_TYPE_Q5_1;
                // bf16 keeps 8 bits of weights and activations, as the integers do.
                const double wide = level == "amx" && type >= RWKV_TYPE_Q4_0 ? 2e-2 : 1e-5;
                if (long_too) test_long_prompt(file, wide, where);
                if (type == RWKV_TYPE_Q4_0) test_many_sequences(file, where);
            }
        }
    }
}

// Widths that fill no vector and no panel: float types take any.
void test_odd_sizes(const std::vector<std::string>& versions) {
    tiny::Sizes odd;
    odd.n_layer = 1;
    odd.n_head = 3;
    odd.head_size = 7;
    odd.n_ffn = 37;
    odd.n_vocab = 19;
    odd.rank = 5;
    for (const std::string& version : versions) {
        for (const rwkv_type type : {RWKV_TYPE_FP32, RWKV_TYPE_FP16}) {
            const tiny::File file(tiny::random_model(version.c_str(), type, odd));
            const std::string name = "odd sizes, version " + version;
            test_levels_agree(file, false, name);
            for (const std::string& level : supported_levels()) {
                choose_level(level.c_str());
                test_short_sequence(file, at_level(name, level));
            }
        }
    }
}

// Heads of half a block: what they write is quantised when all of them are done.
void test_small_heads(const std::vector<std::string>& versions) {
    tiny::Sizes sizes;
    sizes.n_head = 4;
    sizes.head_size = 16;
    for (const std::string& version : versions) {
        const tiny::File file(tiny::random_model(version.c_str(), RWKV_TYPE_Q4_0, sizes));
        const std::string name = "small heads, version " + version;
        test_levels_agree(file, true, name);
        for (const std::string& level : supported_levels()) {
            choose_level(level.c_str());
            test_short_sequence(file, at_level(name, level));
        }
    }
}

// Rows that one matrix reads as fp32 and another in blocks, and products of one kind whose results
// the other kind reads.
void test_mixed_types(const std::vector<std::string>& versions) {
    for (const std::string& version : versions) {
        const tiny::File file(tiny::mixed_model(version));
        const std::string name = "mixed types, version " + version;
        test_levels_agree(file, true, name);
        for (const std::string& level : supported_levels()) {
            choose_level(level.c_str());
            const std::string where = at_level(name, level);
            test_short_sequence(file, where);
            if (level != "reference") test_long_prompt(file, level == "amx" ? 2e-2 : 1e-5, where);
        }
    }
}

// ---- states

void test_fresh_state() {
    for (const char* version : tiny::kVersions) {
        const tiny::File file(tiny::random_model(version, RWKV_TYPE_FP32));
        const Model model = open(file);
        const rwkv_model_info info = rwkv_model_info_of(model.get());
        const bool is_v4 = std::string(version) == "4";
        const size_t C = info.n_embd;
        CHECK(info.version == std::string(version));
        CHECK(C == 64 && info.n_layer == 2 && info.n_vocab == 40 && info.n_ffn == 96);
        CHECK(info.n_head == (is_v4 ? 0 : 2) && info.head_size == (is_v4 ? 0 : 32));
        CHECK(info.ln_x_eps == (is_v4 ? 0.0f : 64e-5f));
        CHECK(info.state_size == 2 * (is_v4 ? 5 * C : 2 * C + 2 * 32 * 32));
        CHECK(info.data_type == std::string("fp32") && info.struct_size == sizeof info);

        const Session session = session_of(model);
        const Floats fresh = state_of(model, session);
        for (size_t i = 0; i < fresh.size(); ++i) {
            const bool is_pp = is_v4 && i % (5 * C) >= 4 * C;
            CHECK(fresh[i] == (is_pp ? -1e30f : 0.0f));
        }
        const int32_t token = 5;
        EXPECT_OK(rwkv_session_feed(session.get(), &token, 1, nullptr));
        CHECK(!same_bits(state_of(model, session), fresh));
        rwkv_session_reset(session.get());
        CHECK(same_bits(state_of(model, session), fresh));
    }
}

// A file may say what the heads' matrices begin with: row = value, column = key in the file.
void test_time_state() {
    for (const std::string version : {"5.1", "5.2", "6", "7"}) {
        tiny::Sizes sizes;
        sizes.time_state = true;
        tiny::Model made = tiny::random_model(version, RWKV_TYPE_Q4_0, sizes);
        const tiny::File tuned_file(made);
        const Model tuned = open(tuned_file);
        const size_t C = 64;
        const size_t N = 32;
        Floats expected(state_size_of(tuned), 0.0f);
        for (size_t layer = 0; layer < 2; ++layer) {
            const std::string name = "blocks." + std::to_string(layer) + ".att.time_state";
            Floats heads(C * N);
            std::memcpy(heads.data(), made.at(name).data.data(), heads.size() * sizeof(float));
            made.erase(name);
            float* wkv = expected.data() + layer * (2 * C + C * N) + 2 * C;
            for (size_t i = 0; i < heads.size(); ++i) {
                const size_t head = i / (N * N);
                const size_t row = i / N % N;
                const size_t column = i % N;
                const bool as_it_is = version == "7";
                wkv[as_it_is ? i : (head * N + column) * N + row] = heads[i];
            }
        }
        const tiny::File plain_file(made);
        const Model plain = open(plain_file);
        CHECK(rwkv_model_info_of(tuned.get()).has_time_state == 1);
        CHECK(rwkv_model_info_of(plain.get()).has_time_state == 0);

        const Session session = session_of(tuned);
        CHECK(same_bits(state_of(tuned, session), expected));
        rwkv_session* forked = nullptr;
        EXPECT_OK(rwkv_session_fork(session.get(), &forked));
        const Session fork(forked);
        CHECK(same_bits(state_of(tuned, fork), expected));

        // As if the state had been written to a session that began with zeros.
        const Session written = session_of(plain);
        CHECK(!same_bits(state_of(plain, written), expected));
        EXPECT_OK(rwkv_state_write(written.get(), expected.data(), expected.size()));
        const Tokens tokens = random_tokens(40, vocab_of(plain));
        Floats logits(vocab_of(plain));
        EXPECT_OK(rwkv_session_feed(written.get(), tokens.data(), tokens.size(), logits.data()));
        for (int i = 0; i < 2; ++i) {
            Floats got(logits.size());
            EXPECT_OK(rwkv_session_feed(session.get(), tokens.data(), tokens.size(), got.data()));
            CHECK(same_bits(got, logits));
            CHECK(same_bits(state_of(tuned, session), state_of(plain, written)));
            rwkv_session_reset(session.get());
            CHECK(same_bits(state_of(tuned, session), expected));
        }
        rwkv_session_reset(written.get());
        CHECK(same_bits(state_of(plain, written), Floats(expected.size(), 0.0f)));
    }
}

void test_state_is_a_value() {
    for (const char* version : tiny::kVersions) {
        const tiny::File file(tiny::random_model(version, RWKV_TYPE_Q8_0));
        const Model model = open(file);
        const size_t n_vocab = vocab_of(model);
        const Tokens before = random_tokens(9, n_vocab, 1);
        const Tokens after = random_tokens(6, n_vocab, 2);
        const Session session = session_of(model);
        EXPECT_OK(rwkv_session_feed(session.get(), before.data(), before.size(), nullptr));
        const Floats saved = state_of(model, session);

        rwkv_session* forked = nullptr;
        EXPECT_OK(rwkv_session_fork(session.get(), &forked));
        const Session fork(forked);
        const Session written = session_of(model);
        EXPECT_OK(rwkv_state_write(written.get(), saved.data(), saved.size()));
        const Session copied = session_of(model);
        EXPECT_OK(rwkv_state_copy(copied.get(), session.get()));
        EXPECT_OK(rwkv_state_copy(copied.get(), copied.get()));

        Floats expected(n_vocab);
        EXPECT_OK(rwkv_session_feed(session.get(), after.data(), after.size(), expected.data()));
        CHECK(!same_bits(state_of(model, session), saved));
        for (const Session* other : {&fork, &written, &copied}) {
            CHECK(same_bits(state_of(model, *other), saved));  // it did not move with the first
            Floats got(n_vocab);
            EXPECT_OK(rwkv_session_feed(other->get(), after.data(), after.size(), got.data()));
            CHECK(same_bits(got, expected));
            CHECK(same_bits(state_of(model, *other), state_of(model, session)));
        }

        // Any numbers come back as they were written, NaN too.
        Floats numbers(saved.size());
        std::iota(numbers.begin(), numbers.end(), -1000.0f);
        numbers[1] = std::numeric_limits<float>::quiet_NaN();
        EXPECT_OK(rwkv_state_write(written.get(), numbers.data(), numbers.size()));
        CHECK(same_bits(state_of(model, written), numbers));
    }
}

void test_state_of_another_model() {
    const tiny::File file4(tiny::random_model("4", RWKV_TYPE_FP32));
    const tiny::File file7(tiny::random_model("7", RWKV_TYPE_FP32));
    const Model model4 = open(file4);
    const Model model7 = open(file7);
    const Model twin7 = open(file7);
    const Session of4 = session_of(model4);
    const Session of7 = session_of(model7);
    const Session of_twin7 = session_of(twin7);
    const Floats fresh = state_of(model7, of7);
    Floats state4 = state_of(model4, of4);

    EXPECT_STATUS(rwkv_state_write(of7.get(), state4.data(), state4.size()),
                  RWKV_STATUS_STATE_MISMATCH, "expected");
    EXPECT_STATUS(rwkv_state_write(of7.get(), fresh.data(), fresh.size() - 1),
                  RWKV_STATUS_STATE_MISMATCH, std::to_string(fresh.size()).c_str());
    EXPECT_STATUS(rwkv_state_read(of4.get(), state4.data(), state4.size() + 1),
                  RWKV_STATUS_STATE_MISMATCH, "expected");
    EXPECT_STATUS(rwkv_state_copy(of7.get(), of4.get()), RWKV_STATUS_STATE_MISMATCH, "model");
    EXPECT_STATUS(rwkv_state_copy(of7.get(), of_twin7.get()), RWKV_STATUS_STATE_MISMATCH, "model");
    CHECK(same_bits(state_of(model7, of7), fresh));

    const Batch batch = batch_of(model7);
    const int32_t token = 1;
    EXPECT_STATUS(rwkv_batch_add(batch.get(), of_twin7.get(), &token, 1, RWKV_LOGITS_NONE, nullptr),
                  RWKV_STATUS_INVALID_ARGUMENT, "another model");
    EXPECT_OK(rwkv_batch_run(batch.get()));
    CHECK(same_bits(state_of(twin7, of_twin7), fresh));
}

void test_free_in_any_order() {
    const tiny::File file(tiny::random_model("6", RWKV_TYPE_Q5_0));
    Model model = open(file, 2);
    Session session = session_of(model);
    Batch batch = batch_of(model);
    const Tokens tokens = random_tokens(40, vocab_of(model));
    Floats expected(vocab_of(model));
    Floats got(expected.size());
    {
        const Session other = session_of(model);
        EXPECT_OK(rwkv_session_feed(other.get(), tokens.data(), tokens.size(), expected.data()));
    }
    model.reset();
    EXPECT_OK(rwkv_batch_add(batch.get(), session.get(), tokens.data(), tokens.size(),
                             RWKV_LOGITS_LAST, got.data()));
    EXPECT_OK(rwkv_batch_run(batch.get()));
    CHECK(same_bits(got, expected));
    batch.reset();
    rwkv_session* forked = nullptr;
    EXPECT_OK(rwkv_session_fork(session.get(), &forked));
    session.reset();
    EXPECT_OK(rwkv_session_feed(forked, tokens.data(), tokens.size(), got.data()));
    rwkv_session_free(forked);

    rwkv_model_free(nullptr);
    rwkv_session_free(nullptr);
    rwkv_batch_free(nullptr);
    rwkv_session_reset(nullptr);
    rwkv_batch_clear(nullptr);
}

// ---- what fails, and that it leaves everything as it was

void test_errors_change_nothing() {
    const tiny::File file(tiny::random_model("7", RWKV_TYPE_Q4_0));
    const Model model = open(file);
    const size_t n_vocab = vocab_of(model);
    const Session session = session_of(model);
    Tokens tokens = random_tokens(300, n_vocab);
    EXPECT_OK(rwkv_session_feed(session.get(), tokens.data(), 3, nullptr));
    const Floats state = state_of(model, session);
    const Floats untouched(n_vocab, 7.0f);
    Floats logits = untouched;

    const int32_t bad_tokens[] = {-1, static_cast<int32_t>(n_vocab),
                                  std::numeric_limits<int32_t>::min(),
                                  std::numeric_limits<int32_t>::max()};
    for (const int32_t bad : bad_tokens) {
        tokens.back() = bad;
        EXPECT_STATUS(rwkv_session_feed(session.get(), tokens.data(), 300, logits.data()),
                      RWKV_STATUS_TOKEN_OUT_OF_RANGE, "tokens[299]");
        CHECK(std::strstr(rwkv_error_message(), std::to_string(bad).c_str()) != nullptr);
    }
    EXPECT_STATUS(rwkv_session_feed(session.get(), tokens.data(), 0, logits.data()),
                  RWKV_STATUS_INVALID_ARGUMENT, "tokens");
    EXPECT_STATUS(rwkv_session_feed(session.get(), nullptr, 1, logits.data()),
                  RWKV_STATUS_INVALID_ARGUMENT, "tokens");

    const Batch batch = batch_of(model);
    const auto add = [&](const int32_t* t, size_t n, rwkv_logits wanted, float* out) {
        return rwkv_batch_add(batch.get(), session.get(), t, n, wanted, out);
    };
    EXPECT_STATUS(add(tokens.data(), 300, RWKV_LOGITS_ALL, logits.data()),
                  RWKV_STATUS_TOKEN_OUT_OF_RANGE, "tokens[299]");
    EXPECT_STATUS(add(tokens.data(), 0, RWKV_LOGITS_NONE, nullptr), RWKV_STATUS_INVALID_ARGUMENT,
                  "tokens");
    EXPECT_STATUS(add(nullptr, 1, RWKV_LOGITS_NONE, nullptr), RWKV_STATUS_INVALID_ARGUMENT,
                  "tokens");
    EXPECT_STATUS(add(tokens.data(), 1, RWKV_LOGITS_LAST, nullptr), RWKV_STATUS_INVALID_ARGUMENT,
                  "logits_out");
    EXPECT_STATUS(add(tokens.data(), 1, RWKV_LOGITS_ALL, nullptr), RWKV_STATUS_INVALID_ARGUMENT,
                  "logits_out");
    EXPECT_STATUS(add(tokens.data(), 1, static_cast<rwkv_logits>(3), logits.data()),
                  RWKV_STATUS_INVALID_ARGUMENT, "wanted");
    EXPECT_OK(rwkv_batch_run(batch.get()));  // nothing came into it
    EXPECT_OK(add(tokens.data(), 1, RWKV_LOGITS_LAST, logits.data()));
    EXPECT_STATUS(add(tokens.data(), 1, RWKV_LOGITS_NONE, nullptr), RWKV_STATUS_INVALID_ARGUMENT,
                  "already");
    rwkv_batch_clear(batch.get());
    EXPECT_OK(rwkv_batch_run(batch.get()));
    CHECK(same_bits(logits, untouched));
    CHECK(same_bits(state_of(model, session), state));

    // An error of one sequence is no error of those that were added before.
    EXPECT_OK(add(tokens.data(), 1, RWKV_LOGITS_LAST, logits.data()));
    const Session other = session_of(model);
    EXPECT_STATUS(
        rwkv_batch_add(batch.get(), other.get(), &tokens.back(), 1, RWKV_LOGITS_NONE, nullptr),
        RWKV_STATUS_TOKEN_OUT_OF_RANGE, "tokens[0]");
    EXPECT_OK(rwkv_batch_run(batch.get()));
    CHECK(!same_bits(logits, untouched));
    CHECK(!same_bits(state_of(model, session), state));
}

void test_null_arguments() {
    const tiny::File file(tiny::random_model("5.2", RWKV_TYPE_FP16));
    const Model model = open(file);
    const Session session = session_of(model);
    const Batch batch = batch_of(model);
    Floats state = state_of(model, session);
    const int32_t token = 0;
    rwkv_model* const model_before = model.get();
    rwkv_model* model_out = model_before;
    rwkv_session* session_out = session.get();
    rwkv_batch* batch_out = batch.get();
    constexpr rwkv_status kInvalid = RWKV_STATUS_INVALID_ARGUMENT;

    EXPECT_STATUS(rwkv_model_open(nullptr, nullptr, &model_out), kInvalid, "path");
    EXPECT_STATUS(rwkv_model_open(file.path(), nullptr, nullptr), kInvalid, "model_out");
    EXPECT_STATUS(rwkv_session_create(nullptr, &session_out), kInvalid, "model");
    EXPECT_STATUS(rwkv_session_create(model.get(), nullptr), kInvalid, "session_out");
    EXPECT_STATUS(rwkv_session_feed(nullptr, &token, 1, nullptr), kInvalid, "session");
    EXPECT_STATUS(rwkv_session_fork(nullptr, &session_out), kInvalid, "session");
    EXPECT_STATUS(rwkv_session_fork(session.get(), nullptr), kInvalid, "session_out");
    EXPECT_STATUS(rwkv_state_read(nullptr, state.data(), state.size()), kInvalid, "session");
    EXPECT_STATUS(rwkv_state_read(session.get(), nullptr, state.size()), kInvalid, "state_out");
    EXPECT_STATUS(rwkv_state_write(nullptr, state.data(), state.size()), kInvalid, "session");
    EXPECT_STATUS(rwkv_state_write(session.get(), nullptr, state.size()), kInvalid, "state");
    EXPECT_STATUS(rwkv_state_copy(nullptr, session.get()), kInvalid, "NULL");
    EXPECT_STATUS(rwkv_state_copy(session.get(), nullptr), kInvalid, "NULL");
    EXPECT_STATUS(rwkv_batch_create(nullptr, &batch_out), kInvalid, "model");
    EXPECT_STATUS(rwkv_batch_create(model.get(), nullptr), kInvalid, "batch_out");
    EXPECT_STATUS(rwkv_batch_add(nullptr, session.get(), &token, 1, RWKV_LOGITS_NONE, nullptr),
                  kInvalid, "batch");
    EXPECT_STATUS(rwkv_batch_add(batch.get(), nullptr, &token, 1, RWKV_LOGITS_NONE, nullptr),
                  kInvalid, "session");
    EXPECT_STATUS(rwkv_batch_run(nullptr), kInvalid, "batch");
    EXPECT_STATUS(rwkv_model_open("missing.bin", nullptr, &model_out), RWKV_STATUS_FILE_UNREADABLE,
                  "missing.bin");
    CHECK(model_out == model_before && session_out == session.get() && batch_out == batch.get());
    CHECK(rwkv_kernels_supported(nullptr) == 0);
}

void test_status_sentences() {
    for (const int status :
         {0, 1, 2, 3, 4, 9, 20, 21, 22, 23, 24, 30, 31, 32, 33, 34, 40, 41, 50, 60}) {
        const char* sentence = rwkv_status_sentence(static_cast<rwkv_status>(status));
        CHECK(std::string(sentence) != "unknown status" && *sentence != '\0');
    }
    for (const int unknown : {10, 63}) {
        CHECK(rwkv_status_sentence(static_cast<rwkv_status>(unknown)) != nullptr);
    }
    CHECK(rwkv_version_string() == std::string(RWKV_VERSION_STRING));
    CHECK(rwkv_version_abi() == RWKV_ABI_VERSION);
}

// ---- options and environment

void test_options() {
    const tiny::File file4(tiny::random_model("4", RWKV_TYPE_FP32));
    const tiny::File file5(tiny::random_model("5.1", RWKV_TYPE_FP32));
    rwkv_model* model = nullptr;
    rwkv_model_options options = rwkv_model_options_default();
    CHECK(options.struct_size == sizeof options && options.n_threads == 0 &&
          options.ln_x_eps == 0.0f);

    for (const size_t size : {size_t{0}, sizeof options - 1, sizeof options + 8}) {
        options.struct_size = size;
        EXPECT_STATUS(rwkv_model_open(file4.path(), &options, &model), RWKV_STATUS_INVALID_ARGUMENT,
                      "struct_size");
    }
    options = rwkv_model_options_default();
    for (const size_t n : {size_t{1025}, std::numeric_limits<size_t>::max()}) {
        options.n_threads = n;
        EXPECT_STATUS(rwkv_model_open(file4.path(), &options, &model), RWKV_STATUS_INVALID_ARGUMENT,
                      "n_threads");
    }
    options.n_threads = 1;
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    for (const float eps : {-1e-5f, std::numeric_limits<float>::quiet_NaN(), kInfinity}) {
        options.ln_x_eps = eps;
        EXPECT_STATUS(rwkv_model_open(file5.path(), &options, &model), RWKV_STATUS_INVALID_ARGUMENT,
                      "ln_x_eps");
    }
    options.ln_x_eps = 1e-5f;
    EXPECT_STATUS(rwkv_model_open(file4.path(), &options, &model), RWKV_STATUS_MODEL_OPTION,
                  "ln_x_eps");
    CHECK(model == nullptr);

    EXPECT_OK(rwkv_model_open(file5.path(), &options, &model));
    const Model changed(model);
    CHECK(rwkv_model_info_of(model).ln_x_eps == 1e-5f);
    const Tokens tokens = random_tokens(8, vocab_of(changed));
    CHECK(difference(feed_one_by_one(changed, tokens).logits,
                     feed_one_by_one(open(file5), tokens).logits) > 1e-5);
}

void test_kernel_levels() {
    const tiny::File file(tiny::random_model("7", RWKV_TYPE_Q4_0));
    const auto open_status = [&](std::string* active) {
        rwkv_model* model = nullptr;
        const rwkv_status status = rwkv_model_open(file.path(), nullptr, &model);
        if (status == RWKV_STATUS_OK) *active = rwkv_model_info_of(model).kernels;
        CHECK((status == RWKV_STATUS_OK) == (model != nullptr));
        rwkv_model_free(model);
        return status;
    };
    CHECK(rwkv_kernels_all()[0] == std::string("reference"));
    CHECK(rwkv_kernels_supported("reference") == 1);
    std::string active;
    std::string highest;
    for (const char* const* name = rwkv_kernels_all(); *name != nullptr; ++name) {
        choose_level(*name);
        if (rwkv_kernels_supported(*name)) {
            EXPECT_OK(open_status(&active));
            CHECK(active == *name);
            highest = *name;
        } else {
            EXPECT_STATUS(open_status(&active), RWKV_STATUS_KERNELS_UNSUPPORTED, *name);
        }
    }
    for (const char* unknown : {"avx3", "Reference", "reference ", "0"}) {
        choose_level(unknown);
        CHECK(rwkv_kernels_supported(unknown) == 0);
        EXPECT_STATUS(open_status(&active), RWKV_STATUS_KERNELS_UNKNOWN, unknown);
        CHECK(std::strstr(rwkv_error_message(), "reference") != nullptr);  // what there is
    }
    choose_level("");
    EXPECT_OK(open_status(&active));
    CHECK(active == highest);
    CHECK(unsetenv("RWKV_KERNELS") == 0);
    EXPECT_OK(open_status(&active));
    CHECK(active == highest);
}

void test_thread_environment() {
    const tiny::File file(tiny::random_model("4", RWKV_TYPE_FP32));
    rwkv_model* model = nullptr;
    CHECK(setenv("RWKV_THREADS", "3", 1) == 0);
    EXPECT_OK(rwkv_model_open(file.path(), nullptr, &model));
    CHECK(rwkv_model_info_of(model).n_threads == 3);
    rwkv_model_free(model);
    open(file, 2);  // the option goes first: `open` checks the number
    model = nullptr;
    for (const char* bad : {"0", "-1", "x", "3x", "1025", "99999999999999999999", "1.5"}) {
        CHECK(setenv("RWKV_THREADS", bad, 1) == 0);
        EXPECT_STATUS(rwkv_model_open(file.path(), nullptr, &model), RWKV_STATUS_INVALID_ARGUMENT,
                      "RWKV_THREADS");
        CHECK(model == nullptr);
    }
    for (const char* none : {"", static_cast<const char*>(nullptr)}) {
        CHECK((none == nullptr ? unsetenv("RWKV_THREADS") : setenv("RWKV_THREADS", none, 1)) == 0);
        EXPECT_OK(rwkv_model_open(file.path(), nullptr, &model));
        CHECK(rwkv_model_info_of(model).n_threads >= 1);
        rwkv_model_free(model);
        model = nullptr;
    }
}

// ---- several threads of the caller

void test_concurrent_sessions() {
    for (const char* version : {"4", "7"}) {
        const tiny::File file(tiny::random_model(version, RWKV_TYPE_Q8_0));
        const Model model = open(file, 2);
        std::vector<Tokens> tokens;
        std::vector<Result> expected;
        for (uint32_t i = 0; i < 4; ++i) {
            tokens.push_back(random_tokens(60, vocab_of(model), i));
            expected.push_back(feed_in_pieces(model, tokens[i], {9}));
        }
        std::vector<Result> got(tokens.size());
        std::vector<std::thread> threads;
        threads.reserve(tokens.size());
        for (size_t i = 0; i < tokens.size(); ++i) {
            threads.emplace_back([&, i] {
                // Other cuts and other errors in each thread, at once.
                got[i] = feed_in_pieces(model, tokens[i], {i + 1, 9});
                const Session session = session_of(model);
                const auto bad = static_cast<int32_t>(1000 + i);
                EXPECT_STATUS(rwkv_session_feed(session.get(), &bad, 1, nullptr),
                              RWKV_STATUS_TOKEN_OUT_OF_RANGE, std::to_string(bad).c_str());
            });
        }
        for (std::thread& thread : threads) thread.join();
        for (size_t i = 0; i < tokens.size(); ++i) {
            expect_same(got[i], expected[i], kExact, "two callers at once", version);
        }
    }
}

void test_message_is_per_thread() {
    rwkv_model* model = nullptr;
    EXPECT_STATUS(rwkv_model_open("here.bin", nullptr, &model), RWKV_STATUS_FILE_UNREADABLE,
                  "here.bin");
    std::thread([] {
        CHECK(*rwkv_error_message() == '\0');
        rwkv_model* other = nullptr;
        EXPECT_STATUS(rwkv_model_open("there.bin", nullptr, &other), RWKV_STATUS_FILE_UNREADABLE,
                      "there.bin");
    }).join();
    CHECK(std::strstr(rwkv_error_message(), "here.bin") == rwkv_error_message());
}

}  // namespace

// test_session [VERSION...]: the tests of whole models are for these RWKV versions (default: all).
int main(int argc, char** argv) {
    std::vector<std::string> versions(argv + 1, argv + argc);
    if (versions.empty()) versions.assign(std::begin(tiny::kVersions), std::end(tiny::kVersions));
    CHECK(unsetenv("RWKV_KERNELS") == 0 && unsetenv("RWKV_THREADS") == 0);
    test_status_sentences();
    test_message_is_per_thread();
    test_kernel_levels();
    test_thread_environment();
    test_options();
    test_null_arguments();
    test_errors_change_nothing();
    test_fresh_state();
    test_time_state();
    test_state_is_a_value();
    test_state_of_another_model();
    test_free_in_any_order();
    test_concurrent_sessions();
    test_odd_sizes(versions);
    test_small_heads(versions);
    test_mixed_types(versions);
    test_all_models(versions);
    return 0;
}
