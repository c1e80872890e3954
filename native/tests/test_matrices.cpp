// Products of matrices, and what is made ready for them, of every level that this machine supports,
// against the reference level: all block types, sizes around the panels, exact block sums. Comparisons
// are element by element.
#include <algorithm>
#include <limits>

#include "block_types.h"
#include "kernel_cases.h"
#include "kernels/packing.h"
#include "random_blocks.h"

using namespace rwkv;

namespace {

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
    const bool has_blocks = level == "avx512_vnni";
#else
    const bool has_blocks = level.find("avx") == 0 || level == "amx";
#endif
    const bool has_values = level.find("avx") == 0 || level == "amx";
    const bool has_columns = rwkv_is_quantised(type) ? has_blocks : has_values;
    CHECK((m.matmul_columns != nullptr) == has_columns);
    CHECK((m.pack_columns != nullptr) == has_columns);
    CHECK((m.unpack_columns != nullptr) == has_columns);
    if (!has_columns) return;

    const size_t n_out = 3 * RWKV_COLUMN;
    const size_t ldy = n_out + 5;
    const size_t n_rows = 40;
    struct Case {
        size_t n_blocks;
        int bytes;  // of the codes and fifth bits, or kAny; kQuantised: a file's
    };
    const std::vector<Case> of_blocks = {{1, kQuantised}, {2, kQuantised},  {5, kQuantised},
                                         {7, kQuantised}, {32, kQuantised}, {3, kAny},
                                         {2, 0xff},       {2, 0x80},        {2, 0x00}};
    // Of values: all that may be left of four, of a chunk and of what is listed at a time.
    const std::vector<Case> of_values = {{1, kQuantised},   {2, kQuantised},   {3, kQuantised},
                                         {64, kQuantised},  {127, kQuantised}, {288, kQuantised},
                                         {4098, kQuantised}};
    const bool quantised = rwkv_is_quantised(type);
    for (const auto& [n_blocks, bytes] : quantised ? of_blocks : of_values) {
        const size_t n_in =
            quantised ? std::min(n_blocks, 1024 / rwkv_block_values(type)) * rwkv_block_values(type)
                      : n_blocks;
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
                if (quantised) k.quantize(&x.x[i * n_in], n_in, rwkv_q8_row(&x.rows, i), tile);
            }
            const size_t panels = n_out / RWKV_PANEL;
            std::vector<float> expected(n_rows * ldy, 5.0f);
            m.matmul(&by_panels.matrix, &x.rows, 0, n_rows, 0, panels, expected.data(), ldy);
            CHECK(!std::isfinite(expected[20 * ldy]) && std::isfinite(expected[21 * ldy]));
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

void test_level(const rwkv_kernels& reference, const rwkv_kernels& k) {
    test_quantize(reference, k);
    for (int i = 0; i < RWKV_TYPE_COUNT; ++i) {
        const auto type = static_cast<rwkv_type>(i);
        for (const size_t tile : {1, 6, 16}) test_matmul(reference, k, type, tile);
        test_columns(k, type);
        if (rwkv_is_quantised(type)) test_block_sums(k, type);
    }
}

}  // namespace

int main() {
    for_each_level(test_level);
    return 0;
}
