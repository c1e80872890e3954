/* neon_dotprod.c: quantised matrices by sdot, which multiplies 16 signed bytes with 16 others and
 * adds them, four by four, to 4 int32: a quarter of a group of panel16 in one instruction. */
#include <arm_neon.h>

#include "packing.h"

INLINE int32x4_t half_sum(rwkv_type type, const int8x16_t code[4], const int8_t* q) {
    (void)type;
    const int8x16_t four = vld1q_s8(q);
    int32x4_t isum = vdupq_n_s32(0);
    isum = vdotq_laneq_s32(isum, code[0], four, 0);
    isum = vdotq_laneq_s32(isum, code[1], four, 1);
    isum = vdotq_laneq_s32(isum, code[2], four, 2);
    return vdotq_laneq_s32(isum, code[3], four, 3);
}

INLINE int32x4_t block_sum(rwkv_type type, const int8x16_t code[8], const int8_t* q) {
    return vaddq_s32(half_sum(type, code, q), half_sum(type, code + 4, q + 16));
}

#include "neon_matmul.h"

void rwkv_kernels_neon_dotprod(rwkv_kernels* k) { use_matmul_blocks(k); }
