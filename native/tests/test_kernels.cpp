// Every kernel of every level that this machine supports, against the reference level: on all
// lengths around the vector widths, unaligned arrays, and extreme values. Comparisons are element
// by element.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "block_types.h"
#include "check.h"
#include "kernels/packing.h"
#include "kernels/registry.h"
#include "random_blocks.h"

using namespace rwkv;

namespace {

// The same numbers in every run.
uint32_t random_bits() {
    static std::mt19937 generator(7);
    return static_cast<uint32_t>(generator());
}

std::vector<float> floats(size_t n, float low, float high) {
    std::vector<float> v(n);
    for (float& x : v) {
        x = low + (high - low) * static_cast<float>(random_bits()) * 0x1p-32f;
    }
    return v;
}

// Prints where a value is off, in the manner "wkv7/avx2/n=65".
struct Case {
    std::string name;

    void near(size_t i, double got, double expected, double tolerance) const {
        if (std::isnan(got) && std::isnan(expected)) return;
        if (got == expected || std::fabs(got - expected) <= tolerance) return;
        std::fprintf(stderr, "%s: element %zu is %.9g, expected %.9g within %g\n", name.c_str(), i,
                     got, expected, tolerance);
        std::exit(1);
    }

    // Each element to `relative` of its own size or of `scale`, the size of the terms added in it.
    void near(const std::vector<float>& got, const std::vector<float>& expected, double relative,
              double scale) const {
        for (size_t i = 0; i < expected.size(); ++i) {
            near(i, got[i], expected[i], relative * (std::fabs(expected[i]) + scale));
        }
    }
};

Case named(const char* op, const rwkv_kernels& k, size_t n) {
    return {std::string(op) + "/" + k.name + "/n=" + std::to_string(n)};
}

const size_t kLengths[] = {1,  2,  3,  7,  8,  9,  15, 16,  17,  31,  32,  33,
                           47, 48, 63, 64, 65, 96, 97, 128, 255, 256, 1000};

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

// ---- quantisation of activations: exact

void test_quantize(const rwkv_kernels& ref, const rwkv_kernels& k) {
    std::vector<float> x = floats(32 * 40, -2, 2);
    const auto block = [&](size_t b) { return x.data() + 32 * b; };
    std::fill_n(block(0), 32, 0.0f);
    std::fill_n(block(1), 32, 1e-42f);     // 127 / amax overflows
    std::fill_n(block(2), 32, 3.74e-37f);  // just does not
    block(3)[5] = std::nanf("");
    block(4)[31] = std::numeric_limits<float>::infinity();
    block(5)[0] = -std::numeric_limits<float>::infinity();
    block(6)[7] = 3e38f;
    std::fill_n(block(7), 32, -0.0f);
    for (int j = 0; j < 32; ++j) block(8)[j] = (static_cast<float>(j) - 15.5f);  // ties: amax 16.5
    for (int j = 0; j < 32; ++j) block(9)[j] = static_cast<float>(j % 2 ? 127 : j) + 0.5f;
    block(10)[16] = -1000.0f;
    const size_t n = x.size();
    const size_t stride = 3;
    const rwkv_q8 untouched = {9.0f, 9.0f, 9, {9, 9}, {9}};
    std::vector<rwkv_q8> expected(n / 32 * stride, untouched), got = expected;
    const auto same = [&](size_t first) {
        for (size_t i = 0; i < got.size(); ++i) {
            const Case c = named("quantize", k, 1000 * first + i);
            c.near(i, got[i].d, expected[i].d, 0.0);
            c.near(i, got[i].s, expected[i].s, 0.0);
            CHECK(got[i].minus_8_sum == expected[i].minus_8_sum);
            CHECK(std::memcmp(got[i].minus_8_sums, expected[i].minus_8_sums, 4) == 0);
            CHECK(std::memcmp(got[i].q, expected[i].q, sizeof untouched.q) == 0);
            if (i % stride != 0) CHECK(got[i].d == 9.0f && got[i].q[0] == 9);
        }
    };
    // From each block on, one, two and three blocks, which levels may take another way than many.
    for (size_t first = 0; first < 12; ++first) {
        for (const size_t length : {32, 64, 96, 160}) {
            ref.quantize(block(first), length, expected.data(), stride);
            k.quantize(block(first), length, got.data(), stride);
            same(first);
        }
    }
    ref.quantize(x.data(), n, expected.data(), stride);
    k.quantize(x.data(), n, got.data(), stride);
    same(0);
    const auto at = [&](size_t b) { return expected[b * stride]; };
    CHECK(at(0).d == 0.0f && at(1).d == 0.0f && at(2).d > 0.0f);
    for (const size_t b : {3, 4, 5}) {
        CHECK(std::isnan(at(b).d) && std::isnan(at(b).s));
        CHECK(at(b).q[0] == 0 && at(b).minus_8_sum == 0);
    }
    for (size_t b = 6; b < n / 32; ++b) {  // what the fields mean
        int32_t sums[2] = {0, 0};
        for (size_t j = 0; j < RWKV_BLOCK; ++j) sums[j / 16] += at(b).q[j];
        const int32_t sum = sums[0] + sums[1];
        CHECK(at(b).minus_8_sum == -8 * sum && at(b).s == at(b).d * static_cast<float>(sum));
        for (int half = 0; half < 2; ++half) CHECK(at(b).minus_8_sums[half] == -8 * sums[half]);
    }
}

// ---- matrices

// A matrix packed for a level, and activations.
struct Packed {
    std::vector<uint8_t> memory;
    rwkv_matrix matrix;

