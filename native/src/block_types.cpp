#include "block_types.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace rwkv {

namespace {

// Float to IEEE half, rounded half to even; overflow gives infinity, NaN a quiet NaN.
uint16_t fp32_to_fp16(float f) noexcept {
    uint32_t bits;
    std::memcpy(&bits, &f, sizeof bits);
    const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
    const uint32_t rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | (rest >> 13 & 0x3ffu));
    if (rest >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // >= 65520
    if (rest < 0x38800000u) {  // below 2^-14: a multiple of 2^-24, which the addition rounds to
        float magnitude;
        std::memcpy(&magnitude, &rest, sizeof magnitude);
        const float shifted = magnitude + 0.5f;  // 0.5 has an ulp of 2^-24
        uint32_t sum;
        std::memcpy(&sum, &shifted, sizeof sum);
        return static_cast<uint16_t>(sign | (sum - 0x3f000000u));
    }
    const uint32_t odd = rest >> 13 & 1;
    return static_cast<uint16_t>(sign | ((rest + 0xfffu + odd - (112u << 23)) >> 13));
}

void put_fp16(uint8_t*& p, float f) noexcept {
    const uint16_t h = fp32_to_fp16(f);
    std::memcpy(p, &h, sizeof h);
    p += sizeof h;
}

// Float to bf16, rounded half to even; overflow gives infinity, NaN a quiet NaN.
void put_bf16(uint8_t*& p, float f) noexcept {
    uint32_t bits;
    std::memcpy(&bits, &f, sizeof bits);
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    const uint32_t rounded = nan ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1);
    const uint16_t h = static_cast<uint16_t>(rounded >> 16);
    std::memcpy(p, &h, sizeof h);
    p += sizeof h;
}

// d may be so small that 1 / d overflows, or the block may hold NaN or infinity: both are stored as
// zeros: d = m = 0 with the code of zero.
float inverse(float d) noexcept {
    const float id = d != 0.0f ? 1.0f / d : 0.0f;
    return std::isfinite(id) ? id : 0.0f;
}

// trunc(x), kept to 0 .. top; NaN gives 0.
uint32_t code_of(float x, uint32_t top) noexcept {
    if (!(x > 0.0f)) return 0;
    return x >= static_cast<float>(top) ? top : static_cast<uint32_t>(x);
}

void put_codes(uint8_t*& p, const uint32_t (&q)[RWKV_BLOCK], bool five_bits) noexcept {
    if (five_bits) {
        uint32_t fifth = 0;
        for (int j = 0; j < RWKV_BLOCK; ++j) fifth |= (q[j] >> 4) << j;
        std::memcpy(p, &fifth, sizeof fifth);
        p += sizeof fifth;
    }
    for (int j = 0; j < 16; ++j) *p++ = static_cast<uint8_t>((q[j] & 15) | (q[j + 16] & 15) << 4);
}

// q4_0, q5_0: the value of largest magnitude is given the code 0, which stands for -8 d (-16 d).
void quantize_symmetric(const float* x, bool five_bits, uint8_t*& p) noexcept {
    const float zero_code = five_bits ? 16.0f : 8.0f;
    float extreme = x[0];
    bool finite = true;
    for (int j = 0; j < RWKV_BLOCK; ++j) {
        finite &= std::isfinite(x[j]);
        if (std::fabs(x[j]) > std::fabs(extreme)) extreme = x[j];
    }
    const float d = extreme / -zero_code;
    const float id = finite ? inverse(d) : 0.0f;
    const bool usable = finite && (id != 0.0f || d == 0.0f);
    put_fp16(p, usable ? d : 0.0f);
    uint32_t q[RWKV_BLOCK];
    for (int j = 0; j < RWKV_BLOCK; ++j) {
        const float scaled = usable ? x[j] * id : 0.0f;
        q[j] = code_of(scaled + (zero_code + 0.5f), five_bits ? 31 : 15);
    }
    put_codes(p, q, five_bits);
}

