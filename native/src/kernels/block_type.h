/* block_type.h: THE list of weight types: what each is called, how many bytes its blocks take in a
 * file, what they hold. The bytes themselves are taken apart in block_type.c. */
#ifndef RWKV_BLOCK_TYPE_H
#define RWKV_BLOCK_TYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Types of a matrix's weights. Their numbers are part of a model's fingerprint (model.cpp), so a
 * new type is added at the end. */
typedef enum rwkv_type {
    RWKV_TYPE_FP32 = 0,
    RWKV_TYPE_FP16,
    RWKV_TYPE_Q4_0,
    RWKV_TYPE_Q4_1,
    RWKV_TYPE_Q5_0,
    RWKV_TYPE_Q5_1,
    RWKV_TYPE_Q8_0,
    RWKV_TYPE_BF16,
    RWKV_TYPE_IQ4_NL,
    RWKV_TYPE_Q4_K,
    RWKV_TYPE_Q5_K,
    RWKV_TYPE_Q6_K,
    RWKV_TYPE_COUNT
} rwkv_type;

/* Those whose products are of codes, for code that is written once and compiled for each. */
#define RWKV_FOR_QUANTISED(DO) \
    DO(RWKV_TYPE_Q4_0)         \
    DO(RWKV_TYPE_Q4_1)         \
    DO(RWKV_TYPE_Q5_0)         \
    DO(RWKV_TYPE_Q5_1)         \
    DO(RWKV_TYPE_Q8_0)         \
    DO(RWKV_TYPE_IQ4_NL)       \
    DO(RWKV_TYPE_Q4_K)         \
    DO(RWKV_TYPE_Q5_K)         \
    DO(RWKV_TYPE_Q6_K)

enum {
    RWKV_BLOCK =
        32, /* values that are multiplied as a unit: a block, or an eighth of a super-block */
    RWKV_SUPER = 256, /* values of a super-block */
    RWKV_NO_NUMBER = -1,
};

/* One type. A quantised value is
 *     d (q - zero) + m           in blocks of 32; d, m fp16; m = 0 without has_m
 *     (d s) (q - zero) + (m t)   in super-blocks of 256; d, m fp16, of which files hold -m; for
 *                                every 32 values whole numbers s and t, or for each 16 an s
 * where q is a code or, if `table` says so, what RWKV_IQ4_NL has for it. */
typedef struct rwkv_block_type {
    const char* name;
    int32_t ggmf;      /* its number in ggmf files, or RWKV_NO_NUMBER: not allowed there */
    int32_t gguf;      /* its number in GGUF files */
    uint16_t values;   /* of a block: a row is a multiple of them */
    uint16_t bytes;    /* of a block in a file */
    uint8_t code_bits; /* of a code: 4, 5, 6, or 8 with a sign; 0: the values as they are */
    uint8_t zero;      /* the code that stands for 0 (of m, where there is one) */
    uint8_t has_m;
    uint8_t n_scales; /* of super-blocks: the s of every 32 values, 1 or 2; else 0 */
    uint8_t d_at;     /* where in a block of a file the fp16 d lies; m follows it */
    uint8_t table;
} rwkv_block_type;

static inline const rwkv_block_type* rwkv_block_type_of(rwkv_type type) {
    enum { NO = RWKV_NO_NUMBER };
    /* clang-format off */
    static const rwkv_block_type types[RWKV_TYPE_COUNT] = {
        /* name    ggmf gguf values bytes bits zero m  s  d_at table */
        {"fp32",     0,   0,     1,    4,   0,   0, 0, 0,   0, 0},
        {"fp16",     1,   1,     1,    2,   0,   0, 0, 0,   0, 0},
        {"q4_0",     2,   2,    32,   18,   4,   8, 0, 0,   0, 0},
        {"q4_1",     3,   3,    32,   20,   4,   0, 1, 0,   0, 0},
        {"q5_0",     7,   6,    32,   22,   5,  16, 0, 0,   0, 0},
        {"q5_1",     8,   7,    32,   24,   5,   0, 1, 0,   0, 0},
        {"q8_0",     9,   8,    32,   34,   8,   0, 0, 0,   0, 0},
        {"bf16",    NO,  30,     1,    2,   0,   0, 0, 0,   0, 0},
        {"iq4_nl",  NO,  20,    32,   18,   4,   0, 0, 0,   0, 1},
        {"q4_K",    NO,  12,   256,  144,   4,   0, 1, 1,   0, 0},
        {"q5_K",    NO,  13,   256,  176,   5,   0, 1, 1,   0, 0},
        {"q6_K",    NO,  14,   256,  210,   6,  32, 0, 2, 208, 0},
    };
    /* clang-format on */
    return &types[type];
}

