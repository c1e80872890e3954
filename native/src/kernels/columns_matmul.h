/* columns_matmul.h: the products of matrices by columns (see packing.h), written once for all
 * vector levels. A level's file defines, then includes this file:
 *
 *     bytes, BYTES              a vector of bytes, and how many: 32 or 64
 *     load_bytes, store_bytes, or_bytes
 *     low_halves, high_halves   of each byte, as a byte
 *     join_halves               the reverse: low | high << 4, of the lower 4 bits of both
 *     zip8, zip16               bytes, or pairs of bytes, of a and b in turns, from the lower or
 *                               the upper half of each 16 bytes: (a, b, upper)
 *     fifth_bits, store_fifth   BYTES bits -> bytes of 16 or 0; bit 4 of each byte -> BYTES bits
 *     two_bits                  an input's upper bits of q6_K -> bytes of 0, 16, 32 or 48 for the
 *                               low or the high halves of its codes of a part: (p, part, high)
 *     numbers                   codes as add_dots takes them: (type, codes)
 *     not_zero                  32 bytes -> as many bits
 *     dots                      a block's sums for BYTES / 4 outputs, in a form of the level's own
 *     begin_dots                before any input: (type, x, half), half of q6_K's block
 *     add_dots                  four more inputs, whose codes lie side by side for each output
 *     end_dots                  the sums with signed codes, as
 *     ints, zero_ints, add_ints, scaled
 *                               BYTES / 4 int32; zeros; a + b; times the first or second of each
 *                               output's two s: (sums, s, half)
 *     vec, vload, vstore, vset1, vmul, vfma
 *                               BYTES / 4 floats, as in vector_kernels.h
 *     vfrom_int32               ints as floats
 *     FAR_ROWS                  from how many rows on rwkv_prefetch asks far ahead, too
 *     load_d, load_m            d_w and m_w of a block, for the outputs from o on: (type, d, s, o),
 *                               (type, m, t, o) */

enum {
    PARTS = 64 / BYTES,  /* vectors that hold an input's 64 bytes */
    OUTPUTS = BYTES / 4, /* of a vector of sums */
    ABREAST = 2,         /* vectors of sums that share a row's activations, 64 outputs apart, */
    GROUPS = BYTES / 8,  /* and groups of four inputs: as many codes as fit the registers */
    ROWS_ALONE = 3,      /* rows up to which each skips its own zeros */
    INPUTS_AHEAD = 56,   /* how far ahead inputs that are not zero are fetched */
    LINE = 64,           /* bytes of a cache line */
};

/* out[s] holds the bytes of in[0] to in[3] in turns, for the outputs from 16 s on: see
 * rwkv_column_byte. */
INLINE void zip_four(const bytes in[4], bytes out[4]) {
    for (int upper = 0; upper < 2; ++upper) {
        const bytes ab = zip8(in[0], in[1], upper);
        const bytes cd = zip8(in[2], in[3], upper);
        out[2 * upper] = zip16(ab, cd, 0);
        out[2 * upper + 1] = zip16(ab, cd, 1);
    }
}

/* Whether a code is a nibble: two of them lie in a byte, zipped or not. */
INLINE int is_nibble(rwkv_type type) { return type != RWKV_TYPE_Q8_0 && rwkv_high_bits(type) == 0; }

/* The codes of four inputs of a block, side by side for each output: zipped[s] for those from
 * 16 s + OUTPUTS part on; of nibbles, in the high halves of zipped[s] those of s + 4. */
