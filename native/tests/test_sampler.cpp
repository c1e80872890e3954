// The sampler against a plain twin that sorts, and its promises: range checks, repeatability.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "kernels/registry.h"
#include "sampler.h"
#include "status.h"
#include "structs.h"

using rwkv::Failure;
using rwkv::Sampler;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

using Change = std::function<void(rwkv_sampler_options&)>;

rwkv_sampler_options options_with(const Change& change) {
    rwkv_sampler_options options = sampler_options();
    change(options);
    return options;
}

std::vector<float> random_logits(size_t n, float spread, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, spread);
    std::vector<float> logits(n);
    for (float& x : logits) x = normal(random);
    return logits;
}

// The distribution after steps 3 to 7 of rwkv_sampler_options, in double, by sorting.
std::vector<double> twin(const std::vector<float>& logits, const rwkv_sampler_options& o) {
    const size_t n = logits.size();
    std::vector<double> p(n);
    const double top = *std::max_element(logits.begin(), logits.end());
    for (size_t i = 0; i < n; ++i) p[i] = std::exp(logits[i] - top);
    const auto normalise = [&p] {
        const double sum = std::accumulate(p.begin(), p.end(), 0.0);
        for (double& x : p) x /= sum;
    };
    const auto sorted_by = [n](const std::vector<double>& key) {
        std::vector<size_t> order(n);
        std::iota(order.begin(), order.end(), size_t{0});
        std::stable_sort(order.begin(), order.end(),
                         [&key](size_t a, size_t b) { return key[a] < key[b]; });
        return order;
    };
    // Keeps those that come no later than where the sum reaches `share`, and their equals.
    const auto keep_share = [&](const std::vector<double>& key, double share) {
        double sum = 0, last = 0;
        for (const size_t i : sorted_by(key)) {
            sum += p[i];
            last = key[i];
            if (sum >= share) break;
        }
        for (size_t i = 0; i < n; ++i) {
            if (key[i] > last) p[i] = 0;
        }
        normalise();
    };
    const auto negative = [&p] {
        std::vector<double> key = p;
        for (double& x : key) x = -x;
        return key;
    };
    normalise();
    if (o.top_p < 1) keep_share(negative(), o.top_p);
    if (o.top_k > 0) {
        const std::vector<size_t> order = sorted_by(negative());
        for (size_t i = static_cast<size_t>(o.top_k); i < n; ++i) p[order[i]] = 0;
        normalise();
    }
    const double largest = *std::max_element(p.begin(), p.end());
    for (double& x : p) x = x < o.min_p * largest ? 0 : x;
    normalise();
    if (o.typical_p < 1) {
        double entropy = 0;
        for (const double x : p) entropy -= x > 0 ? x * std::log(x) : 0;
        std::vector<double> key = p;
        for (double& x : key) x = x > 0 ? std::fabs(-std::log(x) - entropy) : HUGE_VAL;
        keep_share(key, o.typical_p);
    }
    for (double& x : p) x = x > 0 ? std::pow(x, 1 / o.temperature) : 0;
    normalise();
    return p;
}

// The levels with functions of their own for the sampler; others have those of a level before them.
std::vector<const char*> levels_that_differ() {
    std::vector<const char*> names;
    std::vector<rwkv_kernels> tables;
    for (const char* const* name = rwkv::kernel_names(); *name != nullptr; ++name) {
        if (!rwkv::kernels_supported(*name)) continue;
        const rwkv_kernels k = rwkv::kernels_of(*name);
        const bool known = std::any_of(tables.begin(), tables.end(), [&k](const rwkv_kernels& t) {
            return t.largest == k.largest && t.exp_sum == k.exp_sum && t.keep_from == k.keep_from &&
                   t.split == k.split;
        });
        if (known) continue;
        names.push_back(*name);
        tables.push_back(k);
    }
    return names;
}

// Draws often and compares the frequencies with the twin's distribution.
void check_distribution(const std::vector<float>& logits, const rwkv_sampler_options& options) {
    constexpr int kDraws = kBrief ? 1000 : 5000;
    const std::vector<double> expected = twin(logits, options);
    Sampler sampler(logits.size(), options);
    std::vector<int> counts(logits.size());
    for (int i = 0; i < kDraws; ++i) ++counts[static_cast<size_t>(sampler.sample(logits.data()))];
    for (size_t i = 0; i < logits.size(); ++i) {
        if (expected[i] == 0) CHECK(counts[i] == 0);
        // Six standard deviations of a binomial count.
        const double deviation = std::sqrt(kDraws * expected[i] * (1 - expected[i]));
        CHECK_NEAR(counts[i], kDraws * expected[i], 6 * deviation + 1);
    }
}