/* What the codes of iq4_nl stand for. */
#define RWKV_IQ4_NL -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113

static inline size_t rwkv_block_bytes(rwkv_type type) { return rwkv_block_type_of(type)->bytes; }
static inline size_t rwkv_block_values(rwkv_type type) { return rwkv_block_type_of(type)->values; }

/* Whether products take their activations quantised. */
static inline int rwkv_is_quantised(rwkv_type type) {
    return rwkv_block_type_of(type)->code_bits != 0;
}

static inline int rwkv_is_super(rwkv_type type) {
    return rwkv_block_type_of(type)->values == RWKV_SUPER;
}

static inline int rwkv_has_m(rwkv_type type) { return rwkv_block_type_of(type)->has_m; }

/* Bits of a code beyond the four that lie in nibbles: 0, 1 or 2. */
static inline size_t rwkv_high_bits(rwkv_type type) {
    const size_t bits = rwkv_block_type_of(type)->code_bits;
    return bits == 5 || bits == 6 ? bits - 4 : 0;
}

/* Whether products take codes as numbers with a sign, from -128 to 127. */
static inline int rwkv_is_signed(rwkv_type type) {
    return rwkv_block_type_of(type)->code_bits == 8 || rwkv_block_type_of(type)->table;
}

/* Bytes of a row of n_in values in a file. */
static inline size_t rwkv_row_bytes(rwkv_type type, size_t n_in) {
    return n_in / rwkv_block_values(type) * rwkv_block_bytes(type);
}

/* 32 values of a quantised row, taken apart. */
typedef struct rwkv_block {
    uint8_t codes[RWKV_BLOCK]; /* as they are stored; of q8_0, int8 */
    uint16_t d, m;             /* fp16; of super-blocks the m of the formula, not of the file */
    uint8_t s[2]; /* of super-blocks; of q6_K int8, for each half; of others the second is 0 */
    uint8_t t;
} rwkv_block;

/* The values 32 b .. 32 b + 31 of a quantised row as it lies in a file. */
rwkv_block rwkv_block_at(rwkv_type type, const uint8_t* row, size_t b);

/* Turns n values of a row (whole blocks) into floats, as the type defines them, to the bit. */
void rwkv_dequantize_row(rwkv_type type, const uint8_t* row, size_t n, float* out);

static inline uint16_t rwkv_load_u16(const uint8_t* p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t rwkv_load_u32(const uint8_t* p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* IEEE half to float, exact (also for subnormals, infinities and NaN). */
static inline float rwkv_fp16_to_fp32(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t rest = h & 0x7fffu;
    uint32_t bits;
    float f;
    if (rest >= 0x7c00u) { /* infinity or NaN: keep the payload */
        bits = sign | 0x7f800000u | (rest & 0x3ffu) << 13;
    } else if (rest >= 0x400u) { /* normal: rebias the exponent from 15 to 127 */
        bits = sign | ((rest << 13) + (112u << 23));
    } else { /* subnormal or zero: rest * 2^-24, exact in fp32 */
        f = (float)rest * 0x1p-24f;
        memcpy(&bits, &f, sizeof bits);
        bits |= sign;
    }
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* bf16 is the upper half of a float. */
static inline float rwkv_bf16_to_fp32(uint16_t h) {
    const uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

#ifdef __cplusplus
}
#endif

#endif /* RWKV_BLOCK_TYPE_H */