INLINE void zip_inputs(rwkv_type type, const rwkv_columns_block* block, const size_t input[4],
                       size_t part, bytes zipped[8]) {
    bytes low[4];
    bytes high[4];
    for (int k = 0; k < 4; ++k) {
        if (type == RWKV_TYPE_Q8_0) {
            const uint8_t* p = block->codes + 128 * input[k] + BYTES * part;
            low[k] = load_bytes(p);
            high[k] = load_bytes(p + 64);
        } else {
            low[k] = load_bytes(block->codes + 64 * input[k] + BYTES * part);
        }
        if (rwkv_high_bits(type) == 1) {
            const uint8_t* bits = block->high + 16 * input[k] + BYTES / 8 * part;
            high[k] = or_bytes(high_halves(low[k]), fifth_bits(bits + 8));
            low[k] = or_bytes(low_halves(low[k]), fifth_bits(bits));
        } else if (rwkv_high_bits(type) == 2) {
            const uint8_t* bits = block->high + 32 * input[k];
            high[k] = or_bytes(high_halves(low[k]), two_bits(bits, part, 1));
            low[k] = or_bytes(low_halves(low[k]), two_bits(bits, part, 0));
        }
    }
    zip_four(low, zipped);
    if (!is_nibble(type)) zip_four(high, zipped + 4);
}

/* Which of the zipped holds the codes for the outputs from 16 s + OUTPUTS part on, and these. */
INLINE size_t zipped_of(rwkv_type type, size_t s) { return is_nibble(type) ? s % 4 : s; }
INLINE bytes zipped_codes(rwkv_type type, bytes zipped, size_t s) {
    if (!is_nibble(type)) return zipped;
    return s < 4 ? low_halves(zipped) : high_halves(zipped);
}

/* All of them: code[s] for the outputs from 16 s + OUTPUTS part on. */
INLINE void codes_of_four(rwkv_type type, const rwkv_columns_block* block, const size_t input[4],
                          size_t part, bytes code[8]) {
    bytes zipped[8];
    zip_inputs(type, block, input, part, zipped);
    for (size_t s = 0; s < 8; ++s) code[s] = zipped_codes(type, zipped[zipped_of(type, s)], s);
}

/* The inputs j to j + 3, and their q one after the other. */
INLINE int32_t four_from(size_t j, const int8_t* q, size_t input[4]) {
    for (size_t k = 0; k < 4; ++k) input[k] = j + k;
    return (int32_t)rwkv_load_u32((const uint8_t*)q + j);
}

/* The lowest four inputs of a set, which are taken off it. Where there are no more, the last once
 * more, times 0. */
INLINE int32_t take_four(uint32_t* set, const int8_t* q, size_t input[4]) {
    uint32_t four = 0;
    size_t last = 0;
    for (int k = 0; k < 4; ++k) {
        const int none = *set == 0;
        last = none ? last : (size_t)__builtin_ctz(*set);
        four |= none ? 0 : (uint32_t)(uint8_t)q[last] << 8 * k;
        input[k] = last;
        *set &= *set - 1;
    }
    return (int32_t)four;
}

/* q6_K sums the halves of a block apart. */
INLINE int n_halves(rwkv_type type) { return rwkv_block_type_of(type)->n_scales == 2 ? 2 : 1; }

/* The sums of a block, of which these are those of one half, and those of the halves before. */
INLINE ints add_half(rwkv_type type, ints before, dots half_sums, const rwkv_q8* x,
                     const rwkv_columns_block* block, size_t o, int half) {
    const ints sums = end_dots(type, half_sums, x);
    if (n_halves(type) == 1) return sums;
    return add_ints(before, scaled(sums, block->s + 2 * o, half));
}

/* sum + (d_w d_x) isum (+ m_w s_x) of a block, in the order of matmul. */
INLINE vec add_block_sum(rwkv_type type, vec sum, vec dw, vec mw, const rwkv_q8* x, ints isum) {
    const vec d = vmul(dw, vset1(x->d));
    sum = vfma(d, vfrom_int32(isum), sum);
    return rwkv_has_m(type) ? vfma(mw, vset1(x->s), sum) : sum;
}

/* The i-th of n shares of a block. A core keeps some twenty misses under way and stops at one more: a
 * block's lines, asked for all at once, would take longer than what comes between two blocks. */
INLINE void fetch_share(const rwkv_columns_block* block, size_t i, size_t n, int far_ahead) {
    const size_t n_lines = ((size_t)(block->end - block->begin) + LINE - 1) / LINE;
    const uint8_t* end = block->begin + (i + 1) * n_lines / n * LINE;
    for (const uint8_t* p = block->begin + i * n_lines / n * LINE; p < end; p += LINE) {
        rwkv_prefetch(p, far_ahead);
    }
}

