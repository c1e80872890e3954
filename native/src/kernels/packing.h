/* packing.h: how packed weights lie in memory, for all levels above reference. */
#ifndef RWKV_PACKING_H
#define RWKV_PACKING_H

#include "kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- by panels (panel16.c) ------------------------------------------------------------------- */

/* Layout "panel16". In a panel the 16 rows are interleaved so that one 512-bit vector (or two of
 * 256, or four of 128) holds the same columns of all 16 rows:
 *     fp32, fp16, bf16   column after column, 16 values each
 *     quantised    block after block of 32 columns, each with the parts
 *                    codes   groups of 4 columns, 16 rows x 4 bytes:
 *                      4-bit part: 4 groups of 64 bytes; byte j of a row's 16 holds column j in its
 *                        low and column j + 16 in its high half
 *                      8-bit part: 8 groups of 64 bytes
 *                    high    (q5) for each of the 8 groups a uint64, whose bit 4 row + c belongs to
 *                      column c of the group; columns 0-15 (low halves) are groups 0-3, columns
 *                      16-31 are groups 4-7
 *                      (q6_K) two times 64 bytes, each with two bits of four groups: byte
 *                      4 row + c of the first holds those of column c of group 0 in its lowest two
 *                      bits, of group 1 in the next; the second, groups 4-7
 *                    d, then m (q4_1, q5_1): 16 x fp16
 *                  In odd blocks the codes come last, so that they begin at multiples of 64 bytes
 *                  although d is but 32: in every panel of a matrix whose rows have an even number
 *                  of blocks, else in every other one.
 *     super-blocks begin with what their eight blocks need, 320 bytes:
 *                    d, m    16 x fp16 each (m of q6_K: zeros)
 *                    s, t    for each block 16 bytes of s, then for each block 16 bytes of t;
 *                      (q6_K) for each block 16 times its two s
 *                  then codes and high of each block. s and t have 6 bits in a file and 8 here: a
 *                  packed matrix is larger by 1 to 3 %.
 * A panel is one run of bytes that a product reads from its first to its last, because a core's
 * prefetchers follow one such run at the memory's full rate, but not two that take turns.
 * Rows beyond n_out are zeros. Else a matrix takes the bytes of its file, rounded up to whole
 * panels. */
size_t rwkv_panel16_size(rwkv_type type, size_t n_out, size_t n_in);
void rwkv_panel16_pack(rwkv_type type, const uint8_t* src, size_t n_out, size_t n_in,
                       size_t panel_begin, size_t panel_end, uint8_t* dst);

/* Values of `size` bytes, n_rows rows of them: column after column, `width` (>= n_rows) each. */
void rwkv_pack_values(const uint8_t* src, size_t size, size_t width, size_t n_rows, size_t n_in,
                      uint8_t* dst);

/* Where the parts of a block lie; only for types that have them. */
typedef struct rwkv_block16 {
    const uint8_t* codes; /* 256 bytes, or 512 for q8_0 */
    const uint8_t* high;  /* 64 or 128 bytes */
    const uint8_t* d;     /* 32 bytes */
    const uint8_t* m;     /* 32 bytes */
    const uint8_t* s;     /* 16 bytes, or 32 for q6_K */
    const uint8_t* t;     /* 16 bytes */
} rwkv_block16;

enum { RWKV_SUPER_HEAD = 320 };

/* Bytes of a block's codes and high bits. */
static inline size_t rwkv_panel16_codes(rwkv_type type) {
    return (size_t)RWKV_PANEL * RWKV_BLOCK * rwkv_block_type_of(type)->code_bits / 8;
}

/* Bytes of a panel. */
static inline size_t rwkv_panel16_bytes(rwkv_type type, size_t n_in) {
    if (!rwkv_is_super(type)) return RWKV_PANEL * rwkv_row_bytes(type, n_in);
    return n_in / RWKV_SUPER * (RWKV_SUPER_HEAD + 8 * rwkv_panel16_codes(type));
}

/* Block b of the panel that begins at `panel`. */
static inline rwkv_block16 rwkv_block16_at(rwkv_type type, const uint8_t* panel, size_t b) {
    const size_t nibbles = rwkv_block_type_of(type)->code_bits == 8 ? 512 : 256;
    rwkv_block16 at;
    if (rwkv_is_super(type)) {
        const uint8_t* head = panel + b / 8 * rwkv_panel16_bytes(type, RWKV_SUPER);
        at.d = head;
        at.m = head + 32;
        at.s = head + 64 + b % 8 * 16 * rwkv_block_type_of(type)->n_scales;
        at.t = at.s + 128;
        at.codes = head + RWKV_SUPER_HEAD + b % 8 * rwkv_panel16_codes(type);
        at.high = at.codes + nibbles;
        return at;
    }
    const size_t size = RWKV_PANEL * rwkv_block_bytes(type);
    const size_t odd = b % 2;
    const uint8_t* block = panel + b * size;
    at.codes = block + odd * (size - nibbles);
    at.high = block + (1 - odd) * nibbles;
    at.d = at.high + 64 * rwkv_high_bits(type);
    at.m = at.d + 32;
    at.s = at.t = at.d; /* there are none */
    return at;
}

