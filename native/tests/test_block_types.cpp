// Quantising and dequantising, to the bit, against golden blocks of gguf.quants; the file and its
// layout are made by tests/oracle/make_block_golden.py.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "block_types.h"
#include "check.h"

namespace {

constexpr rwkv_type kTypes[] = {RWKV_TYPE_Q4_0, RWKV_TYPE_Q4_1, RWKV_TYPE_Q5_0, RWKV_TYPE_Q5_1,
                                RWKV_TYPE_Q8_0};

std::vector<uint8_t> read_file(const char* path) {
    std::FILE* file = std::fopen(path, "rb");
    if (file == nullptr) std::perror(path);
    CHECK(file != nullptr);
    std::vector<uint8_t> bytes;
    uint8_t buffer[4096];
    for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, file)) > 0;) {
        bytes.insert(bytes.end(), buffer, buffer + n);
    }
    CHECK(!std::ferror(file));
    std::fclose(file);
    return bytes;
}

// Takes arrays from a file, one after another.
class Reader {
  public:
    explicit Reader(std::vector<uint8_t> bytes) : bytes_(std::move(bytes)) {}

    template <class T>
    std::vector<T> take(size_t n) {
        CHECK(n * sizeof(T) <= bytes_.size() - at_);
        std::vector<T> values(n);
        std::memcpy(values.data(), bytes_.data() + at_, n * sizeof(T));
        at_ += n * sizeof(T);
        return values;
    }

    bool at_end() const { return at_ == bytes_.size(); }

  private:
    std::vector<uint8_t> bytes_;
    size_t at_ = 0;
};

bool same(float a, float b) {
    return (a == b && std::signbit(a) == std::signbit(b)) || (std::isnan(a) && std::isnan(b));
}

// Quantises and dequantises all blocks, as rows of `per_row` blocks.
void check_type(rwkv_type type, const std::vector<float>& x, const std::vector<uint8_t>& blocks,
                const std::vector<float>& values, size_t per_row) {
    const size_t n = per_row * RWKV_BLOCK;
    const size_t row_bytes = rwkv_row_bytes(type, n);
    CHECK(row_bytes == per_row * rwkv_block_bytes(type));
    std::vector<uint8_t> row(row_bytes);
    std::vector<float> out(n);
    for (size_t i = 0; i < x.size() / n; ++i) {
        rwkv::quantize_row(type, x.data() + i * n, n, row.data());
        const uint8_t* expected = blocks.data() + i * row_bytes;
        if (std::memcmp(row.data(), expected, row_bytes) != 0) {
            std::fprintf(stderr, "%s: row %zu of %zu blocks: quantised differently\n",
                         rwkv::type_name(type), i, per_row);
            for (size_t j = 0; j < row_bytes; ++j) {
                std::fprintf(stderr, "%02x%s ", row[j], row[j] == expected[j] ? "" : "!");
            }
            std::fprintf(stderr, "\n");
            std::exit(1);
        }
        rwkv::dequantize_row(type, expected, n, out.data());
        for (size_t j = 0; j < n; ++j) CHECK(same(out[j], values[i * n + j]));
    }
}

void test_golden_blocks() {
    Reader reader(read_file(RWKV_TESTS_DIR "/block_types.bin"));
    const auto n = static_cast<size_t>(reader.take<int32_t>(1)[0]);
    CHECK(n > 200);
    const std::vector<float> x = reader.take<float>(n * RWKV_BLOCK);
    for (const rwkv_type type : kTypes) {
        const std::vector<uint8_t> blocks = reader.take<uint8_t>(n * rwkv_block_bytes(type));
        const std::vector<float> values = reader.take<float>(n * RWKV_BLOCK);
        check_type(type, x, blocks, values, 1);
        check_type(type, x, blocks, values, 5);  // of the last blocks, those that fill no row go
    }
    const std::vector<uint16_t> rounded = reader.take<uint16_t>(n * RWKV_BLOCK);
    for (size_t i = 0; i < x.size(); ++i) {
        uint8_t bytes[2];
        rwkv::quantize_row(RWKV_TYPE_BF16, &x[i], 1, bytes);
        CHECK(rwkv_load_u16(bytes) == rounded[i]);
    }
    const auto k = static_cast<size_t>(reader.take<int32_t>(1)[0]);
    for (const rwkv_type type :
         {RWKV_TYPE_IQ4_NL, RWKV_TYPE_Q4_K, RWKV_TYPE_Q5_K, RWKV_TYPE_Q6_K}) {
        const size_t n_values = k * rwkv_block_values(type);
        const std::vector<uint8_t> blocks = reader.take<uint8_t>(k * rwkv_block_bytes(type));
        const std::vector<float> values = reader.take<float>(n_values);
        std::vector<float> out(n_values);
        rwkv::dequantize_row(type, blocks.data(), n_values, out.data());
        for (size_t i = 0; i < n_values; ++i) CHECK(same(out[i], values[i]));
    }
    CHECK(reader.at_end());
}