/* Asks for what a block needs: all that comes before its codes, and the codes of the inputs that
 * are not zero. Into the second-level cache: of lines here and there, which no prefetcher of the core's
 * own foresees, more are under way there than the first level has room for. */
INLINE void fetch_active(rwkv_type type, const rwkv_columns_block* block, const rwkv_q8* x) {
    const size_t input_bytes = type == RWKV_TYPE_Q8_0 ? 128 : 64;
    for (const uint8_t* p = block->begin; p < block->codes; p += LINE) __builtin_prefetch(p, 0, 2);
    for (uint32_t set = not_zero(x->q); set != 0; set &= set - 1) {
        const uint8_t* code = block->codes + (size_t)__builtin_ctz(set) * input_bytes;
        for (size_t i = 0; i < input_bytes; i += LINE) __builtin_prefetch(code + i, 0, 2);
    }
}

/* The blocks that a row meets, fetched some way ahead of their use: those of a panel, then those of
 * the next, which is the thread's next unless another has taken it, up to the matrix's end. */
typedef struct fetcher {
    const rwkv_matrix* w;
    size_t panel;
    size_t b; /* of the panel */
    const rwkv_q8* first;
    size_t stride;
    size_t n_blocks;
} fetcher;

INLINE void fetch_next(rwkv_type type, fetcher* f) {
    if (f->panel == f->w->n_out / RWKV_COLUMN) return;
    const uint8_t* panel = rwkv_columns_at(f->w, f->panel);
    const rwkv_columns_block block = rwkv_columns_block_at(type, panel, f->b);
    fetch_active(type, &block, f->first + f->b * f->stride);
    if (++f->b == f->n_blocks) {
        f->b = 0;
        ++f->panel;
    }
}

/* A row, of which all inputs are read, or (skip) those that are not zero. */
INLINE void columns_row(rwkv_type type, int skip, size_t blocks_ahead, const rwkv_matrix* w,
                        const rwkv_rows* x, size_t row, size_t panel, float* y) {
    const size_t n_blocks = w->n_in / RWKV_BLOCK;
    const size_t n_inputs = RWKV_BLOCK / (size_t)n_halves(type);
    const uint8_t* at = rwkv_columns_at(w, panel);
    const rwkv_q8* xb = rwkv_q8_row(x, row);
    fetcher ahead = {w, panel, 0, xb, x->tile, n_blocks};
    vec sum[PARTS][8];
    for (size_t part = 0; part < PARTS; ++part) {
        for (int s = 0; s < 8; ++s) sum[part][s] = vset1(0.0f);
    }
    for (size_t b = 0; skip && b < blocks_ahead; ++b) fetch_next(type, &ahead);
    for (size_t b = 0; b < n_blocks; ++b, xb += x->tile) {
        const rwkv_columns_block block = rwkv_columns_block_at(type, at, b);
        if (skip) fetch_next(type, &ahead);
        for (size_t part = 0; part < PARTS; ++part) {
            ints isum[8];
            for (int s = 0; s < 8; ++s) isum[s] = zero_ints();
            for (int half = 0; half < n_halves(type); ++half) {
                dots sums[8];
                for (int s = 0; s < 8; ++s) sums[s] = begin_dots(type, xb, half);
                const size_t first = n_inputs * (size_t)half;
                uint32_t set = skip ? not_zero(xb->q) : 0;
                if (n_halves(type) == 2) set &= 0xffffu << first;
                for (size_t j = first; skip ? set != 0 : j < first + n_inputs; j += 4) {
                    size_t input[4];
                    bytes code[8];
                    if (!skip) fetch_share(&block, 8 * part + j / 4, 8 * PARTS, 0);
                    const int32_t q =
                        skip ? take_four(&set, xb->q, input) : four_from(j, xb->q, input);
                    codes_of_four(type, &block, input, part, code);
                    for (int s = 0; s < 8; ++s) {
                        sums[s] = add_dots(type, sums[s], numbers(type, code[s]), q);
                    }
                }
                for (size_t s = 0; s < 8; ++s) {
                    const size_t o = 16 * s + OUTPUTS * part;
                    isum[s] = add_half(type, isum[s], sums[s], xb, &block, o, half);
                }
            }
            for (size_t s = 0; s < 8; ++s) {
                const size_t o = 16 * s + OUTPUTS * part;
                const vec dw = load_d(type, block.d, block.s, o);
                const vec mw = load_m(type, block.m, block.t, o);
                sum[part][s] = add_block_sum(type, sum[part][s], dw, mw, xb, isum[s]);
            }
        }
    }
    for (size_t part = 0; part < PARTS; ++part) {
        for (size_t s = 0; s < 8; ++s) {
            vstore(y + 16 * s + OUTPUTS * part, OUTPUTS, sum[part][s]);
        }
    }
}