/* Asks for what comes before the codes of a super-block that begins with block b. */
static inline void rwkv_prefetch_head(rwkv_type type, const rwkv_block16* block, size_t b,
                                      int far_ahead) {
    if (!rwkv_is_super(type) || b % 8 != 0) return;
    for (size_t i = 0; i < RWKV_SUPER_HEAD; i += 64) rwkv_prefetch(block->d + i, far_ahead);
}

/* Panel `panel` of a matrix. */
static inline const uint8_t* rwkv_panel16_at(rwkv_type type, const rwkv_matrix* w, size_t panel) {
    return (const uint8_t*)w->data + panel * rwkv_panel16_bytes(type, w->n_in);
}

/* ---- by columns (columns.c) ------------------------------------------------------------------ */

/* Layout "columns". In the channel mix, relu^2 leaves a value matrix with few inputs that are not
 * zero, so what one input needs lies together, in a cache line or two. A panel is RWKV_COLUMN rows
 * of the matrix: block after block of 32 inputs, each with the parts
 *     d, then m      128 x fp16 each (m: q4_1, q5_1)
 *     high           32 inputs x 128 bits (q5), or x 2 x 128 (q6_K)
 *     codes          32 inputs x 128 codes: 64 bytes of nibbles, or 128 bytes (q8_0)
 * Of an input's 64 bytes, byte rwkv_column_byte(o) holds output o < 64 in its low half and output
 * o + 64 in its high half; so do the first and the second 64 bits of the fifth and, for q8_0, the
 * first and the second 64 bytes. Of q6_K's 32 bytes of upper bits, byte i holds those of bytes i
 * and i + 32: from its lowest two bits on, of the low half of byte i, its high half, and those of
 * byte i + 32. In that order, zipping the bytes of four inputs leaves the four codes of an
 * output side by side and the outputs in sequence, as in panel16, whatever a vector's width.
 *
 * Super-blocks of 256 inputs begin with d and m, 128 x fp16 each (m of q6_K: zeros); in place of
 * these, their blocks have s and t, 128 bytes each, or (q6_K) 128 times two s. */
void rwkv_columns_pack(rwkv_type type, const uint8_t* src, size_t n_out, size_t n_in,
                       size_t panel_begin, size_t panel_end, uint8_t* dst);

/* Values lie in stripes of `width` rows, a divisor of RWKV_COLUMN that a level chooses: column after
 * column, `width` values each. Panels [panel_begin, panel_end) are packed; what is unpacked is
 * panel16. */
void rwkv_columns_pack_values(rwkv_type type, size_t width, const uint8_t* src, size_t n_in,
                              size_t panel_begin, size_t panel_end, uint8_t* dst);
void rwkv_columns_unpack_values(const rwkv_matrix* w, size_t width, size_t panel, uint8_t* dst);

/* Zipping bytes, then pairs of them, takes the bytes 4 s .. 4 s + 3 of each 16 to vector s: those
 * are to be the outputs 16 s + 4 l .. 16 s + 4 l + 3 in the l-th 16. */
static inline size_t rwkv_column_byte(size_t o) { return o % 16 / 4 * 16 + o / 16 * 4 + o % 4; }

/* Where the parts of a block lie; only for types that have them. */
typedef struct rwkv_columns_block {
    const uint8_t* begin; /* of all that the block needs beyond earlier ones */
    const uint8_t* d;
    const uint8_t* m;
    const uint8_t* s;
    const uint8_t* t;
    const uint8_t* high;
    const uint8_t* codes;
    const uint8_t* end;
} rwkv_columns_block;

/* Bytes of a panel. */
static inline size_t rwkv_columns_bytes(rwkv_type type, size_t n_in) {
    return RWKV_COLUMN / RWKV_PANEL * rwkv_panel16_bytes(type, n_in);
}

/* Block b of the panel that begins at `panel`. */
static inline rwkv_columns_block rwkv_columns_block_at(rwkv_type type, const uint8_t* panel,
                                                       size_t b) {
    const size_t fp16s = 2 * RWKV_COLUMN;
    const size_t codes = (size_t)RWKV_COLUMN * rwkv_block_type_of(type)->code_bits * RWKV_BLOCK / 8;
    const size_t high = (size_t)RWKV_COLUMN * rwkv_high_bits(type) * RWKV_BLOCK / 8;
    rwkv_columns_block at;
    if (rwkv_is_super(type)) {
        const uint8_t* head = panel + b / 8 * rwkv_columns_bytes(type, RWKV_SUPER);
        at.d = head;
        at.m = head + fp16s;
        at.s = head + 2 * fp16s + b % 8 * (2 * RWKV_COLUMN + codes);
        at.t = at.s + RWKV_COLUMN;
        at.high = at.s + 2 * (size_t)RWKV_COLUMN;
        at.begin = b % 8 == 0 ? head : at.s;
    } else {
        at.begin = panel + b * RWKV_COLUMN * rwkv_block_bytes(type);
        at.d = at.begin;
        at.m = at.d + fp16s;
        at.s = at.t = at.d; /* there are none */
        at.high = at.m + (rwkv_has_m(type) ? fp16s : 0);
    }
    at.codes = at.high + high;
    at.end = at.high + codes;
    return at;
}

/* Panel `panel` of a matrix. */
static inline const uint8_t* rwkv_columns_at(const rwkv_matrix* w, size_t panel) {
    return (const uint8_t*)w->data + panel * rwkv_columns_bytes(w->type, w->n_in);
}

#ifdef __cplusplus
}
#endif

#endif /* RWKV_PACKING_H */