void test_distributions() {
    const Change changes[] = {
        [](rwkv_sampler_options& o) { o.top_p = 1; },
        [](rwkv_sampler_options& o) { o.top_p = 0.85; },
        [](rwkv_sampler_options& o) { o.top_p = 0.3, o.temperature = 2; },
        [](rwkv_sampler_options& o) { o.top_p = 0.9, o.temperature = 0.7; },
        [](rwkv_sampler_options& o) { o.top_p = 1, o.top_k = 1; },
        [](rwkv_sampler_options& o) { o.top_p = 1, o.top_k = 7; },
        [](rwkv_sampler_options& o) { o.top_p = 0.8, o.top_k = 5, o.temperature = 1.5; },
        [](rwkv_sampler_options& o) { o.top_p = 1, o.min_p = 0.2; },
        [](rwkv_sampler_options& o) { o.top_p = 1, o.typical_p = 0.5; },
        [](rwkv_sampler_options& o) { o.top_p = 0.95, o.typical_p = 0.7, o.min_p = 0.01; },
    };
    unsigned seed = 0;
    for (const Change& change : changes) {
        for (const float spread : {0.1F, 1.0F, 4.0F}) {
            check_distribution(random_logits(50, spread, ++seed), options_with(change));
        }
    }
    // More than one block of tokens, and not a multiple of anything.
    check_distribution(random_logits(1237, 5, 99), options_with(changes[1]));
}

void test_greedy() {
    const std::vector<float> logits{1, 5, -2, 5, 4};
    for (const Change& change :
         {Change([](rwkv_sampler_options& o) { o.temperature = 0; }),
          Change([](rwkv_sampler_options& o) { o.top_k = 1, o.top_p = 1; })}) {
        Sampler sampler(5, options_with(change));
        for (int i = 0; i < 20; ++i) CHECK(sampler.sample(logits.data()) == 1);
    }
}

void test_ties() {
    const std::vector<float> logits(1000, 0.25F);
    Sampler top_k(1000, options_with([](rwkv_sampler_options& o) { o.top_k = 3, o.top_p = 1; }));
    Sampler top_p(1000, options_with([](rwkv_sampler_options& o) { o.top_p = 0; }));
    int32_t largest = 0;
    for (int i = 0; i < 500; ++i) {
        CHECK(top_k.sample(logits.data()) < 3);
        largest = std::max(largest, top_p.sample(logits.data()));
    }
    CHECK(largest > 900);  // all are as probable as the first, so all stay
}

// The tokens written down here were computed apart from this code, in Python, from the definitions
// of the steps and of SplitMix64.
void test_repeatable() {
    const std::vector<float> logits = random_logits(300, 2, 3);
    const auto draws = [&logits](Sampler& sampler) {
        std::vector<int32_t> tokens(50);
        for (int32_t& token : tokens) token = sampler.sample(logits.data());
        return tokens;
    };
    Sampler a(300, options_with([](rwkv_sampler_options& o) { o.seed = 42; }));
    Sampler b(300, options_with([](rwkv_sampler_options& o) { o.seed = 43; }));
    const std::vector<int32_t> first = draws(a);
    CHECK(first != draws(b));
    CHECK(first != draws(a));
    a.reset(42);
    CHECK(first == draws(a));

    std::vector<float> line(1000);
    for (size_t i = 0; i < line.size(); ++i) line[i] = static_cast<float>(i % 97) * 0.0625F;
    Sampler fixed(1000, options_with([](rwkv_sampler_options& o) {
                      o.seed = 1, o.top_p = 0.9, o.temperature = 1.25;
                  }));
    const int32_t expected[] = {575, 763, 964, 472, 472, 768, 868, 561, 288, 774, 452, 647,
                                475, 564, 469, 187, 666, 848, 675, 870, 90,  93,  484, 173};
    for (const int32_t token : expected) CHECK(fixed.sample(line.data()) == token);
}

struct Shape {
    const char* name;
    std::vector<float> logits;
};