/* A row's sums of a block that are to be gone on with: of a half or, where there are no halves, of
 * the whole block, and those of the half before. */
typedef struct open_sums {
    dots half[ABREAST];
    ints before[ABREAST];
} open_sums;

/* The groups [first, first + GROUPS) of a block, whose codes are at hand, added to a row's sums for
 * the outputs from o on: isum holds the block's where these are its last groups. */
INLINE void add_groups(rwkv_type type, bytes code[ABREAST][GROUPS], size_t first, const rwkv_q8* x,
                       const rwkv_columns_block* block, size_t o, open_sums* open,
                       ints isum[ABREAST]) {
    const size_t of_half = 8 / (size_t)n_halves(type);
    const size_t end = first + GROUPS;
    dots sums[ABREAST];
    for (size_t a = 0; a < ABREAST; ++a) {
        if (first % of_half != 0) sums[a] = open->half[a];
        isum[a] = first >= of_half ? open->before[a] : zero_ints();
    }
    for (size_t g = first; g < end; ++g) {
        const int half = (int)(g / of_half);
        const int32_t four = (int32_t)rwkv_load_u32((const uint8_t*)x->q + 4 * g);
        for (size_t a = 0; a < ABREAST; ++a) {
            if (g % of_half == 0) sums[a] = begin_dots(type, x, half);
            sums[a] = add_dots(type, sums[a], code[a][g - first], four);
            if ((g + 1) % of_half == 0) {
                isum[a] = add_half(type, isum[a], sums[a], x, block, o + 64 * a, half);
            }
        }
    }
    for (size_t a = 0; a < ABREAST && end < 8; ++a) {
        open->half[a] = sums[a];
        open->before[a] = isum[a];
    }
}

/* Rows of a tile: a block's codes are zipped once for all of them, and their sums are in y. What is
 * kept is as the file's bytes were, two nibbles in one: storing takes longer than taking apart. */
