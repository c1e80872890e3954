// Every kernel but the products of matrices, of every level that this machine supports, against the
// reference level: on all lengths around the vector widths, unaligned arrays, and extreme values.
// Comparisons are element by element.
#include <algorithm>
#include <limits>

#include "kernel_cases.h"

using namespace rwkv;

namespace {

// ---- element-wise

using Unary = void (*)(const float*, size_t, float*);

void test_unary(const rwkv_kernels& ref, const rwkv_kernels& k) {
    struct {
        const char* name;
        Unary rwkv_kernels::*op;
        float low, high;
        double scale;  // exp(-exp(x)) magnifies a rounding of the inner exp
    } const ops[] = {
        {"sigmoid", &rwkv_kernels::sigmoid, -30, 30, 1e-30},
        {"tanh", &rwkv_kernels::tanh, -12, 12, 1e-30},
        {"silu", &rwkv_kernels::silu, -30, 30, 1e-30},
        {"relu2", &rwkv_kernels::relu2, -5, 5, 1e-30},
        {"decay_v6", &rwkv_kernels::decay_v6, -10, 4, 1.0},
        {"tanh small", &rwkv_kernels::tanh, -0.7f, 0.7f, 1e-30},
    };
    for (const auto& op : ops) {
        for (const size_t n : kLengths) {
            std::vector<float> x = floats(n, op.low, op.high);
            std::vector<float> expected(n), got(n + 1, 77.0f);
            (ref.*op.op)(x.data(), n, expected.data());
            (k.*op.op)(x.data(), n, got.data());
            named(op.name, k, n).near(got, expected, 1e-6, op.scale);
            CHECK(got[n] == 77.0f);             // nothing beyond n is written
            (k.*op.op)(x.data(), n, x.data());  // in place
            named(op.name, k, n).near(x, expected, 1e-6, op.scale);
        }
        const float infinity = std::numeric_limits<float>::infinity();
        std::vector<float> x = {0.0f,   -0.0f,    200.0f,    -200.0f,       88.8f,
                                -88.8f, infinity, -infinity, std::nanf(""), 1e-20f};
        std::vector<float> expected(x.size()), got(x.size());
        (ref.*op.op)(x.data(), x.size(), expected.data());
        (k.*op.op)(x.data(), x.size(), got.data());
        // Results below the smallest normal number may be flushed to zero.
        named(op.name, k, 0).near(got, expected, 1e-6, 1.2e-32);
    }
}

void test_elementwise(const rwkv_kernels& ref, const rwkv_kernels& k) {
    for (const size_t n : kLengths) {
        // One float off the start of the vector, so that nothing is aligned.
        const std::vector<float> a = floats(n + 1, -3, 3), b = floats(n + 1, -3, 3),
                                 c = floats(n + 1, -1, 1);
        const float *x = a.data() + 1, *z = b.data() + 1, *m = c.data() + 1;
        const std::vector<float> start(m, m + n);
        const auto check = [&](const char* op, auto&& call) {
            std::vector<float> expected = start, got = start;
            call(ref, expected.data());
            call(k, got.data());
            // The terms are of size 10 at most.
            named(op, k, n).near(got, expected, 1e-6, 10.0);
        };
        check("lerp", [&](auto& t, float* y) { t.lerp(x, z, m, n, y); });
        check("add", [&](auto& t, float* y) { t.add(x, z, n, y); });
        check("mul", [&](auto& t, float* y) { t.mul(x, z, n, y); });
        check("add_mul", [&](auto& t, float* y) { t.add_mul(x, z, n, y); });
        check("layer_norm", [&](auto& t, float* y) { t.layer_norm(x, z, m, 1e-5f, n, y); });
    }
}

// ---- version 7's heads

void test_heads_v7(const rwkv_kernels& ref, const rwkv_kernels& k) {
    for (const size_t n : kLengths) {
        for (const bool first_layer : {false, true}) {
            std::vector<std::vector<float>> p, rows;
            for (int i = 0; i < 8; ++i) p.push_back(floats(n, -1.5f, 1.5f));
            for (int i = 0; i < 11; ++i) rows.push_back(floats(n, -2, 2));
            const rwkv_weights_v7 weights = {
                p[0].data(), p[1].data(), first_layer ? nullptr : p[2].data(),
                p[3].data(), p[4].data(), p[5].data(),
                p[6].data(), p[7].data(), 64e-5f};
            std::vector<std::vector<float>> expected = rows, got = rows;
            const auto run = [&](const rwkv_kernels& t, std::vector<std::vector<float>>& b) {
                const rwkv_head_v7 head = {b[0].data(), b[1].data(), b[2].data(), b[3].data(),
                                           b[4].data(), b[5].data(), b[6].data(), b[7].data(),
                                           b[8].data(), b[9].data(), b[10].data()};
                t.before_wkv7(&weights, &head, n);
                t.after_wkv7(&weights, &head, n);
            };
            run(ref, expected);
            run(k, got);
            for (size_t i = 0; i < rows.size(); ++i) {
                // Terms are of size 30 at most; the bonus adds n of them.
                named(("wkv7 row " + std::to_string(i)).c_str(), k, n)
                    .near(got[i], expected[i], 1e-6, 30.0 + std::sqrt(static_cast<double>(n)));
            }
        }
    }
}

// ---- recurrences

void test_wkv(const rwkv_kernels& ref, const rwkv_kernels& k) {
    for (const size_t n : {size_t{1}, size_t{5}, size_t{8}, size_t{16}, size_t{24}, size_t{32},
                           size_t{40}, size_t{64}, size_t{65}, size_t{128}}) {
        for (const size_t n_tokens : {size_t{1}, size_t{2}, size_t{3}, size_t{8}, size_t{33}}) {
            const size_t ld = n + 7, size = n_tokens * ld;
            const std::vector<float> r = floats(size, -1, 1), key = floats(size, -1, 1),
                                     v = floats(size, -1, 1), w = floats(size, 0.5, 1),
                                     u = floats(n, -1, 1), kappa = floats(size, -0.3f, 0.3f),
                                     lr = floats(size, 0, 0.3f);
            const std::vector<float> S = floats(n * n, -1, 1);
            const auto check = [&](const char* op, const std::vector<float>& state, auto&& call) {
                std::vector<float> y1(size, 3.0f), y2 = y1, S1 = state, S2 = state;
                call(ref, S1.data(), S1.data(), y1.data());
                call(k, S2.data(), S2.data(), y2.data());
                const Case c = named(op, k, n);
                c.near(y2, y1, 1e-5, std::sqrt(static_cast<double>(n)));
                c.near(S2, S1, 1e-5, 1.0);
                // Token by token gives the same bits as a chunk.
                std::vector<float> S3 = state, y3(size, 3.0f);
                for (size_t t = 0; t < n_tokens; ++t) call(k, S3.data(), S3.data(), y3.data(), t);
                CHECK(std::memcmp(S3.data(), S2.data(), S2.size() * sizeof(float)) == 0);
                CHECK(std::memcmp(y3.data(), y2.data(), y2.size() * sizeof(float)) == 0);
                // Elsewhere, too, and whether y is wanted or not.
                for (const rwkv_kernels* t : {&ref, &k}) {
                    const std::vector<float>& after = t == &ref ? S1 : S2;
                    for (const bool wanted : {true, false}) {
                        std::vector<float> S4(state.begin(), state.end()), S5(state.size(), 5.0f);
                        std::vector<float> y4(size, 3.0f);
                        call(*t, S4.data(), S5.data(), wanted ? y4.data() : nullptr);
                        CHECK(S4 == state);
                        CHECK(std::memcmp(S5.data(), after.data(), S5.size() * sizeof(float)) == 0);
                        CHECK(!wanted || y4 == (t == &ref ? y1 : y2));
                    }
                }
            };
            // A last argument picks one token.
            struct Span {
                size_t first, count;
            };
            const auto span = [&](auto... t) {
                const size_t all[] = {0, static_cast<size_t>(t)...};
                return sizeof...(t) ? Span{all[sizeof...(t)] * ld, 1} : Span{0, n_tokens};
            };
            const auto at_token = [](float* y, size_t at) { return y == nullptr ? y : y + at; };
            check("wkv5", S, [&](auto& t, const float* s, float* after, float* y, auto... one) {
                const auto [at, count] = span(one...);
                t.wkv5(count, ld, n, y ? &r[at] : nullptr, &key[at], &v[at], y ? u.data() : nullptr,
                       &w[at], ld, s, after, at_token(y, at));
            });
            check("wkv5 fixed", S,
                  [&](auto& t, const float* s, float* after, float* y, auto... one) {
                      const auto [at, count] = span(one...);
                      t.wkv5(count, ld, n, &r[at], &key[at], &v[at], u.data(), w.data(), 0, s,
                             after, at_token(y, at));
                  });
            check("wkv7", S, [&](auto& t, const float* s, float* after, float* y, auto... one) {
                const auto [at, count] = span(one...);
                t.wkv7(count, ld, n, y ? &r[at] : nullptr, &w[at], &key[at], &v[at], &kappa[at],
                       &lr[at], s, after, at_token(y, at));
            });
            std::vector<float> fresh(3 * n, 0.0f);
            std::fill_n(fresh.begin() + static_cast<ptrdiff_t>(2 * n), n, -1e30f);
            const std::vector<float> decay = floats(n, -3, -0.01f);
            for (const std::vector<float>& start : {fresh, floats(3 * n, 0.5, 2)}) {
                check("wkv4", start,
                      [&](auto& t, const float* s, float* after, float* y, auto... one) {
                          const auto [at, count] = span(one...);
                          t.wkv4(count, ld, n, y ? u.data() : nullptr, decay.data(), &key[at],
                                 &v[at], s, n, after, n, at_token(y, at));
                      });
            }
            // aa, bb and pp lie elsewhere, and not as far apart.
            std::vector<float> apart(3 * (n + 9)), together = fresh;
            for (size_t i = 0; i < 3 * n; ++i) apart[i / n * (n + 9) + i % n] = fresh[i];
            std::vector<float> y5(size), y6(size);
            k.wkv4(n_tokens, ld, n, u.data(), decay.data(), key.data(), v.data(), apart.data(),
                   n + 9, together.data(), n, y5.data());
            k.wkv4(n_tokens, ld, n, u.data(), decay.data(), key.data(), v.data(), fresh.data(), n,
                   fresh.data(), n, y6.data());
            CHECK(together == fresh && y5 == y6);
        }
    }
}

void test_transpose(const rwkv_kernels& k) {
    for (const size_t n : {size_t{1}, size_t{3}, size_t{4}, size_t{8}, size_t{12}, size_t{16},
                           size_t{60}, size_t{64}, size_t{65}, size_t{128}}) {
        const std::vector<float> from = floats(n * n, -1, 1);
        std::vector<float> to(n * n, 7.0f), in_place = from;
        k.transpose(from.data(), to.data(), n);
        k.transpose(in_place.data(), in_place.data(), n);
        const Case c = named("transpose", k, n);
        for (size_t i = 0; i < n * n; ++i) {
            c.near(i, to[i], from[i % n * n + i / n], 0.0);
            c.near(i, in_place[i], to[i], 0.0);
        }
    }
}

// Any number of floats to any place, and nothing beside it.
void test_stream(const rwkv_kernels& k) {
    const std::vector<float> from = floats(300, -1, 1);
    for (const size_t n : {size_t{0}, size_t{1}, size_t{8}, size_t{12}, size_t{64}, size_t{256}}) {
        for (size_t at = 0; at < 20; ++at) {
            std::vector<float> to(300, 7.0f);
            k.stream(from.data() + at % 3, to.data() + at, n);
            k.end_streams();
            const Case c = named("stream", k, n);
            for (size_t i = 0; i < to.size(); ++i) {
                const bool inside = i >= at && i < at + n;
                c.near(i, to[i], inside ? from[at % 3 + i - at] : 7.0, 0.0);
            }
        }
    }
}

// ---- the sampler's: the same bits at every level

bool same_bits(const std::vector<float>& a, const std::vector<float>& b, size_t n) {
    return std::memcmp(a.data(), b.data(), n * sizeof(float)) == 0;
}

void test_largest(const rwkv_kernels& k) {
    const float infinity = std::numeric_limits<float>::infinity();
    for (const size_t n : {size_t{16}, size_t{32}, size_t{48}, size_t{256}}) {
        std::vector<float> x = floats(n, -9, 3);
        CHECK(k.largest(x.data(), n) == *std::max_element(x.begin(), x.end()));
        std::fill(x.begin(), x.end(), -infinity);
        CHECK(k.largest(x.data(), n) == -infinity);
        for (size_t i = 0; i < n; ++i) {
            x[i] = -1e30f;
            CHECK(k.largest(x.data(), n) == -1e30f);
            for (const float bad : {infinity, std::nanf(""), -std::nanf("")}) {
                x[i] = bad;
                CHECK(std::isnan(k.largest(x.data(), n)));
            }
            x[i] = -infinity;
        }
    }
}

void test_exp_sum(const rwkv_kernels& ref, const rwkv_kernels& k) {
    const float infinity = std::numeric_limits<float>::infinity();
    for (const size_t n : {size_t{16}, size_t{32}, size_t{80}, size_t{256}, size_t{4096}}) {
        for (const float scale : {1.0f, 0.5f, 1.25f, 3.0f}) {
            std::vector<float> x = floats(n, -40, 5);
            const float top = 4.0f, low = top - 80 / scale;
            for (size_t i = 0; i < n; i += 7) x[i] = i % 2 ? -infinity : top - 1e-3f * x[i] * x[i];
            x[1] = low;
            x[2] = top;
            x[3] = -3e38f;
            std::vector<float> expected(n), got(n);
            const float expected_sum =
                ref.exp_sum(x.data(), n, top, scale, low, top, expected.data());
            const float sum = k.exp_sum(x.data(), n, top, scale, low, top, got.data());
            CHECK(same_bits(got, expected, n) && same_bits({sum}, {expected_sum}, 1));
            double total = 0;
            for (size_t i = 0; i < n; ++i) {
                const bool in = x[i] >= low && x[i] <= top;
                const double e = in ? std::exp(double{(x[i] - top) * scale}) : 0;
                named("exp_sum", k, n).near(i, got[i], e, 3e-7 * e);
                total += e;
            }
            CHECK_NEAR(sum, total, total * 6e-8 * (5 + static_cast<double>(n) / 16));
            CHECK(got[2] == 1.0f && got[1] > 0 && got[3] == 0);
        }
    }
}

void test_keep_from(const rwkv_kernels& ref, const rwkv_kernels& k) {
    const float infinity = std::numeric_limits<float>::infinity();
    for (const size_t n : {size_t{16}, size_t{32}, size_t{80}, size_t{256}, size_t{4096}}) {
        for (const float low : {-infinity, -20.0f, 3.0f, 5.0f}) {
            std::vector<float> x = floats(n, -40, 4), w = floats(n, 0, 1);
            for (size_t i = 0; i < n; i += 7) x[i] = i % 2 ? -infinity : std::max(low, -20.0f);
            for (size_t i = 0; i < n; i += 5) w[i] = 0;
            for (size_t i = 0; i < n; ++i) w[i] = x[i] == -infinity ? 0 : w[i];
            const float top = 4.0f;
            std::vector<float> expected = w, got = w, expected_sums(2), sums(2);
            ref.keep_from(low, x.data(), n, top, expected.data(), expected_sums.data());
            k.keep_from(low, x.data(), n, top, got.data(), sums.data());
            CHECK(same_bits(got, expected, n) && same_bits(sums, expected_sums, 2));
            double sum = 0, sum_of_products = 0;
            for (size_t i = 0; i < n; ++i) {
                CHECK(got[i] == (x[i] < low ? 0 : w[i]));
                sum += double{got[i]};
                if (got[i] > 0) sum_of_products += double{got[i]} * (double{x[i]} - top);
            }
            const double tolerance = 6e-8 * (6 + static_cast<double>(n) / 16);
            CHECK_NEAR(sums[0], sum, sum * tolerance);
            CHECK_NEAR(sums[1], sum_of_products, std::fabs(sum_of_products) * tolerance);
        }
    }
}

void test_split(const rwkv_kernels& ref, const rwkv_kernels& k) {
    const float infinity = std::numeric_limits<float>::infinity();
    for (const size_t n : {size_t{16}, size_t{32}, size_t{80}, size_t{256}, size_t{4096}}) {
        std::vector<float> x = floats(n, -2, 2), w = floats(n, 0, 1);
        for (size_t i = 3; i < n; i += 5) x[i] = std::nearbyint(x[i]);  // equal to the bounds
        x[0] = -infinity;
        const float bounds[][2] = {{-infinity, infinity}, {-1, 1},          {0, 0},
                                   {1.5f, 1.25f},         {0.5f, infinity}, {-infinity, -0.5f}};
        const float zero = 0, middle = 0.75f;
        const float* const middles[] = {nullptr, &zero, &middle};
        for (size_t round = 0; round < std::size(bounds) * std::size(middles); ++round) {
            const auto [low, high] = bounds[round / std::size(middles)];
            const float* m = middles[round % std::size(middles)];
            std::vector<float> x1(n + 16), w1(n + 16), x2(n + 16), w2(n + 16);
            std::vector<float> sums1(2), sums2(2);
            const size_t expected =
                ref.split(x.data(), w.data(), n, m, low, high, x1.data(), w1.data(), sums1.data());
            const size_t got =
                k.split(x.data(), w.data(), n, m, low, high, x2.data(), w2.data(), sums2.data());
            CHECK(got == expected && same_bits(x1, x2, got) && same_bits(w1, w2, got));
            CHECK(same_bits(sums1, sums2, 2));
            size_t count = 0;
            double above = 0, within = 0;
            for (size_t i = 0; i < n; ++i) {
                const float key = m == nullptr ? x[i] : -std::fabs(x[i] - *m);
                if (key > high) above += w[i];
                if (key < low || key > high) continue;
                within += w[i];
                CHECK(x2[count] == x[i] && w2[count] == w[i]);
                ++count;
            }
            CHECK(count == got);
            CHECK_NEAR(sums2[0], above, above * 1e-6 * (1 + static_cast<double>(n) / 256));
            CHECK_NEAR(sums2[1], within, within * 1e-6 * (1 + static_cast<double>(n) / 256));
        }
    }
}

void test_level(const rwkv_kernels& reference, const rwkv_kernels& k) {
    test_unary(reference, k);
    test_elementwise(reference, k);
    test_heads_v7(reference, k);
    test_wkv(reference, k);
    test_transpose(k);
    test_stream(k);
    test_largest(k);
    test_exp_sum(reference, k);
    test_keep_from(reference, k);
    test_split(reference, k);
}

}  // namespace

int main() {
    for_each_level(test_level);
    return 0;
}