// Logits of many kinds, as many as a large vocabulary has; some tokens are banned.
std::vector<Shape> shapes(size_t n) {
    std::vector<Shape> all = {
        {"flat", random_logits(n, 0.1F, 21)},    {"normal", random_logits(n, 1, 22)},
        {"wide", random_logits(n, 3, 23)},       {"peaked", random_logits(n, 2, 24)},
        {"Zipf", random_logits(n, 0.01F, 25)},   {"equal", std::vector<float>(n, 0.75F)},
        {"two values", random_logits(n, 1, 26)}, {"mostly banned", random_logits(n, 1, 27)}};
    for (size_t i = 0; i < 10; ++i) all[3].logits[i * n / 10] = 20 - 2 * static_cast<float>(i);
    for (size_t i = 0; i < n; ++i) {
        all[4].logits[i] -= std::log(static_cast<float>(1 + i * 7919 % n));
        all[6].logits[i] = all[6].logits[i] > 1 ? 1 : -2;
        if (i % 50 != 3) all[7].logits[i] = -kInfinity;
    }
    return all;
}

const Change kChanges[] = {
    [](rwkv_sampler_options& o) { o.temperature = 0; },
    [](rwkv_sampler_options& o) { o.top_p = 1; },
    [](rwkv_sampler_options& o) { o.top_p = 0; },
    [](rwkv_sampler_options& o) { o.top_p = 0.3, o.temperature = 2; },
    [](rwkv_sampler_options& o) { o.top_p = 0.9, o.temperature = 0.5; },
    [](rwkv_sampler_options& o) { o.top_p = 0.999999999; },
    [](rwkv_sampler_options& o) { o.top_p = 1, o.top_k = 40; },
    [](rwkv_sampler_options& o) { o.top_p = 0.8, o.top_k = 1000, o.temperature = 1.5; },
    [](rwkv_sampler_options& o) { o.top_p = 1, o.min_p = 0.1; },
    [](rwkv_sampler_options& o) { o.top_p = 1, o.typical_p = 0.9; },
    [](rwkv_sampler_options& o) { o.top_p = 0.9, o.typical_p = 0.4, o.temperature = 0.7; },
    [](rwkv_sampler_options& o) { o.mirostat_tau = 5, o.temperature = 0.8; },
};

void test_levels_agree() {
    const size_t n = kBrief ? 2011 : 20011;  // no multiple of anything
    for (const Shape& shape : shapes(n)) {
        for (const Change& change : kChanges) {
            std::vector<int32_t> expected;
            for (const char* name : levels_that_differ()) {
                Sampler sampler(n, options_with(change), rwkv::kernels_of(name));
                std::vector<int32_t> tokens;
                for (int i = 0; i < 20; ++i) {
                    tokens.push_back(sampler.sample(shape.logits.data()));
                    sampler.accept(tokens.back());
                }
                if (expected.empty()) expected = tokens;
                if (tokens != expected) std::fprintf(stderr, "%s, %s\n", name, shape.name);
                CHECK(tokens == expected);
            }
        }
    }
}

// A hash of many tokens (FNV-1a), drawn from logits that are whole numbers times 2^-12. The numbers
// written down here were recorded on x86-64, where all levels gave them, and on aarch64 under
// emulation: they change only if what a seed draws does.
void test_same_everywhere() {
    const size_t n = 50277;
    const uint64_t expected[] = {0xC71C7D54E3DDAAA2U, 0xB596058853B54299U, 0xA08FD33E8C92DC58U,
                                 0x85C37E841F654190U};
    const int32_t widths[] = {1, 8, 32, 0};  // of the sum of four random numbers in [-1024, 1023]
    const auto hash_of = [&](const std::vector<float>& logits, const char* level) {
        uint64_t hash = 0xCBF29CE484222325U;
        for (const Change& change : kChanges) {
            Sampler sampler(n, options_with([&](rwkv_sampler_options& o) {
                                o.seed = 7, o.presence_penalty = 0.3, o.frequency_penalty = 0.2;
                                o.repetition_penalty = 1.1;
                                change(o);
                            }),
                            rwkv::kernels_of(level));
            for (int i = 0; i < 20; ++i) {
                const int32_t token = sampler.sample(logits.data());
                sampler.accept(token);
                hash = (hash ^ static_cast<uint64_t>(token)) * 0x100000001B3U;
            }
        }
        return hash;
    };
    std::mt19937 random(11);  // whose numbers the standard fixes
    for (size_t shape = 0; shape < 4; ++shape) {
        std::vector<float> logits(n);
        for (float& x : logits) {
            int32_t sum = 0;
            for (int i = 0; i < 4; ++i) sum += static_cast<int32_t>(random() >> 21) - 1024;
            x = static_cast<float>(sum * widths[shape]) * 0x1p-12F;
        }
        if (kBrief && shape % 2 == 0) continue;
        for (const char* name : levels_that_differ()) {
            const uint64_t hash = hash_of(logits, name);
            if (hash != expected[shape]) {
                std::fprintf(stderr, "%s, shape %zu: 0x%016llX\n", name, shape,
                             static_cast<unsigned long long>(hash));
            }
            CHECK(hash == expected[shape]);
        }
    }
}