INLINE void columns_tile(rwkv_type type, const rwkv_matrix* w, const rwkv_rows* x, size_t row,
                         size_t n_rows, size_t panel, float* y, size_t ldy) {
    const uint8_t* at = rwkv_columns_at(w, panel);
    const rwkv_q8* xb = rwkv_q8_row(x, row);
    for (size_t i = 0; i < n_rows; ++i) memset(y + i * ldy, 0, RWKV_COLUMN * sizeof *y);
    for (size_t b = 0; b < w->n_in / RWKV_BLOCK; ++b, xb += x->tile) {
        const rwkv_columns_block block = rwkv_columns_block_at(type, at, b);
        for (size_t part = 0; part < PARTS; ++part) {
            bytes kept[8][8]; /* of 8 times OUTPUTS outputs and of 8 times four inputs */
            for (size_t g = 0; g < 8; ++g) {
                const size_t input[4] = {4 * g, 4 * g + 1, 4 * g + 2, 4 * g + 3};
                bytes zipped[8];
                zip_inputs(type, &block, input, part, zipped);
                for (int s = 0; s < (is_nibble(type) ? 4 : 8); ++s) kept[s][g] = zipped[s];
            }
            for (size_t s = 0; s < 4; ++s) {
                const size_t o = 16 * s + OUTPUTS * part;
                fetch_share(&block, 4 * part + s, 4 * PARTS, n_rows >= FAR_ROWS);
                open_sums open[RWKV_TILE];
                vec dw[ABREAST];
                vec mw[ABREAST];
                for (size_t a = 0; a < ABREAST; ++a) {
                    dw[a] = load_d(type, block.d, block.s, o + 64 * a);
                    mw[a] = load_m(type, block.m, block.t, o + 64 * a);
                }
                UNROLL
                for (size_t first = 0; first < 8; first += GROUPS) {
                    bytes code[ABREAST][GROUPS];
                    for (size_t g = 0; g < GROUPS; ++g) {
                        for (size_t a = 0; a < ABREAST; ++a) {
                            const bytes zipped = kept[zipped_of(type, s + 4 * a)][first + g];
                            code[a][g] = numbers(type, zipped_codes(type, zipped, s + 4 * a));
                        }
                    }
                    for (size_t i = 0; i < n_rows; ++i) {
                        ints isum[ABREAST];
                        add_groups(type, code, first, &xb[i], &block, o, &open[i], isum);
                        for (size_t a = 0; a < ABREAST && first + GROUPS == 8; ++a) {
                            float* to = y + i * ldy + o + 64 * a;
                            const vec sum = vload(to, OUTPUTS);
                            const vec more =
                                add_block_sum(type, sum, dw[a], mw[a], &xb[i], isum[a]);
                            vstore(to, OUTPUTS, more);
                        }
                    }
                }
            }
        }
    }
}

INLINE void columns_rows(rwkv_type type, const rwkv_matrix* w, const rwkv_rows* x, size_t row_begin,
                         size_t row_end, size_t panel, float* y, size_t ldy) {
    const size_t n_blocks = w->n_in / RWKV_BLOCK;
    const size_t n_rows = row_end - row_begin;
    size_t n_active = 0;
    for (size_t row = row_begin; n_rows <= ROWS_ALONE && row < row_end; ++row) {
        const rwkv_q8* xb = rwkv_q8_row(x, row);
        for (size_t b = 0; b < n_blocks; ++b, xb += x->tile) {
            n_active += (size_t)__builtin_popcount(not_zero(xb->q));
        }
    }
    /* Memory gives lines here and there more slowly than lines in a row: from two fifths on,
     * reading all of them takes no longer. */
    if (n_rows <= ROWS_ALONE && 5 * n_active < 2 * n_rows * w->n_in) {
        const size_t blocks = n_rows * n_blocks;
        const size_t blocks_ahead = 1 + INPUTS_AHEAD * blocks / (n_active + blocks);
        for (size_t row = row_begin; row < row_end; ++row, y += ldy) {
            columns_row(type, 1, blocks_ahead, w, x, row, panel, y);
        }
    } else if (n_rows == 1 && n_halves(type) == 1) { /* the sums of two halves fill the registers */
        columns_row(type, 0, 0, w, x, row_begin, panel, y);
    } else {
        for (size_t row = row_begin, n; row < row_end; row += n, y += n * ldy) {
            const size_t together = x->tile - row % x->tile;
            n = row_end - row < together ? row_end - row : together;
            columns_tile(type, w, x, row, n, panel, y, ldy);
        }
    }
}

/* The codes of a group of columns and, but for q8_0, of the group 16 columns on, as panel16 has
 * them. */