// All 65536 of bf16 to float and back; floats between two go to the nearer one, or the even one.
void test_bf16() {
    for (uint32_t h = 0; h < 0x10000; ++h) {
        const uint16_t half = static_cast<uint16_t>(h);
        uint8_t bytes[2];
        std::memcpy(bytes, &half, sizeof half);
        float f;
        rwkv::dequantize_row(RWKV_TYPE_BF16, bytes, 1, &f);
        uint32_t bits;
        std::memcpy(&bits, &f, sizeof bits);
        CHECK(bits == h << 16);
        rwkv::quantize_row(RWKV_TYPE_BF16, &f, 1, bytes);
        if (std::isnan(f)) {
            CHECK((rwkv_load_u16(bytes) & 0x7fc0u) == 0x7fc0u);
            continue;
        }
        CHECK(rwkv_load_u16(bytes) == h);
        if (std::isinf(f)) continue;
        const struct {
            uint32_t lower_half;
            uint32_t expected;
        } cases[] = {{0x7fff, h}, {0x8000, h + h % 2}, {0x8001, h + 1}};
        for (const auto& c : cases) {
            bits = h << 16 | c.lower_half;
            std::memcpy(&f, &bits, sizeof f);
            rwkv::quantize_row(RWKV_TYPE_BF16, &f, 1, bytes);
            CHECK(rwkv_load_u16(bytes) == c.expected);
        }
    }
}

// All 65536 halves to float and back; then floats between halves, which go to the nearer one, or
// the even one. (Quantising to fp16 is such a rounding.)
void test_fp16() {
    for (uint32_t h = 0; h < 0x10000; ++h) {
        const auto half = static_cast<uint16_t>(h);
        const float f = rwkv_fp16_to_fp32(half);
        uint8_t bytes[2];
        rwkv::quantize_row(RWKV_TYPE_FP16, &f, 1, bytes);
        const uint16_t back = rwkv_load_u16(bytes);
        if (std::isnan(f)) {
            CHECK((back & 0x7c00u) == 0x7c00u && (back & 0x3ffu) != 0);
            continue;
        }
        CHECK(back == half);
        // The value by definition: (-1)^s 2^(e-25) (1024 + m), or 2^-24 m where e is 0.
        const int e = half >> 10 & 31;
        const int m = half & 0x3ff;
        if (e < 31) {
            const double magnitude = e == 0 ? std::ldexp(m, -24) : std::ldexp(1024 + m, e - 25);
            CHECK(f == (half & 0x8000u ? -magnitude : magnitude));
        }
        if ((half & 0x7fffu) >= 0x7bffu) continue;  // the largest, and infinity
        const float next = rwkv_fp16_to_fp32(static_cast<uint16_t>(half + 1));
        const float middle = 0.5f * (f + next);  // exact
        const uint16_t even = half % 2 == 0 ? half : static_cast<uint16_t>(half + 1);
        const struct {
            float value;
            uint16_t expected;
        } cases[] = {{middle, even},
                     {std::nextafterf(middle, f), half},
                     {std::nextafterf(middle, next), static_cast<uint16_t>(half + 1)}};
        for (const auto& c : cases) {
            rwkv::quantize_row(RWKV_TYPE_FP16, &c.value, 1, bytes);
            CHECK(rwkv_load_u16(bytes) == c.expected);
        }
    }
    const struct {
        float value;
        uint16_t expected;
    } large[] = {{65504.0f, 0x7bff}, {65519.996f, 0x7bff}, {65520.0f, 0x7c00}, {-1e30f, 0xfc00}};
    for (const auto& c : large) {
        uint8_t bytes[2];
        rwkv::quantize_row(RWKV_TYPE_FP16, &c.value, 1, bytes);
        CHECK(rwkv_load_u16(bytes) == c.expected);
    }
}

void test_names_and_rows() {
    CHECK(rwkv::type_name(RWKV_TYPE_Q4_0) == std::string("q4_0"));
    for (const rwkv_type type : kTypes) {
        CHECK(rwkv::row_fits(type, 32) && rwkv::row_fits(type, 0) && !rwkv::row_fits(type, 33));
    }
    CHECK(rwkv::row_fits(RWKV_TYPE_FP32, 1) && rwkv::row_fits(RWKV_TYPE_FP16, 33));
    CHECK(rwkv::row_fits(RWKV_TYPE_Q4_K, 768) && !rwkv::row_fits(RWKV_TYPE_Q6_K, 128));
    // Types have numbers of their own, and are found by them.
    for (int t = 0; t < RWKV_TYPE_COUNT; ++t) {
        const rwkv_type type = static_cast<rwkv_type>(t);
        CHECK(rwkv::type_in_gguf(rwkv_block_type_of(type)->gguf) == type);
        const int32_t ggmf = rwkv_block_type_of(type)->ggmf;
        CHECK(ggmf == RWKV_NO_NUMBER || rwkv::type_in_ggmf(ggmf) == type);
        CHECK((ggmf == RWKV_NO_NUMBER) == (t >= RWKV_TYPE_BF16));
    }
    for (const int32_t none : {-1, 4, 12, 31}) {
        CHECK(rwkv::type_in_ggmf(none) == RWKV_TYPE_COUNT);
    }
    CHECK(rwkv::type_in_gguf(12) == RWKV_TYPE_Q4_K && rwkv::type_in_gguf(-1) == RWKV_TYPE_COUNT);
    CHECK(rwkv::type_name(RWKV_TYPE_Q6_K) == std::string("q6_K"));
}

}  // namespace

int main() {
    test_names_and_rows();
    test_fp16();
    test_bf16();
    test_golden_blocks();
    return 0;
}
