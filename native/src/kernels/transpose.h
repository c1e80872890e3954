/* transpose.h: square matrices transposed, for levels that hold a square of them in registers. A
 * level's file defines the following, then includes this file.
 *
 *     square, SQUARE                   SQUARE rows of as many floats
 *     load_square(p, ld)               rows ld apart
 *     store_transposed(x, p, ld)       its columns as rows */

INLINE void transpose_of(const float* from, float* to, size_t n) {
    for (size_t i = 0; i < n; i += SQUARE) {
        for (size_t j = 0; j < i; j += SQUARE) { /* in pairs that change places: to may be from */
            const square below = load_square(from + i * n + j, n);
            const square above = load_square(from + j * n + i, n);
            store_transposed(below, to + j * n + i, n);
            store_transposed(above, to + i * n + j, n);
        }
        store_transposed(load_square(from + i * n + i, n), to + i * n + i, n);
    }
}

static void transpose(const float* from, float* to, size_t n) {
    if (n % SQUARE != 0) {
        rwkv_transpose(from, to, n);
    } else if (n == 64) {
        transpose_of(from, to, 64);
    } else {
        transpose_of(from, to, n);
    }
}