    Packed(const rwkv_kernels& k, rwkv_type type, const std::vector<uint8_t>& file, size_t n_out,
           size_t n_in)
        : memory(k.matrix[type].packed_size(type, n_out, n_in) + 64) {
        uint8_t* data = memory.data();
        data += (64 - reinterpret_cast<uintptr_t>(data) % 64) % 64;
        const size_t n_panels = (n_out + RWKV_PANEL - 1) / RWKV_PANEL;
        // In two parts, as threads do.
        k.matrix[type].pack(type, file.data(), n_out, n_in, n_panels / 2, n_panels, data);
        k.matrix[type].pack(type, file.data(), n_out, n_in, 0, n_panels / 2, data);
        matrix = {data, n_out, n_in, type, 0};
    }
};

struct Rows {
    std::vector<float> x;
    std::vector<rwkv_q8> q8;
    rwkv_rows rows;

    Rows(const rwkv_kernels& k, size_t n, size_t n_cols, size_t tile)
        : x(floats(n * n_cols, -1, 1)), q8((n + tile - 1) / tile * tile * (n_cols / 32)) {
        rows = {x.data(), q8.data(), nullptr, n_cols, n_cols, tile};
        if (n_cols % 32 != 0) return;
        for (size_t i = 0; i < n; ++i) {
            k.quantize(x.data() + i * n_cols, n_cols, rwkv_q8_row(&rows, i), tile);
        }
    }
};

void test_matmul(const rwkv_kernels& ref, const rwkv_kernels& k, rwkv_type type, size_t tile) {
    const size_t widths[] = {1, 2, 5, 31, 32, 96, 160, 256, 512};
    for (const size_t n_in : widths) {
        if (!row_fits(type, n_in)) continue;
        for (const size_t n_out : {size_t{1}, size_t{15}, size_t{16}, size_t{17}, size_t{50}}) {
            const size_t row_bytes = rwkv_row_bytes(type, n_in);
            std::vector<uint8_t> file(n_out * row_bytes);
            for (size_t o = 0; o < n_out; ++o) {
                tests::random_row(type, n_in, random_bits, file.data() + o * row_bytes);
            }
            const size_t n_rows = 25;
            const Rows x(ref, n_rows, n_in, tile);
            const Packed mine(k, type, file, n_out, n_in), oracle(ref, type, file, n_out, n_in);
            const size_t panels = (n_out + 15) / 16, ldy = n_out + 3;
            std::vector<float> expected(n_rows * ldy, 5.0f), got = expected, part = expected;
            ref.matrix[type].matmul(&oracle.matrix, &x.rows, 0, n_rows, 0, panels, expected.data(),
                                    ldy);
            k.matrix[type].matmul(&mine.matrix, &x.rows, 0, n_rows, 0, panels, got.data(), ldy);
            const Case c = {std::string("matmul_") + type_name(type) + "/" + k.name +
                            "/out=" + std::to_string(n_out) + "/in=" + std::to_string(n_in) +
                            "/tile=" + std::to_string(tile)};
            // 2e-6 of the terms' sizes: sqrt(n) roundings of 2^-24 each, with room.
            c.near(got, expected, 2e-6, 0.5 * std::sqrt(static_cast<double>(n_in)));

            // Any split of rows and panels gives the same bits, and touches nothing else.
            const size_t cuts[] = {0, 1, 3, 8, 9, n_rows};
            for (size_t i = 0; i + 1 < std::size(cuts); ++i) {
                for (size_t p = 0; p < panels; ++p) {
                    k.matrix[type].matmul(&mine.matrix, &x.rows, cuts[i], cuts[i + 1], p, p + 1,
                                          &part[cuts[i] * ldy + p * RWKV_PANEL], ldy);
                }
            }
            CHECK(std::memcmp(part.data(), got.data(), got.size() * sizeof(float)) == 0);
            for (size_t n = 1; n < n_rows && n_out == 17 && n_in <= 256;
                 ++n) {  // however many rows a tile has
                std::fill(part.begin(), part.end(), 5.0f);
                k.matrix[type].matmul(&mine.matrix, &x.rows, 0, n, 0, panels, part.data(), ldy);
                k.matrix[type].matmul(&mine.matrix, &x.rows, n, n_rows, 0, panels, &part[n * ldy],
                                      ldy);
                CHECK(std::memcmp(part.data(), got.data(), got.size() * sizeof(float)) == 0);
            }
        }
    }
}

// A vector of bytes that begins at a multiple of 64.
struct Aligned {
    std::vector<uint8_t> memory;
    uint8_t* data;
    explicit Aligned(size_t n) : memory(n + 63) {
        data = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
    }
};

uint32_t bits_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

constexpr int kAny = -1;
constexpr int kQuantised = -2;

// Products of matrices by columns have the bits of those of the same matrix by panels, whichever
// inputs are zero, and what is unpacked is what would have been packed.
void test_columns(const rwkv_kernels& k, rwkv_type type) {
    const rwkv_matrix_kernels& m = k.matrix[type];
    const std::string level = k.name;
#ifdef RWKV_EMULATED_AVX512  // where no avx2 stands below avx512
    const bool level_has_columns = level == "avx512_vnni";
#else
    const bool level_has_columns = level.find("avx") == 0 || level == "amx";
#endif
    const bool has_columns = rwkv_is_quantised(type) && level_has_columns;
    CHECK((m.matmul_columns != nullptr) == has_columns);
    CHECK((m.pack_columns != nullptr) == has_columns);
    CHECK((m.unpack_columns != nullptr) == has_columns);
    if (!has_columns) return;

    const size_t n_out = 3 * RWKV_COLUMN;
    const size_t ldy = n_out + 5;
    const size_t n_rows = 40;
    struct {
        size_t n_blocks;
        int bytes;  // of the codes and fifth bits, or kAny; kQuantised: a file's
    } const cases[] = {{1, kQuantised}, {2, kQuantised},  {5, kQuantised},
                       {7, kQuantised}, {32, kQuantised}, {3, kAny},
                       {2, 0xff},       {2, 0x80},        {2, 0x00}};
    for (const auto& [n_blocks, bytes] : cases) {
        const size_t n_in =
            std::min(n_blocks, 1024 / rwkv_block_values(type)) * rwkv_block_values(type);
        const size_t row_bytes = rwkv_row_bytes(type, n_in);
        std::vector<uint8_t> file(n_out * row_bytes);
        for (size_t o = 0; o < n_out; ++o) {
            uint8_t* row = file.data() + o * row_bytes;
            tests::random_row(type, n_in, random_bits, row);
            if (bytes == kQuantised) continue;
            const size_t block = rwkv_block_bytes(type);
            const size_t d_at = rwkv_block_type_of(type)->d_at;
            const size_t scales = rwkv_has_m(type) ? 4 : 2;
            for (size_t i = 0; i < row_bytes; ++i) {
                if (i % block >= d_at && i % block < d_at + scales) continue;
                row[i] = static_cast<uint8_t>(bytes == kAny ? random_bits() >> 9
                                                            : static_cast<uint32_t>(bytes));
            }
        }
        const Packed by_panels(k, type, file, n_out, n_in);
        const size_t panel_bytes = m.packed_size(type, RWKV_COLUMN, n_in);
        Aligned packed(3 * panel_bytes);
        m.pack_columns(type, file.data(), n_out, n_in, 2, 3, packed.data);
        m.pack_columns(type, file.data(), n_out, n_in, 0, 2, packed.data);
        const rwkv_matrix by_columns = {packed.data, n_out, n_in, type, 1};

        for (size_t panel = 0; panel < 3; ++panel) {
            const std::vector<uint8_t> rows(
                file.begin() + static_cast<ptrdiff_t>(panel * RWKV_COLUMN * row_bytes),
                file.begin() + static_cast<ptrdiff_t>((panel + 1) * RWKV_COLUMN * row_bytes));
            const Packed expected(k, type, rows, RWKV_COLUMN, n_in);
            Aligned unpacked(panel_bytes);
            m.unpack_columns(&by_columns, panel, unpacked.data);
            CHECK(std::memcmp(unpacked.data, expected.matrix.data, panel_bytes) == 0);
        }

        for (const size_t tile : {1, 6, 16}) {
            Rows x(k, n_rows, n_in, tile);
            for (size_t i = 0; i < n_rows; ++i) {  // from no zeros to nothing else
                for (size_t c = 0; c < n_in; ++c) {
                    if (random_bits() % 16 < i % 17) x.x[i * n_in + c] = 0.0f;
                }
                if (i % 17 == 0) std::fill_n(&x.x[i * n_in], n_in, i == 0 ? 1.0f : -1.0f);
                if (i == 20) x.x[i * n_in + n_in / 2] = std::numeric_limits<float>::infinity();
                k.quantize(&x.x[i * n_in], n_in, rwkv_q8_row(&x.rows, i), tile);
            }
            const size_t panels = n_out / RWKV_PANEL;
            std::vector<float> expected(n_rows * ldy, 5.0f);
            m.matmul(&by_panels.matrix, &x.rows, 0, n_rows, 0, panels, expected.data(), ldy);
            CHECK(std::isnan(expected[20 * ldy]) && !std::isnan(expected[21 * ldy]));
            // Alone, a few, and many together.
            for (const size_t step : {1, 2, 3, 4, 6, 7, 11, 16, 40}) {
                std::vector<float> got(n_rows * ldy, 5.0f);
                for (size_t row = 0; row < n_rows; row += step) {
                    for (size_t panel = 0; panel < 3; ++panel) {
                        m.matmul_columns(&by_columns, &x.rows, row, std::min(row + step, n_rows),
                                         panel, &got[row * ldy + panel * RWKV_COLUMN], ldy);
                    }
                }
                for (size_t i = 0; i < got.size(); ++i) {
                    if (bits_of(got[i]) == bits_of(expected[i])) continue;
                    if (std::isnan(got[i]) && std::isnan(expected[i])) continue;
                    std::fprintf(stderr,
                                 "columns_%s/%s/in=%zu/tile=%zu/step=%zu: row %zu, column %zu is "
                                 "%.9g, expected %.9g\n",
                                 type_name(type), k.name, n_in, tile, step, i / ldy, i % ldy,
                                 static_cast<double>(got[i]), static_cast<double>(expected[i]));
                    std::exit(1);
                }
            }
        }
    }
}

// With scales d of 1 and activations in one block of 32, the result is the int32 sum of that block
// (of super-blocks, of products with whole numbers s), below 2^24: exact.
void test_block_sums(const rwkv_kernels& k, rwkv_type type) {
    const size_t n_out = 33, n_in = rwkv_block_values(type);
    const size_t row_bytes = rwkv_row_bytes(type, n_in), n_blocks = n_in / RWKV_BLOCK;
    for (int round = 0; round < 50; ++round) {
        std::vector<uint8_t> file(n_out * row_bytes);
        for (uint8_t& byte : file) byte = static_cast<uint8_t>(random_bits());
        if (round < 4) {  // extreme codes: all ones, all zeros, -128
            const uint8_t fill[] = {0xff, 0x00, 0x80, 0x7f};
            std::fill(file.begin(), file.end(), fill[round]);
        }
        for (size_t o = 0; o < n_out; ++o) {
            tests::set_scales(type, 1.0f, 0.0f, n_in, file.data() + o * row_bytes);
        }
        const size_t n_rows = 31;  // tiles of 16, 8, 4, 2 and 1
        Rows x(k, n_rows, n_in, RWKV_TILE);
        const auto block_of = [&](size_t i, size_t b) -> rwkv_q8& {
            return rwkv_q8_row(&x.rows, i)[b * RWKV_TILE];
        };
        const auto active = [&](size_t i) { return (i + static_cast<size_t>(round)) % n_blocks; };
        for (size_t i = 0; i < n_rows; ++i) {
            for (size_t b = 0; b < n_blocks; ++b) {
                rwkv_q8& block = block_of(i, b);
                int32_t sums[2] = {0, 0};
                for (size_t j = 0; j < RWKV_BLOCK; ++j) {
                    int8_t& q = block.q[j];
                    q = static_cast<int8_t>(static_cast<int>(random_bits() % 255) - 127);
                    if (i < n_blocks) q = 127;
                    if (i >= n_blocks && i < 2 * n_blocks) q = -127;
                    sums[j / 16] += q;
                }
                block.d = b == active(i) ? 1.0f : 0.0f;
                rwkv_q8_end(sums[0], sums[1], &block);
            }
        }
        const Packed packed(k, type, file, n_out, n_in);
        std::vector<float> y(n_rows * n_out);
        k.matrix[type].matmul(&packed.matrix, &x.rows, 0, n_rows, 0, 3, y.data(), n_out);
        for (size_t o = 0; o < n_out; ++o) {
            std::vector<float> w(n_in);  // d = 1, m = 0: whole numbers
            dequantize_row(type, file.data() + o * row_bytes, n_in, w.data());
            for (size_t i = 0; i < n_rows; ++i) {
                int32_t isum = 0;
                const size_t b = active(i);
                for (size_t j = 0; j < RWKV_BLOCK; ++j) {
                    isum += static_cast<int32_t>(w[b * RWKV_BLOCK + j]) * block_of(i, b).q[j];
                }
                const Case c = {std::string("block_sum_") + type_name(type) + "/" + k.name};
                c.near(o, y[i * n_out + o], isum, 0.0);
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
    test_quantize(reference, k);
    for (int type = 0; type < RWKV_TYPE_COUNT; ++type) {
        for (const size_t tile : {1, 6, 16}) {
            test_matmul(reference, k, static_cast<rwkv_type>(type), tile);
        }
        test_columns(k, static_cast<rwkv_type>(type));
    }
    for (int type = 0; type < RWKV_TYPE_COUNT; ++type) {
        if (!rwkv_is_quantised(static_cast<rwkv_type>(type))) continue;
        test_block_sums(k, static_cast<rwkv_type>(type));
    }
    test_wkv(reference, k);
    test_transpose(k);
    test_largest(k);
    test_exp_sum(reference, k);
    test_keep_from(reference, k);
    test_split(reference, k);
    std::printf("%s: ok\n", k.name);
}

}  // namespace

#ifdef RWKV_EMULATED_AVX512

// The levels that need AVX-512, compiled against avx512_emulation.h.
extern "C" void rwkv_kernels_avx512_emulated(rwkv_kernels* k);
extern "C" void rwkv_kernels_avx512_vnni_emulated(rwkv_kernels* k);

int main() {
    const rwkv_kernels reference = kernels_of("reference");
    rwkv_kernels k = reference;
    rwkv_kernels_avx512_emulated(&k);
    k.name = "avx512";
    test_level(reference, k);
    rwkv_kernels_avx512_vnni_emulated(&k);
    k.name = "avx512_vnni";
    test_level(reference, k);
    return 0;
}

#else

int main() {
    const rwkv_kernels reference = kernels_of("reference");
    for (const char* const* name = kernel_names(); *name != nullptr; ++name) {
        if (!kernels_supported(*name)) {
            std::printf("%s: not supported on this machine\n", *name);
            continue;
        }
        const rwkv_kernels k = kernels_of(*name);
        CHECK(std::strcmp(k.name, *name) == 0);  // what runs is what was asked for
        test_level(reference, k);
    }
    return 0;
}

#endif