// Many tokens, few draws: nothing is drawn that the twin drops, and each part of the vocabulary is
// met as often as the twin says. Shares are sums of floats here, so a token at the border may stay
// or go.
void test_large_vocabularies() {
    const size_t n = 5003;
    for (const Shape& shape : shapes(n)) {
        for (const Change& change : kChanges) {
            const rwkv_sampler_options options = options_with(change);
            if (options.temperature == 0 || options.mirostat_tau > 0) continue;
            // What a little more, and a little less, than what is asked for keeps.
            const auto twin_with = [&](double step) {
                rwkv_sampler_options o = options;
                if (o.top_p < 1) o.top_p = std::min(1.0, std::max(0.0, o.top_p + step));
                if (o.typical_p < 1) o.typical_p += step;
                if (o.min_p > 0) o.min_p -= step / 10;
                return twin(shape.logits, o);
            };
            const std::vector<double> more = twin_with(1e-5), less = twin_with(-1e-5);
            Sampler sampler(n, options);
            std::vector<int> counts(n);
            constexpr int kDraws = kBrief ? 60 : 300;
            for (int i = 0; i < kDraws; ++i) {
                const auto token = static_cast<size_t>(sampler.sample(shape.logits.data()));
                if (!(more[token] > 0)) std::fprintf(stderr, "%s\n", shape.name);
                CHECK(more[token] > 0);
                ++counts[token];
            }
            for (size_t fifth = 0; fifth < 5; ++fifth) {
                double share = 0, drawn = 0;
                for (size_t i = fifth * n / 5; i < (fifth + 1) * n / 5; ++i) {
                    share += less[i];
                    drawn += counts[i];
                }
                const double deviation = std::sqrt(kDraws * share * std::max(0.0, 1 - share));
                CHECK_NEAR(drawn, kDraws * share, 5 * deviation + 1);
            }
        }
    }
}

// Temperatures at which weights overflow or vanish, unless they are taken from what is kept.
void test_extreme_temperatures() {
    const std::vector<float> logits = {0, 1, 30, 1.5F, -3e38F, -kInfinity, 3};
    for (const double temperature : {1e-300, 1e-40, 1e-3, 1e3, 1e6}) {
        Sampler all(7, options_with([&](auto& o) { o.top_p = 1, o.temperature = temperature; }));
        // The surprise of token 2 is 0, that of others 27 and more, its mean about 0.
        Sampler typical(7, options_with([&](auto& o) {
                            o.top_p = 1, o.typical_p = 0.99, o.temperature = temperature;
                        }));
        Sampler mirostat(
            7, options_with([&](auto& o) { o.mirostat_tau = 1, o.temperature = temperature; }));
        for (int i = 0; i < 50; ++i) {
            CHECK(temperature > 1 || all.sample(logits.data()) == 2);
            CHECK(all.sample(logits.data()) != 5);
            CHECK(typical.sample(logits.data()) == 2);
            CHECK(temperature > 1 || mirostat.sample(logits.data()) == 2);
            CHECK(mirostat.sample(logits.data()) != 5);
        }
    }
    // Neighbours among floats, and yet 80 temperatures and more apart.
    struct Far {
        float top, step;
        double temperature;
    };
    const float ulp_of_16 = 0x1p-19F;
    for (const Far& far : {Far{16 + 2 * ulp_of_16, ulp_of_16, 3.7e-8}, Far{0x1p28F + 160, 32, 1},
                           Far{0x1p28F + 160, 96, 1}, Far{0x1p28F + 160, 64, 0.8}}) {
        const std::vector<float> near = {far.top - far.step, far.top, far.top - 2 * far.step,
                                         far.top - 3 * far.step};
        for (const char* name : levels_that_differ()) {
            for (const double top_p : {0.85, 1.0}) {
                Sampler sampler(4, options_with([&](auto& o) {
                                    o.top_p = top_p, o.temperature = far.temperature;
                                }),
                                rwkv::kernels_of(name));
                for (int i = 0; i < 50; ++i) CHECK(sampler.sample(near.data()) == 1);
            }
        }
    }
    // Half are at the mean; the most probable token is not typical. Cold, and yet one is drawn.
    std::vector<float> skewed(1000, 0);
    skewed[7] = 5;
    Sampler cold(
        1000, options_with([](auto& o) { o.top_p = 1, o.typical_p = 0.5, o.temperature = 1e-3; }));
    for (int i = 0; i < 50; ++i) CHECK(cold.sample(skewed.data()) != 7);
}

