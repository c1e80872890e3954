/* amx_emulation.h: the tile instructions that kernels/amx.c uses, in plain C, so that its packing
 * and indexing are tested on processors without them. Included before amx.c is compiled (-include).
 *
 * Tile t is 16 rows of 64 bytes. tdpbf16ps, as Intel's manual defines it, for each row m of A and
 * column n of C: for k = 0 .. 15:  C[m][n] += A[m][2k] B[k][2n];  then += A[m][2k+1] B[k][2n+1]. */
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct emulated_tile {
    uint8_t bytes[16][64];
} emulated_tile;

static emulated_tile emulated_tiles[8];
static int emulated_configured;

static inline float emulated_bf16(uint16_t v) {
    const uint32_t bits = (uint32_t)v << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static void emulated_loadconfig(const void* config) {
    const uint8_t* bytes = (const uint8_t*)config;
    emulated_configured = bytes[0] == 1; /* palette */
    for (int t = 0; t < 8; ++t) {
        emulated_configured &= bytes[16 + 2 * t] == 64 && bytes[17 + 2 * t] == 0; /* row bytes */
        emulated_configured &= bytes[48 + t] == 16;                               /* rows */
    }
}

static void emulated_zero(int t) {
    memset(&emulated_tiles[t], emulated_configured ? 0 : 0xff, sizeof emulated_tiles[t]);
}

static void emulated_loadd(int t, const void* base, int stride) {
    for (int i = 0; i < 16; ++i) {
        memcpy(emulated_tiles[t].bytes[i], (const uint8_t*)base + (ptrdiff_t)i * stride, 64);
    }
}

static void emulated_stored(int t, void* base, int stride) {
    for (int i = 0; i < 16; ++i) {
        memcpy((uint8_t*)base + (ptrdiff_t)i * stride, emulated_tiles[t].bytes[i], 64);
    }
}

static void emulated_dpbf16ps(int c, int a, int b) {
    float sums[16][16];
    uint16_t left[16][32];
    uint16_t right[16][32];
    memcpy(sums, &emulated_tiles[c], sizeof sums);
    memcpy(left, &emulated_tiles[a], sizeof left);
    memcpy(right, &emulated_tiles[b], sizeof right);
    for (int m = 0; m < 16; ++m) {
        for (int k = 0; k < 16; ++k) {
            for (int n = 0; n < 16; ++n) {
                sums[m][n] += emulated_bf16(left[m][2 * k]) * emulated_bf16(right[k][2 * n]);
                sums[m][n] +=
                    emulated_bf16(left[m][2 * k + 1]) * emulated_bf16(right[k][2 * n + 1]);
            }
        }
    }
    memcpy(&emulated_tiles[c], sums, sizeof sums);
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(config) emulated_loadconfig(config)
#define _tile_release() ((void)(emulated_configured = 0))
#define _tile_zero(t) emulated_zero(t)
#define _tile_loadd(t, base, stride) emulated_loadd(t, base, stride)
#define _tile_stored(t, base, stride) emulated_stored(t, base, stride)
#define _tile_dpbf16ps(c, a, b) emulated_dpbf16ps(c, a, b)