INLINE void store_group(rwkv_type type, const rwkv_block16* block, uint8_t* dst, size_t g,
                        size_t part, bytes low, bytes high) {
    uint8_t* codes = dst + (block->codes - dst) + 64 * g + BYTES * part;
    if (type == RWKV_TYPE_Q8_0) {
        store_bytes(codes, low);
        return;
    }
    store_bytes(codes, join_halves(low, high));
    if (rwkv_high_bits(type) == 1) {
        uint8_t* fifth = dst + (block->high - dst) + 8 * g + BYTES / 8 * part;
        store_fifth(fifth, low);
        store_fifth(fifth + 32, high);
    } else if (rwkv_high_bits(type) == 2) {
        uint8_t* upper = dst + (block->high - dst) + BYTES * part;
        uint8_t two[2][BYTES];
        store_bytes(two[0], high_halves(low));
        store_bytes(two[1], high_halves(high));
        for (size_t half = 0; half < 2; ++half, upper += 64) {
            if (g == 0) memset(upper, 0, BYTES);
            for (size_t i = 0; i < BYTES; ++i) upper[i] |= (uint8_t)(two[half][i] << 2 * g);
        }
    }
}

INLINE void unpack_panel(rwkv_type type, const rwkv_matrix* w, size_t panel, uint8_t* dst) {
    const int is_q8 = type == RWKV_TYPE_Q8_0;
    const size_t n_scales = rwkv_block_type_of(type)->n_scales;
    const size_t panel16_bytes = rwkv_panel16_bytes(type, w->n_in);
    const uint8_t* at = rwkv_columns_at(w, panel);
    for (size_t b = 0; b < w->n_in / RWKV_BLOCK; ++b) {
        const rwkv_columns_block from = rwkv_columns_block_at(type, at, b);
        const size_t n_groups = is_q8 ? 8 : 4;
        for (size_t g = 0; g < n_groups; ++g) {
            fetch_share(&from, g, n_groups, 0);
            const size_t first[4] = {4 * g, 4 * g + 1, 4 * g + 2, 4 * g + 3};
            const size_t second[4] = {4 * g + 16, 4 * g + 17, 4 * g + 18, 4 * g + 19};
            for (size_t part = 0; part < PARTS; ++part) {
                bytes low[8];
                bytes high[8];
                codes_of_four(type, &from, first, part, low);
                if (!is_q8) codes_of_four(type, &from, second, part, high);
                for (size_t s = 0; s < 8; ++s) {
                    const rwkv_block16 block = rwkv_block16_at(type, dst + s * panel16_bytes, b);
                    store_group(type, &block, dst, g, part, low[s], is_q8 ? low[s] : high[s]);
                }
            }
        }
        for (size_t p = 0; p < 8; ++p) {
            const rwkv_block16 block = rwkv_block16_at(type, dst + p * panel16_bytes, b);
            memcpy(dst + (block.d - dst), from.d + 32 * p, 32);
            /* Of q6_K: zeros. */
            if (rwkv_has_m(type) || n_scales != 0)
                memcpy(dst + (block.m - dst), from.m + 32 * p, 32);
            memcpy(dst + (block.s - dst), from.s + 16 * n_scales * p, 16 * n_scales);
            if (n_scales == 1) memcpy(dst + (block.t - dst), from.t + 16 * p, 16);
        }
    }
}

static void matmul_columns(const rwkv_matrix* w, const rwkv_rows* x, size_t row_begin,
                           size_t row_end, size_t panel, float* y, size_t ldy) {
    switch (w->type) {
#define CASE(type)                                                   \
    case type:                                                       \
        columns_rows(type, w, x, row_begin, row_end, panel, y, ldy); \
        break;
        RWKV_FOR_QUANTISED(CASE)
#undef CASE
        default: /* values: value_columns.h */
            break;
    }
}

static void unpack_columns(const rwkv_matrix* w, size_t panel, uint8_t* dst) {
    switch (w->type) {
#define CASE(type)                         \
    case type:                             \
        unpack_panel(type, w, panel, dst); \
        break;
        RWKV_FOR_QUANTISED(CASE)
#undef CASE
        default:
            break;
    }
}

static void use_columns(rwkv_kernels* k) {
    for (int type = 0; type < RWKV_TYPE_COUNT; ++type) {
        if (!rwkv_is_quantised((rwkv_type)type)) continue;
        k->matrix[type].pack_columns = rwkv_columns_pack;
        k->matrix[type].matmul_columns = matmul_columns;
        k->matrix[type].unpack_columns = unpack_columns;
    }
}