void test_biases() {
    const std::vector<float> logits{0, 3, 2, 1};
    Sampler sampler(4, options_with([](rwkv_sampler_options& o) { o.temperature = 0; }));
    sampler.bias(1, -kInfinity);
    CHECK(sampler.sample(logits.data()) == 2);
    sampler.bias(0, 2.5F);
    CHECK(sampler.sample(logits.data()) == 0);
    sampler.bias(0, 1.5F);
    sampler.bias(1, 0);
    CHECK(sampler.sample(logits.data()) == 1);
    sampler.reset(0);
    sampler.bias(1, -kInfinity);
    sampler.bias(2, -kInfinity);
    CHECK(sampler.sample(logits.data()) == 0);  // 1.5 against 1: biases outlive a reset
}

void test_penalties() {
    const auto options = options_with([](rwkv_sampler_options& o) {
        o.temperature = 0;
        o.presence_penalty = 0.5;
        o.frequency_penalty = 1;
        o.penalty_decay = 0.5;
    });
    Sampler sampler(3, options);
    // Token 0 accepted once: 0.5 + 1 * 1 = 1.5. What remains is compared by a second token.
    const auto penalty_of_0_above = [&sampler](float penalty) {
        const float logits[] = {0, -penalty, -100};
        return sampler.sample(logits) == 1;
    };
    CHECK(!penalty_of_0_above(0.001F));
    sampler.accept(0);
    CHECK(penalty_of_0_above(1.499F) && !penalty_of_0_above(1.501F));
    sampler.accept(2);  // the count fades to 1/2: 0.5 + 0.5
    CHECK(penalty_of_0_above(0.999F) && !penalty_of_0_above(1.001F));
    sampler.accept(0);  // 1/4 + 1: 0.5 + 1.25
    CHECK(penalty_of_0_above(1.749F) && !penalty_of_0_above(1.751F));
    sampler.weigh(0, 0);
    sampler.accept(0);  // 5/8 + 0
    CHECK(penalty_of_0_above(1.124F) && !penalty_of_0_above(1.126F));
    sampler.reset(0);
    CHECK(!penalty_of_0_above(0.001F));
    sampler.accept(0);  // weight 0, yet present
    CHECK(penalty_of_0_above(0.499F) && !penalty_of_0_above(0.501F));
}

void test_repetition_penalty() {
    Sampler sampler(3, options_with([](rwkv_sampler_options& o) {
                        o.temperature = 0, o.repetition_penalty = 2;
                    }));
    const float positive[] = {4, 2.5F, 0}, negative[] = {-1, -1.5F, -9};
    CHECK(sampler.sample(positive) == 0 && sampler.sample(negative) == 0);
    sampler.accept(0);
    CHECK(sampler.sample(positive) == 1 && sampler.sample(negative) == 1);
}

// Follows mu beside the sampler: what is drawn was allowed, and its mean surprise settles at tau.
void test_mirostat() {
    const std::vector<float> logits = random_logits(2000, 2, 11);
    for (const double tau : {2.0, 4.0, 6.0}) {
        const auto options = options_with([tau](rwkv_sampler_options& o) {
            o.mirostat_tau = tau, o.mirostat_eta = 0.05, o.temperature = 1.2, o.top_p = 0.01;
        });
        const std::vector<double> p =
            twin(logits,
                 options_with([](rwkv_sampler_options& o) { o.temperature = 1.2, o.top_p = 1; }));
        const double largest = *std::max_element(p.begin(), p.end());
        Sampler sampler(2000, options);
        double mu = 2 * tau, mean = 0;
        constexpr int kDraws = 3000;
        for (int i = 0; i < kDraws; ++i) {
            const double drawn = p[static_cast<size_t>(sampler.sample(logits.data()))];
            const double least = std::min(largest, std::exp2(-mu));
            CHECK(drawn >= least * (1 - 1e-5));
            double kept = 0;
            for (const double x : p) kept += x >= least * (1 - 1e-9) ? x : 0;
            const double surprise = -std::log2(drawn / kept);
            mu -= options.mirostat_eta * (surprise - tau);
            mean += surprise / kDraws;
        }
        CHECK_NEAR(mean, tau, 0.05);
    }
}

