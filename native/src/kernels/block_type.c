/* block_type.c: the bytes of quantised blocks, taken apart; layouts as in docs/formats.md. */
#include "block_type.h"

/* Eight bits -> eight bytes of 16 or 0. */
static uint64_t fifth_of_eight(uint8_t bits) {
    const uint64_t ones = 0x0101010101010101;
    const uint64_t each = bits * ones & 0x8040201008040201; /* of byte k, bit k */
    return (each + 0x7f * ones) >> 3 & 16 * ones;
}

/* q4_0, q4_1, q5_0, q5_1, iq4_nl: d, m, a word of fifth bits, 16 bytes of nibbles, of which byte j
 * holds the codes j and j + 16. */
static void small_block(rwkv_type type, const uint8_t* p, rwkv_block* b) {
    p += rwkv_has_m(type) ? 4 : 2;
    const uint8_t* nibbles = p + (rwkv_high_bits(type) != 0 ? 4 : 0);
    for (int j = 0; j < 16; ++j) {
        b->codes[j] = nibbles[j] & 15;
        b->codes[j + 16] = nibbles[j] >> 4;
    }
    for (int k = 0; nibbles != p && k < 4; ++k) {
        uint64_t eight;
        memcpy(&eight, b->codes + 8 * k, sizeof eight);
        eight |= fifth_of_eight(p[k]);
        memcpy(b->codes + 8 * k, &eight, sizeof eight);
    }
}

/* q4_K, q5_K: d, m, 12 bytes of s and t in 6 bits, (q5_K) 32 bytes whose bit i is the fifth of
 * block i's codes, and for each two blocks 32 bytes of their nibbles. Of s and t, the first four
 * are the lower 6 bits of bytes 0-3 and 4-7; the last four have their lower half in bytes 8-11 (s
 * low, t high) and their upper two bits at the top of bytes 0-3 and 4-7. */
static void k_block(rwkv_type type, const uint8_t* p, size_t in_super, rwkv_block* b) {
    const uint8_t* six = p + 4;
    if (in_super < 4) {
        b->s[0] = six[in_super] & 63;
        b->t = six[in_super + 4] & 63;
    } else {
        b->s[0] = (uint8_t)((six[in_super + 4] & 15) | (six[in_super - 4] >> 6) << 4);
        b->t = (uint8_t)(six[in_super + 4] >> 4 | (six[in_super] >> 6) << 4);
    }
    const uint8_t* fifth = six + 12;
    const uint8_t* nibbles = fifth + (type == RWKV_TYPE_Q5_K ? 32 : 0) + in_super / 2 * 32;
    const int shift = in_super % 2 == 0 ? 0 : 4;
    for (int j = 0; j < RWKV_BLOCK; ++j) b->codes[j] = nibbles[j] >> shift & 15;
    if (type == RWKV_TYPE_Q4_K) return;
    for (int j = 0; j < RWKV_BLOCK; ++j) {
        b->codes[j] = (uint8_t)(b->codes[j] | (fifth[j] >> in_super & 1) << 4);
    }
}

/* q6_K: 128 bytes of nibbles, 64 of upper bits, 16 of s, d. Four blocks share 64 bytes of nibbles
 * (the lower halves of the first and the last 32 are theirs in turn, then the upper halves) and 32
 * bytes of upper bits, two for each. */
static void q6_k_block(const uint8_t* p, size_t in_super, rwkv_block* b) {
    const size_t four = in_super / 4;
    const size_t in_four = in_super % 4;
    const uint8_t* nibbles = p + 64 * four + in_four % 2 * 32;
    const uint8_t* upper = p + 128 + 32 * four;
    memcpy(b->s, p + 192 + 2 * in_super, 2);
    const int shift = in_four < 2 ? 0 : 4;
    for (int j = 0; j < RWKV_BLOCK; ++j) {
        const unsigned two = upper[j] >> (2 * in_four) & 3;
        b->codes[j] = (uint8_t)((nibbles[j] >> shift & 15) | two << 4);
    }
}

rwkv_block rwkv_block_at(rwkv_type type, const uint8_t* row, size_t b) {
    const rwkv_block_type* t = rwkv_block_type_of(type);
    const size_t blocks = t->values / RWKV_BLOCK; /* of 32 */
    const uint8_t* p = row + b / blocks * t->bytes;
    rwkv_block block;
    block.d = rwkv_load_u16(p + t->d_at);
    block.m = t->has_m ? rwkv_load_u16(p + t->d_at + 2) : 0;
    if (t->has_m && t->n_scales != 0) block.m ^= 0x8000; /* files hold -m */
    block.s[0] = block.s[1] = block.t = 0;
    switch (type) {
        case RWKV_TYPE_Q8_0:
            memcpy(block.codes, p + 2, RWKV_BLOCK);
            break;
        case RWKV_TYPE_Q4_K:
        case RWKV_TYPE_Q5_K:
            k_block(type, p, b % blocks, &block);
            break;
        case RWKV_TYPE_Q6_K:
            q6_k_block(p, b % blocks, &block);
            break;
        default:
            small_block(type, p, &block);
            break;
    }
    return block;
}

static void dequantize_block(rwkv_type type, const uint8_t* row, size_t b, float* out) {
    static const int8_t iq4_nl[16] = {RWKV_IQ4_NL};
    const rwkv_block_type* t = rwkv_block_type_of(type);
    const rwkv_block block = rwkv_block_at(type, row, b);
    float d[2];
    d[0] = d[1] = rwkv_fp16_to_fp32(block.d);
    float m = rwkv_fp16_to_fp32(block.m);
    if (t->n_scales == 1) {
        d[0] = d[1] = d[0] * (float)block.s[0];
        m *= (float)block.t;
    } else if (t->n_scales == 2) {
        for (int half = 0; half < 2; ++half) d[half] *= (float)(int8_t)block.s[half];
    }
    for (int j = 0; j < RWKV_BLOCK; ++j) {
        const int q = t->table            ? iq4_nl[block.codes[j]]
                      : t->code_bits == 8 ? (int8_t)block.codes[j]
                                          : block.codes[j] - t->zero;
        const float product = d[j / 16] * (float)q;
        out[j] = t->has_m ? product + m : product;
    }
}

void rwkv_dequantize_row(rwkv_type type, const uint8_t* row, size_t n, float* out) {
    switch (type) {
        case RWKV_TYPE_FP32:
            memcpy(out, row, n * sizeof *out);
            break;
        case RWKV_TYPE_FP16:
            for (size_t i = 0; i < n; ++i) out[i] = rwkv_fp16_to_fp32(rwkv_load_u16(row + 2 * i));
            break;
        case RWKV_TYPE_BF16:
            for (size_t i = 0; i < n; ++i) out[i] = rwkv_bf16_to_fp32(rwkv_load_u16(row + 2 * i));
            break;
        default:
            for (size_t b = 0; b < n / RWKV_BLOCK; ++b) {
                dequantize_block(type, row, b, out + b * RWKV_BLOCK);
            }
            break;
    }
}