// q4_1, q5_1: the smallest value is given the code 0, the largest the highest code.
void quantize_with_minimum(const float* x, bool five_bits, uint8_t*& p) noexcept {
    const uint32_t top = five_bits ? 31 : 15;
    float low = x[0];
    float high = x[0];
    bool finite = true;
    for (int j = 0; j < RWKV_BLOCK; ++j) {
        finite &= std::isfinite(x[j]);
        low = std::min(low, x[j]);
        high = std::max(high, x[j]);
    }
    const float d = (high - low) / static_cast<float>(top);
    const float id = finite ? inverse(d) : 0.0f;
    const bool usable = finite && (id != 0.0f || d == 0.0f);
    put_fp16(p, usable ? d : 0.0f);
    put_fp16(p, usable ? low : 0.0f);
    uint32_t q[RWKV_BLOCK];
    for (int j = 0; j < RWKV_BLOCK; ++j) {
        const float scaled = usable ? (x[j] - low) * id : 0.0f;
        q[j] = code_of(scaled + 0.5f, top);
    }
    put_codes(p, q, five_bits);
}

void quantize_q8_0(const float* x, uint8_t*& p) noexcept {
    float amax = 0.0f;
    bool finite = true;
    for (int j = 0; j < RWKV_BLOCK; ++j) {
        finite &= std::isfinite(x[j]);
        amax = std::max(amax, std::fabs(x[j]));
    }
    const float d = amax / 127.0f;
    const float id = finite ? inverse(d) : 0.0f;
    const bool usable = finite && (id != 0.0f || d == 0.0f);
    put_fp16(p, usable ? d : 0.0f);
    for (int j = 0; j < RWKV_BLOCK; ++j) {
        // roundf rounds half away from zero.
        const float scaled = usable ? std::roundf(x[j] * id) : 0.0f;
        *p++ = static_cast<uint8_t>(static_cast<int8_t>(scaled));
    }
}

template <class Predicate>
rwkv_type find_type(Predicate holds) noexcept {
    int type = 0;
    while (type < RWKV_TYPE_COUNT && !holds(*rwkv_block_type_of(static_cast<rwkv_type>(type)))) {
        ++type;
    }
    return static_cast<rwkv_type>(type);
}

}  // namespace

const char* type_name(rwkv_type type) noexcept {
    return type < RWKV_TYPE_COUNT ? rwkv_block_type_of(type)->name : "unknown";
}

rwkv_type type_in_ggmf(int32_t number) noexcept {
    return find_type(
        [=](const rwkv_block_type& t) { return t.ggmf == number && t.ggmf != RWKV_NO_NUMBER; });
}

rwkv_type type_in_gguf(int32_t number) noexcept {
    return find_type([=](const rwkv_block_type& t) { return t.gguf == number; });
}

bool row_fits(rwkv_type type, size_t n) noexcept { return n % rwkv_block_values(type) == 0; }

void dequantize_row(rwkv_type type, const uint8_t* row, size_t n, float* out) noexcept {
    rwkv_dequantize_row(type, row, n, out);
}

void quantize_row(rwkv_type type, const float* x, size_t n, uint8_t* row) noexcept {
    if (type == RWKV_TYPE_FP32) {
        std::memcpy(row, x, n * sizeof *x);
        return;
    }
    if (type == RWKV_TYPE_FP16) {
        for (size_t i = 0; i < n; ++i) put_fp16(row, x[i]);
        return;
    }
    if (type == RWKV_TYPE_BF16) {
        for (size_t i = 0; i < n; ++i) put_bf16(row, x[i]);
        return;
    }
    for (; n > 0; n -= RWKV_BLOCK, x += RWKV_BLOCK) {
        switch (type) {
            case RWKV_TYPE_Q4_0:
                quantize_symmetric(x, false, row);
                break;
            case RWKV_TYPE_Q5_0:
                quantize_symmetric(x, true, row);
                break;
            case RWKV_TYPE_Q4_1:
                quantize_with_minimum(x, false, row);
                break;
            case RWKV_TYPE_Q5_1:
                quantize_with_minimum(x, true, row);
                break;
            case RWKV_TYPE_Q8_0:
                quantize_q8_0(x, row);
                break;
            default:  // the others are not quantised here
                break;
        }
    }
}

}  // namespace rwkv