// Rounding may find the sum of what is kept short of a share so near to 1; then many tokens of no
// weight are left to search.
void test_almost_all() {
    constexpr size_t kVocab = 50277;  // its arrays are padded
    std::vector<float> three_values(kVocab), far_apart = random_logits(kVocab, 30, 3);
    for (size_t i = 0; i < kVocab; ++i) three_values[i] = static_cast<float>(i % 3);
    std::vector<float> half_far(1000);
    for (size_t i = 0; i < half_far.size(); ++i) {
        half_far[i] = static_cast<float>(i % 3) - (i % 2 == 0 ? 120.0f : 0.0f);
    }
    for (const std::vector<float>& logits : {three_values, far_apart, half_far}) {
        const float top = *std::max_element(logits.begin(), logits.end());
        for (const double share : {0.99999998, 0.999999999, 0.999999999999}) {
            for (const bool typical : {false, true}) {
                const auto options = options_with([&](rwkv_sampler_options& o) {
                    (typical ? o.typical_p : o.top_p) = share;
                    o.temperature = 50;  // would draw a token of no weight, were one kept
                });
                Sampler sampler(logits.size(), options);
                for (int i = 0; i < 20; ++i) {
                    const int32_t token = sampler.sample(logits.data());
                    CHECK(logits[static_cast<size_t>(token)] >= top - 81);
                }
            }
        }
    }
}

void test_refusals() {
    const auto check_refused = [](const Change& change, const std::string& name) {
        try {
            Sampler sampler(10, options_with(change));
            CHECK(false);
        } catch (const Failure& failure) {
            CHECK(failure.status() == RWKV_STATUS_INVALID_ARGUMENT);
            CHECK(std::string(failure.what()).rfind(name + ": expected", 0) == 0);
        }
    };
    check_refused([](rwkv_sampler_options& o) { o.temperature = -1; }, "temperature");
    check_refused([](rwkv_sampler_options& o) { o.temperature = NAN; }, "temperature");
    check_refused([](rwkv_sampler_options& o) { o.top_p = 1.5; }, "top_p");
    check_refused([](rwkv_sampler_options& o) { o.top_p = NAN; }, "top_p");
    check_refused([](rwkv_sampler_options& o) { o.top_k = -1; }, "top_k");
    check_refused([](rwkv_sampler_options& o) { o.min_p = -0.1; }, "min_p");
    check_refused([](rwkv_sampler_options& o) { o.typical_p = 2; }, "typical_p");
    check_refused([](rwkv_sampler_options& o) { o.repetition_penalty = 0; }, "repetition_penalty");
    check_refused([](rwkv_sampler_options& o) { o.presence_penalty = INFINITY; },
                  "presence_penalty");
    check_refused([](rwkv_sampler_options& o) { o.frequency_penalty = NAN; }, "frequency_penalty");
    check_refused([](rwkv_sampler_options& o) { o.penalty_decay = 1.01; }, "penalty_decay");
    check_refused([](rwkv_sampler_options& o) { o.mirostat_tau = -1; }, "mirostat_tau");
    check_refused([](rwkv_sampler_options& o) { o.mirostat_eta = INFINITY; }, "mirostat_eta");
    // Finite, but so large that what is computed from them would not be.
    check_refused([](rwkv_sampler_options& o) { o.temperature = 1e308; }, "temperature");
    check_refused([](rwkv_sampler_options& o) { o.repetition_penalty = 1e-308; },
                  "repetition_penalty");
    check_refused([](rwkv_sampler_options& o) { o.repetition_penalty = 1e308; },
                  "repetition_penalty");
    check_refused([](rwkv_sampler_options& o) { o.presence_penalty = -1e308; }, "presence_penalty");
    check_refused([](rwkv_sampler_options& o) { o.frequency_penalty = 1e308; },
                  "frequency_penalty");
    check_refused([](rwkv_sampler_options& o) { o.mirostat_tau = 1e308; }, "mirostat_tau");
    check_refused([](rwkv_sampler_options& o) { o.mirostat_eta = 1e308; }, "mirostat_eta");
    for (const size_t n_vocab : {size_t{0}, (size_t{1} << 24) + 1, SIZE_MAX}) {
        try {
            Sampler sampler(n_vocab, options_with([](rwkv_sampler_options&) {}));
            CHECK(false);
        } catch (const Failure& failure) {
            CHECK(std::string(failure.what()).rfind("n_vocab: expected", 0) == 0);
        }
    }
}

