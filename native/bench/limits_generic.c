/* The limits of plain C: what the compiler makes of loops without intrinsics. */
#include "limits.h"

typedef uint64_t vec;

static inline vec vload(const uint8_t* p) {
    vec v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
static inline vec vxor(vec a, vec b) { return a ^ b; }
static inline uint64_t vfold(vec v) { return v; }

#include "limits_read.h"

enum { N = 4096 };

static double multiply_int8(size_t rounds) {
    int8_t a[N] = {1};
    const int8_t b[N] = {1};
    int32_t sum = 0;
    for (size_t r = 0; r < rounds; ++r) {
        __asm__ volatile("" : : "r"(a), "r"(b) : "memory");
        for (size_t i = 0; i < N; ++i) sum += a[i] * b[i];
        a[0] = (int8_t)sum;
    }
    return (double)rounds * N;
}

static double multiply_fp32(size_t rounds) {
    float a[N] = {1.0f};
    float sums[16] = {0};
    for (size_t r = 0; r < rounds; ++r) {
        __asm__ volatile("" : : "r"(a) : "memory");
        for (size_t i = 0; i < N; i += 16) {
            for (size_t j = 0; j < 16; ++j) sums[j] += a[i + j] * a[i + j];
        }
        for (size_t j = 0; j < 16; ++j) a[j] = sums[j];
    }
    return (double)rounds * N;
}

void limits_generic(limits* l) {
    l->read = read_bytes;
    l->multiply_int8 = multiply_int8;
    l->multiply_fp32 = multiply_fp32;
}
