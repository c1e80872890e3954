/* limits.h: what this processor can do at best, to hold the kernels against. Each instruction set
 * has its own file, compiled for it alone; limits.cpp chooses. Plain C: kernel files' rules hold
 * here too.
 */
#ifndef RWKV_BENCH_LIMITS_H
#define RWKV_BENCH_LIMITS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* `read` takes multiples of this many bytes: eight streams of whole cache lines. */
enum { LIMITS_READ_UNIT = 8 * 64 };

/* Ways to walk through a buffer: how many places are read side by side, and how many bytes ahead of
 * each the memory is asked (0: left to the processor). Which is fastest depends on the machine and
 * on the size, so all are tried. */
enum { LIMITS_READ_WAYS = 6 };

/* Functions that the instruction set lacks are NULL. Multiply functions run `rounds` rounds of
 * independent instructions on registers and return the number of multiply-adds that were done. */
typedef struct limits {
    /* Loads each of the n bytes at p once; returns a value that depends on all of them. */
    uint64_t (*read)(const uint8_t* p, size_t n, int way);
    /* Products of 8-bit numbers, summed exactly. */
    double (*multiply_int8)(size_t rounds);
    /* bf16 products, summed in fp32. */
    double (*multiply_bf16)(size_t rounds);
    /* fp32 fused multiply-adds. */
    double (*multiply_fp32)(size_t rounds);
} limits;

/* Each overrides what its instruction set does faster than those before it. */
void limits_generic(limits* l);
void limits_avx2(limits* l);
void limits_avx512(limits* l);
void limits_avx512_vnni(limits* l);
void limits_amx(limits* l);
void limits_neon(limits* l);
void limits_neon_dotprod(limits* l);

#ifdef __cplusplus
}
#endif

#endif /* RWKV_BENCH_LIMITS_H */