// Settings at their bounds, all together and one by one, with logits that are as far apart as
// floats are: whatever comes is a token that may be drawn.
void test_bounds_of_settings() {
    constexpr float kMost = std::numeric_limits<float>::max();
    std::vector<std::vector<float>> all_logits = {
        std::vector<float>(1000, 0.0f), std::vector<float>(1000, kMost),
        std::vector<float>(1000, -kMost), random_logits(1000, 3, 5),
        std::vector<float>(1000, -kInfinity)};
    all_logits[0][7] = 60;
    all_logits[1][7] = -kMost;
    all_logits[4][7] = all_logits[4][500] = -kMost;
    all_logits.push_back(random_logits(1000, 3, 6));
    for (size_t i = 0; i < 1000; ++i) all_logits[5][i] *= i % 2 == 0 ? 1e37f : 1e-38f;
    const Change extremes[] = {
        [](rwkv_sampler_options& o) { o.temperature = 1e6; },
        [](rwkv_sampler_options& o) { o.temperature = 5e-324; },
        [](rwkv_sampler_options& o) { o.temperature = 0; },
        [](rwkv_sampler_options& o) { o.top_p = 5e-324; },
        [](rwkv_sampler_options& o) { o.top_p = 1, o.typical_p = 5e-324; },
        [](rwkv_sampler_options& o) { o.top_p = 1, o.min_p = 5e-324; },
        [](rwkv_sampler_options& o) { o.min_p = 1, o.typical_p = 0; },
        [](rwkv_sampler_options& o) { o.repetition_penalty = 1e6; },
        [](rwkv_sampler_options& o) { o.repetition_penalty = 1e-6; },
        [](rwkv_sampler_options& o) { o.presence_penalty = o.frequency_penalty = 1e6; },
        [](rwkv_sampler_options& o) { o.presence_penalty = o.frequency_penalty = -1e6; },
        [](rwkv_sampler_options& o) { o.mirostat_tau = 1e3, o.mirostat_eta = 1e3; },
        [](rwkv_sampler_options& o) { o.mirostat_tau = 5e-324, o.mirostat_eta = 1e3; },
        [](rwkv_sampler_options& o) { o.mirostat_tau = 5, o.mirostat_eta = 1e3; },
    };
    constexpr size_t kExtremes = sizeof extremes / sizeof *extremes;
    for (size_t a = 0; a < kExtremes; ++a) {
        for (size_t b = 0; b < kExtremes; ++b) {
            Sampler sampler(1000, options_with([&](rwkv_sampler_options& o) {
                                o.penalty_decay = 1;
                                o.seed = a * kExtremes + b;
                                extremes[a](o);
                                extremes[b](o);
                            }));
            sampler.bias(1, kMost);
            sampler.bias(2, -kMost);
            sampler.bias(3, -kInfinity);
            sampler.weigh(7, 1e6);
            sampler.weigh(8, -1e6);
            for (int i = 0; i < 30; ++i) {
                const std::vector<float>& logits = all_logits[static_cast<size_t>(i) % 6];
                const int32_t token = sampler.sample(logits.data());
                CHECK(token >= 0 && token < 1000 && token != 3);
                CHECK(logits[static_cast<size_t>(token)] > -kInfinity);
                sampler.accept(token);
                sampler.accept(7 + i % 2);
            }
        }
    }
}

// After reset(seed) a sampler draws what a new one with this seed draws: the random numbers, the
// tokens accepted and mirostat's mu begin anew.
void test_reset() {
    const std::vector<float> logits = random_logits(500, 2, 12);
    for (const bool mirostat : {false, true}) {
        const auto options = options_with([&](rwkv_sampler_options& o) {
            o.mirostat_tau = mirostat ? 3 : 0;
            o.mirostat_eta = 0.5;
            o.frequency_penalty = 0.5;
            o.seed = 5;
        });
        const auto draw = [&](Sampler& sampler) {
            std::vector<int32_t> tokens;
            for (int i = 0; i < 60; ++i) {
                tokens.push_back(sampler.sample(logits.data()));
                sampler.accept(tokens.back());
            }
            return tokens;
        };
        Sampler sampler(500, options);
        const std::vector<int32_t> first = draw(sampler);
        CHECK(draw(sampler) != first);
        sampler.reset(5);
        CHECK(draw(sampler) == first);
    }
}

