/* The limits of AMX: tiles of 16 rows of 64 bytes; four sums from two left and two right tiles. */
#include <immintrin.h>

#include "limits.h"

enum { SUMS = 4 };

/* Eight tiles of 16 rows of 64 bytes. */
static void configure(void) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes_per_row[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < 8; ++i) {
        config.bytes_per_row[i] = 64;
        config.rows[i] = 16;
    }
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
}

static double multiply_int8(size_t rounds) {
    configure();
    for (size_t r = 0; r < rounds; ++r) {
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 7);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
    }
    _tile_release();
    return (double)rounds * SUMS * 16 * 16 * 64;
}

static double multiply_bf16(size_t rounds) {
    configure();
    for (size_t r = 0; r < rounds; ++r) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
    return (double)rounds * SUMS * 16 * 16 * 32;
}

void limits_amx(limits* l) {
    l->multiply_int8 = multiply_int8;
    l->multiply_bf16 = multiply_bf16;
}
