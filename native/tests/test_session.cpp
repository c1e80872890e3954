// Sessions and batches through the C API, on tiny models of every version and weight type: however
// tokens are cut, whoever the neighbours are and however many threads compute, a sequence gets the
// same numbers.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "check.h"
#include "model_loader.h"
#include "open_model.h"
#include "rwkv/rwkv.h"
#include "tiny_model.h"

namespace {

using namespace opened;

// Below this many rows of a sequence in one piece, results are the same to the bit however tokens
// are cut; from here on a level may use wider arithmetic.
constexpr size_t kExactRows = 32;

// How threads share the rows and panels out.
std::vector<size_t> thread_counts() {
    if (kBrief) return {3};
    return {2, 3, 4};
}

constexpr rwkv_type kTypes[] = {RWKV_TYPE_FP32, RWKV_TYPE_FP16, RWKV_TYPE_Q4_0, RWKV_TYPE_Q4_1,
                                RWKV_TYPE_Q5_0, RWKV_TYPE_Q5_1, RWKV_TYPE_Q8_0};

std::vector<std::string> supported_levels() {
    std::vector<std::string> levels;
    for (const char* const* name = rwkv_kernels_all(); *name != nullptr; ++name) {
        if (std::strcmp(*name, "reference_wide") == 0) continue;  // has a test of its own
        if (rwkv_kernels_supported(*name)) levels.emplace_back(*name);
    }
    return levels;
}

// Those at which tokens are cut in every way. Where the processor is emulated the reference, which is the
// same C everywhere, is what other levels are compared with, and no more.
std::vector<std::string> cut_levels() {
    std::vector<std::string> levels = supported_levels();
    if (kEmulated) levels.erase(levels.begin());
    return levels;
}

// Whether matrices may lie by columns at a level.
bool has_columns(const std::string& level) {
    return level.find("reference") != 0 && level.find("neon") != 0;
}

// What a sequence got: logits after each of its tokens, and the state after the last.
struct Result {
    Floats logits;
    Floats state;
};

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
constexpr double kQuantised = 2e-2;  // a rounding of the activations that falls the other way
constexpr double kWide = 5e-2;       // likewise, of weights and activations to the 8 bits of bf16

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
    for (const size_t n_threads : thread_counts()) {
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
    for (const size_t n_threads : thread_counts()) {
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
        random_tokens(31, vocab_of(model), 1), random_tokens(530, vocab_of(model), 2),
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
        const double wide = level == "amx" ? kWide : kQuantised;
        if (d <= (quantised ? wide : 1e-5)) continue;
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
            // A type has kernels of its own, which test_kernels looks at; the engine knows two kinds.
            if (kBrief && type != RWKV_TYPE_FP32 && type != RWKV_TYPE_Q4_0) continue;
            const tiny::File file(tiny::random_model(version.c_str(), type));
            const std::string name = "version " + version + ", type " + std::to_string(type);
            test_levels_agree(file, type >= RWKV_TYPE_Q4_0, name);
            for (const std::string& level : cut_levels()) {
                choose_level(level.c_str());
                const std::string where = at_level(name, level);
                test_short_sequence(file, where);
                const bool long_too = level == "reference"
                                          ? type == RWKV_TYPE_Q4_1
                                          : type == RWKV_TYPE_FP32 || type == RWKV_TYPE_Q4_0 ||
                                                type == RWKV_TYPE_Q5_1;
                const double wide = level == "amx" && type >= RWKV_TYPE_Q4_0 ? kWide : 1e-5;
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
            for (const std::string& level : cut_levels()) {
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
        for (const std::string& level : cut_levels()) {
            choose_level(level.c_str());
            test_short_sequence(file, at_level(name, level));
        }
    }
}

// Whether the value matrices of a version 7 model lie by columns: where the level can, panels are
// whole, and they can be shared out evenly enough.
void test_which_are_by_columns(const tiny::Sizes& wide) {
    tiny::Sizes odd = wide;
    odd.n_head = 5;  // 160 outputs: more than a panel, less than two
    // Of several types: that of most bytes neither first nor last.
    tiny::Sizes three = wide;
    three.n_layer = 3;
    tiny::Model mixed = tiny::random_model("7", RWKV_TYPE_Q8_0, three);
    for (const auto& [name, type] : {std::pair{"blocks.1.ffn.value.weight", RWKV_TYPE_Q4_0},
                                     std::pair{"blocks.2.ffn.value.weight", RWKV_TYPE_FP16}}) {
        mixed.at(name) = tiny::random_model("7", type, three).at(name);
    }
    struct {
        tiny::Model model;
        size_t n_threads;
        bool even;
    } const cases[] = {{tiny::random_model("7", RWKV_TYPE_Q4_0, wide), 1, true},
                       {tiny::random_model("7", RWKV_TYPE_Q4_0, wide), 2, true},
                       {tiny::random_model("7", RWKV_TYPE_Q4_0, wide), 3, false},
                       {tiny::random_model("7", RWKV_TYPE_Q5_1, odd), 1, false},
                       {mixed, 2, true}};
    for (const auto& c : cases) {
        const tiny::File file(c.model);
        test_levels_agree(file, true, "which are by columns");
        for (const std::string& level : supported_levels()) {
            choose_level(level.c_str());
            const auto opened = rwkv::load_model(file.path(), {c.n_threads});
            const rwkv::Model& model = *opened;
            const bool can = has_columns(level);
            size_t largest = 0;
            const auto* layers = std::get_if<std::vector<rwkv::LayerV7>>(&model.layers);
            CHECK(layers != nullptr);
            for (const rwkv::LayerV7& l : *layers) {
                CHECK((l.ffn_value.by_columns != 0) == (can && c.even));
                CHECK(!l.ffn_key.by_columns && !l.output.by_columns);
                if (!l.ffn_value.by_columns) continue;
                largest =
                    std::max(largest, RWKV_COLUMN * rwkv_row_bytes(l.ffn_value.type, wide.n_ffn));
            }
            CHECK(model.column_panel_bytes == largest);
            test_short_sequence(file, at_level("which are by columns", level));
        }
    }
}

// Widths at which the value matrix of the channel mix lies by columns, with inputs of which three
// quarters are zero, and half of the rest.
void test_columns(const std::vector<std::string>& versions) {
    tiny::Sizes sizes;
    sizes.n_layer = 1;
    sizes.n_head = 8;
    sizes.n_ffn = 288;
    sizes.ffn_zeros = 3;
    test_which_are_by_columns(sizes);
    const std::vector<std::string> levels = supported_levels();
    if (std::none_of(levels.begin(), levels.end(), has_columns)) return;  // all lie as anywhere
    for (const std::string& version : versions) {
        for (const rwkv_type type :
             {RWKV_TYPE_FP32, RWKV_TYPE_FP16, RWKV_TYPE_Q4_0, RWKV_TYPE_Q5_1, RWKV_TYPE_Q8_0}) {
            const tiny::File file(tiny::random_model(version, type, sizes));
            const std::string name =
                "by columns, version " + version + ", type " + std::to_string(type);
            test_levels_agree(file, true, name);
            for (const std::string& level : cut_levels()) {
                choose_level(level.c_str());
                const std::string where = at_level(name, level);
                test_short_sequence(file, where);
                if (version == "7" && type == RWKV_TYPE_Q5_1 && level != "reference") {
                    test_long_prompt(file, level == "amx" ? kWide : kExact, where);
                }
            }
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
        for (const std::string& level : cut_levels()) {
            choose_level(level.c_str());
            const std::string where = at_level(name, level);
            test_short_sequence(file, where);
            if (level != "reference") test_long_prompt(file, level == "amx" ? kWide : 1e-5, where);
        }
    }
}

// Low-rank matrices of another rank in each layer, the largest not in the first: buffers hold them.
void test_ranks_differ() {
    for (const char* version : {"6", "7"}) {
        tiny::Sizes small;
        small.n_vocab = 16;
        tiny::Sizes large = small;
        large.rank = 96;
        tiny::Model model = tiny::random_model(version, RWKV_TYPE_Q4_0, small);
        const tiny::Model other = tiny::random_model(version, RWKV_TYPE_Q4_0, large);
        for (tiny::Tensor& t : model.tensors) {
            if (t.name.rfind("blocks.1.", 0) != 0) continue;
            for (const tiny::Tensor& o : other.tensors) {
                if (o.name == t.name) t = o;
            }
        }
        const tiny::File file(model);
        test_levels_agree(file, true, std::string("ranks differ, version ") + version);
        for (const std::string& level : cut_levels()) {
            choose_level(level.c_str());
            test_short_sequence(file, at_level("ranks differ", level));
        }
        CHECK(unsetenv("RWKV_KERNELS") == 0);
    }
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

}  // namespace

int main() {
    std::vector<std::string> versions(std::begin(tiny::kVersions), std::end(tiny::kVersions));
    if (kBrief) versions = {"4", "6", "7"};  // one for each recurrence
    CHECK(unsetenv("RWKV_KERNELS") == 0 && unsetenv("RWKV_THREADS") == 0);
    test_free_in_any_order();
    test_concurrent_sessions();
    test_ranks_differ();
    test_odd_sizes(versions);
    test_small_heads(versions);
    test_columns(versions);
    test_mixed_types(versions);
    test_all_models(versions);
    return 0;
}