// RWKV_KERNELS is read once, with the first sampler: changed later it changes nothing.
void test_environment_is_read_once() {
    const char* name = rwkv::sampler_kernels().name;
    CHECK(setenv("RWKV_KERNELS", "no such level", 1) == 0);
    Sampler sampler(10, options_with([](rwkv_sampler_options&) {}));
    CHECK(rwkv::sampler_kernels().name == name);
    CHECK(unsetenv("RWKV_KERNELS") == 0);
}

void test_null() {
    rwkv_sampler_reset(nullptr, 1);
    rwkv_sampler_free(nullptr);
    int32_t token = 0;
    const float logits[] = {0};
    CHECK(rwkv_sampler_sample(nullptr, logits, &token) == RWKV_STATUS_INVALID_ARGUMENT);
    CHECK(rwkv_sampler_accept(nullptr, 0) == RWKV_STATUS_INVALID_ARGUMENT);
    CHECK(rwkv_sampler_bias(nullptr, 0, 1) == RWKV_STATUS_INVALID_ARGUMENT);
    CHECK(rwkv_sampler_weigh(nullptr, 0, 1) == RWKV_STATUS_INVALID_ARGUMENT);
    CHECK(std::string(rwkv_error_message()) == "sampler: expected a sampler, got NULL");
}

void test_c_api() {
    rwkv_sampler* sampler = nullptr;
    CHECK(rwkv_sampler_create(0, nullptr, &sampler) == RWKV_STATUS_INVALID_ARGUMENT);
    rwkv_sampler_options options{};
    CHECK(rwkv_sampler_create(4, &options, &sampler) == RWKV_STATUS_INVALID_ARGUMENT);
    CHECK(rwkv_sampler_create(4, nullptr, nullptr) == RWKV_STATUS_INVALID_ARGUMENT);
    CHECK(sampler == nullptr);
    CHECK(rwkv_sampler_create(4, nullptr, &sampler) == RWKV_STATUS_OK);

    int32_t token = -7;
    const float not_a_number[] = {0, NAN, 0, 0}, infinite[] = {0, kInfinity, 0, 0};
    const float none[] = {-kInfinity, -kInfinity, -kInfinity, -kInfinity};
    for (const float* logits : {not_a_number, infinite, none}) {
        CHECK(rwkv_sampler_sample(sampler, logits, &token) == RWKV_STATUS_INVALID_ARGUMENT);
    }
    CHECK(rwkv_sampler_sample(sampler, nullptr, &token) == RWKV_STATUS_INVALID_ARGUMENT);
    CHECK(token == -7);
    const float one[] = {-kInfinity, -kInfinity, 1, -kInfinity};
    CHECK(rwkv_sampler_sample(sampler, one, &token) == RWKV_STATUS_OK && token == 2);

    for (const int32_t bad : {-1, 4}) {
        CHECK(rwkv_sampler_accept(sampler, bad) == RWKV_STATUS_TOKEN_OUT_OF_RANGE);
        CHECK(rwkv_sampler_bias(sampler, bad, 1) == RWKV_STATUS_TOKEN_OUT_OF_RANGE);
        CHECK(rwkv_sampler_weigh(sampler, bad, 1) == RWKV_STATUS_TOKEN_OUT_OF_RANGE);
    }
    CHECK(rwkv_sampler_bias(sampler, 0, NAN) == RWKV_STATUS_INVALID_ARGUMENT);
    CHECK(rwkv_sampler_bias(sampler, 0, kInfinity) == RWKV_STATUS_INVALID_ARGUMENT);
    CHECK(rwkv_sampler_weigh(sampler, 0, NAN) == RWKV_STATUS_INVALID_ARGUMENT);
    CHECK(rwkv_sampler_accept(sampler, 3) == RWKV_STATUS_OK);
    rwkv_sampler_reset(sampler, 1);
    rwkv_sampler_free(sampler);
    rwkv_sampler_free(nullptr);
}

}  // namespace

int main() {
    test_distributions();
    test_greedy();
    test_ties();
    test_repeatable();
    test_levels_agree();
    test_same_everywhere();
    test_large_vocabularies();
    test_extreme_temperatures();
    test_biases();
    test_penalties();
    test_repetition_penalty();
    test_mirostat();
    test_almost_all();
    test_refusals();
    test_bounds_of_settings();
    test_reset();
    test_environment_is_read_once();
    test_null();
    test_c_api();
    return 0;
}
