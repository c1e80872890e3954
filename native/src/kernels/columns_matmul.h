/* columns_matmul.h: the products of matrices by columns (see kernels.h), written once for all
 * vector levels. A level's file defines, then includes this file:
 *
 *     bytes, BYTES              a vector of bytes, and how many: 32 or 64
 *     load_bytes, store_bytes, or_bytes
 *     low_halves, high_halves   of each byte, as a byte
 *     join_halves               the reverse: low | high << 4, of the lower 4 bits of both
 *     zip8, zip16               bytes, or pairs of bytes, of a and b in turns, from the lower or
 *                               the upper half of each 16 bytes: (a, b, upper)
 *     fifth_bits, store_fifth   BYTES bits -> bytes of 16 or 0; bit 4 of each byte -> BYTES bits
 *     not_zero                  32 bytes -> as many bits
 *     dots                      a block's sums for BYTES / 4 outputs, in a form of the level's own
 *     begin_dots, add_dots      before any input; four more of them, whose codes lie side by side
 * for each output end_dots                  the sums with signed codes, in int32 vec, vload,
 * vstore, vset1, vmul, vfma    BYTES / 4 floats, as in vector_kernels.h vload_fp16, vfrom_int32 as
 * many fp16, or int32, as floats */

enum {
    PARTS = 64 / BYTES,   /* vectors that hold an input's 64 bytes */
    OUTPUTS = BYTES / 4,  /* of a vector of sums */
    ABREAST = BYTES / 32, /* vectors of sums, a block's codes for which fit the registers */
    ROWS_ALONE = 3,       /* rows up to which each skips its own zeros */
    INPUTS_AHEAD = 56,    /* how far ahead inputs that are not zero are fetched */
    LINE = 64,            /* bytes of a cache line */
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

/* The codes of four inputs of a block, side by side for each output: code[s] for those from
 * 16 s + OUTPUTS part on. */
INLINE void codes_of_four(rwkv_type type, const rwkv_columns_block* block, const size_t input[4],
                          size_t part, bytes code[8]) {
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
        if (rwkv_has_fifth(type)) {
            const uint8_t* bits = block->fifth + 16 * input[k] + BYTES / 8 * part;
            high[k] = or_bytes(high_halves(low[k]), fifth_bits(bits + 8));
            low[k] = or_bytes(low_halves(low[k]), fifth_bits(bits));
        }
    }
    zip_four(low, code);
    if (type == RWKV_TYPE_Q8_0 || rwkv_has_fifth(type)) {
        zip_four(high, code + 4);
        return;
    }
    for (int s = 0; s < 4; ++s) {
        code[s + 4] = high_halves(code[s]);
        code[s] = low_halves(code[s]);
    }
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

/* sum + (d_w d_x) isum (+ m_w s_x) of a block, for the outputs from o on, in the order of matmul.
 */
INLINE vec add_block_sum(rwkv_type type, vec sum, vec dw, vec mw, const rwkv_q8* x, dots isum) {
    const vec d = vmul(dw, vset1(x->d));
    sum = vfma(d, vfrom_int32(end_dots(type, isum, x)), sum);
    return rwkv_has_m(type) ? vfma(mw, vset1(x->s), sum) : sum;
}

INLINE vec block_m(rwkv_type type, const rwkv_columns_block* block, size_t o) {
    return rwkv_has_m(type) ? vload_fp16(block->m + 2 * o) : vset1(0.0f);
}

INLINE void fetch_all(const uint8_t* block, size_t size) {
    for (size_t i = 0; i < size; i += LINE) rwkv_prefetch(block + i);
}

/* Asks for what a block needs: all that comes before its codes, and the codes of the inputs that
 * are not zero. */
INLINE void fetch_active(rwkv_type type, const uint8_t* block, const rwkv_q8* x) {
    const size_t input_bytes = type == RWKV_TYPE_Q8_0 ? 128 : 64;
    const uint8_t* codes = rwkv_columns_block_at(type, block).codes;
    for (const uint8_t* p = block; p < codes; p += LINE) __builtin_prefetch(p, 0, 3);
    for (uint32_t set = not_zero(x->q); set != 0; set &= set - 1) {
        const uint8_t* p = codes + (size_t)__builtin_ctz(set) * input_bytes;
        __builtin_prefetch(p, 0, 3);
        if (input_bytes > LINE) __builtin_prefetch(p + LINE, 0, 3);
    }
}

/* The blocks that a row meets, fetched some way ahead of their use: those of a panel, then those of
 * the next, which is the thread's next unless another has taken it, up to the matrix's end. */
typedef struct fetcher {
    const uint8_t* block;
    const uint8_t* end;
    const rwkv_q8* first;
    size_t stride;
    size_t n_blocks;
    size_t b; /* block's place in its panel */
} fetcher;

INLINE void fetch_next(rwkv_type type, fetcher* f) {
    if (f->block == f->end) return;
    fetch_active(type, f->block, f->first + f->b * f->stride);
    f->block += rwkv_columns_block_bytes(type);
    f->b = f->b + 1 < f->n_blocks ? f->b + 1 : 0;
}

/* A row, of which all inputs are read, or (skip) those that are not zero. */
INLINE void columns_row(rwkv_type type, int skip, size_t blocks_ahead, const rwkv_matrix* w,
                        const rwkv_rows* x, size_t row, size_t panel, float* y) {
    const size_t n_blocks = w->n_in / RWKV_BLOCK;
    const size_t size = rwkv_columns_block_bytes(type);
    const uint8_t* at = rwkv_columns_at(w, panel);
    const rwkv_q8* xb = rwkv_q8_row(x, row);
    fetcher ahead = {at, rwkv_columns_at(w, w->n_out / RWKV_COLUMN), xb, x->tile, n_blocks, 0};
    vec sum[PARTS][8];
    for (size_t part = 0; part < PARTS; ++part) {
        for (int s = 0; s < 8; ++s) sum[part][s] = vset1(0.0f);
    }
    for (size_t b = 0; skip && b < blocks_ahead; ++b) fetch_next(type, &ahead);
    for (size_t b = 0; b < n_blocks; ++b, at += size, xb += x->tile) {
        const rwkv_columns_block block = rwkv_columns_block_at(type, at);
        if (skip) {
            fetch_next(type, &ahead);
        } else {
            fetch_all(at, size);
        }
        for (size_t part = 0; part < PARTS; ++part) {
            dots isum[8];
            for (int s = 0; s < 8; ++s) isum[s] = begin_dots(type, xb);
            uint32_t set = skip ? not_zero(xb->q) : 0;
            for (size_t j = 0; skip ? set != 0 : j < RWKV_BLOCK; j += 4) {
                size_t input[4];
                bytes code[8];
                const int32_t q = skip ? take_four(&set, xb->q, input) : four_from(j, xb->q, input);
                codes_of_four(type, &block, input, part, code);
                for (int s = 0; s < 8; ++s) isum[s] = add_dots(type, isum[s], code[s], q);
            }
            for (size_t s = 0; s < 8; ++s) {
                const size_t o = 16 * s + OUTPUTS * part;
                const vec dw = vload_fp16(block.d + 2 * o);
                const vec mw = block_m(type, &block, o);
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

/* Rows of a tile: a block's codes are zipped once for all of them, and their sums are in y. */
INLINE void columns_tile(rwkv_type type, const rwkv_matrix* w, const rwkv_rows* x, size_t row,
                         size_t n_rows, size_t panel, float* y, size_t ldy) {
    const size_t size = rwkv_columns_block_bytes(type);
    const uint8_t* at = rwkv_columns_at(w, panel);
    const rwkv_q8* xb = rwkv_q8_row(x, row);
    for (size_t i = 0; i < n_rows; ++i) memset(y + i * ldy, 0, RWKV_COLUMN * sizeof *y);
    for (size_t b = 0; b < w->n_in / RWKV_BLOCK; ++b, at += size, xb += x->tile) {
        const rwkv_columns_block block = rwkv_columns_block_at(type, at);
        fetch_all(at, size);
        for (size_t part = 0; part < PARTS; ++part) {
            bytes codes[8][8]; /* of 8 times OUTPUTS outputs and of 8 times four inputs */
            for (size_t g = 0; g < 8; ++g) {
                const size_t input[4] = {4 * g, 4 * g + 1, 4 * g + 2, 4 * g + 3};
                bytes code[8];
                codes_of_four(type, &block, input, part, code);
                for (int s = 0; s < 8; ++s) codes[s][g] = code[s];
            }
            for (size_t s = 0; s < 8; s += ABREAST) {
                const size_t o = 16 * s + OUTPUTS * part;
                vec dw[ABREAST];
                vec mw[ABREAST];
                bytes code[ABREAST][8];
                for (size_t a = 0; a < ABREAST; ++a) {
                    dw[a] = vload_fp16(block.d + 2 * (o + 16 * a));
                    mw[a] = block_m(type, &block, o + 16 * a);
                    for (int g = 0; g < 8; ++g) code[a][g] = codes[s + a][g];
                }
                for (size_t i = 0; i < n_rows; ++i) {
                    const uint8_t* q = (const uint8_t*)xb[i].q;
                    dots isum[ABREAST];
                    for (int a = 0; a < ABREAST; ++a) isum[a] = begin_dots(type, &xb[i]);
                    for (int g = 0; g < 8; ++g) {
                        const int32_t four = (int32_t)rwkv_load_u32(q + 4 * g);
                        for (int a = 0; a < ABREAST; ++a) {
                            isum[a] = add_dots(type, isum[a], code[a][g], four);
                        }
                    }
                    for (size_t a = 0; a < ABREAST; ++a) {
                        float* to = y + i * ldy + o + 16 * a;
                        const vec sum = vload(to, OUTPUTS);
                        vstore(to, OUTPUTS,
                               add_block_sum(type, sum, dw[a], mw[a], &xb[i], isum[a]));
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
    } else if (n_rows == 1) {
        columns_row(type, 0, 0, w, x, row_begin, panel, y);
    } else {
        for (size_t row = row_begin, n; row < row_end; row += n, y += n * ldy) {
            const size_t together = x->tile - row % x->tile;
            n = row_end - row < together ? row_end - row : together;
            columns_tile(type, w, x, row, n, panel, y, ldy);
        }
    }
}

INLINE void unpack_panel(rwkv_type type, const rwkv_matrix* w, size_t panel, uint8_t* dst) {
    const int is_q8 = type == RWKV_TYPE_Q8_0;
    const size_t panel16_bytes = RWKV_PANEL * rwkv_row_bytes(type, w->n_in);
    const size_t size = rwkv_columns_block_bytes(type);
    const uint8_t* at = rwkv_columns_at(w, panel);
    for (size_t b = 0; b < w->n_in / RWKV_BLOCK; ++b, at += size) {
        const rwkv_columns_block from = rwkv_columns_block_at(type, at);
        fetch_all(at, size);
        for (size_t g = 0; g < (is_q8 ? 8 : 4); ++g) {
            const size_t first[4] = {4 * g, 4 * g + 1, 4 * g + 2, 4 * g + 3};
            const size_t second[4] = {4 * g + 16, 4 * g + 17, 4 * g + 18, 4 * g + 19};
            for (size_t part = 0; part < PARTS; ++part) {
                bytes low[8];
                bytes high[8];
                codes_of_four(type, &from, first, part, low);
                if (!is_q8) codes_of_four(type, &from, second, part, high);
                for (size_t s = 0; s < 8; ++s) {
                    const rwkv_block16 block = rwkv_block16_at(type, dst + s * panel16_bytes, b);
                    uint8_t* codes = dst + (block.codes - dst) + 64 * g + BYTES * part;
                    store_bytes(codes, is_q8 ? low[s] : join_halves(low[s], high[s]));
                    if (rwkv_has_fifth(type)) {
                        uint8_t* fifth = dst + (block.fifth - dst) + 8 * g + BYTES / 8 * part;
                        store_fifth(fifth, low[s]);
                        store_fifth(fifth + 32, high[s]);
                    }
                }
            }
        }
        for (size_t s = 0; s < 8; ++s) {
            const rwkv_block16 block = rwkv_block16_at(type, dst + s * panel16_bytes, b);
            memcpy(dst + (block.d - dst), from.d + 32 * s, 32);
            if (rwkv_has_m(type)) memcpy(dst + (block.m - dst), from.m + 32 * s, 32);
        }
    }
}

#define BY_TYPE(f, ...)                     \
    switch (w->type) {                      \
        case RWKV_TYPE_Q4_0:                \
            f(RWKV_TYPE_Q4_0, __VA_ARGS__); \
            break;                          \
        case RWKV_TYPE_Q4_1:                \
            f(RWKV_TYPE_Q4_1, __VA_ARGS__); \
            break;                          \
        case RWKV_TYPE_Q5_0:                \
            f(RWKV_TYPE_Q5_0, __VA_ARGS__); \
            break;                          \
        case RWKV_TYPE_Q5_1:                \
            f(RWKV_TYPE_Q5_1, __VA_ARGS__); \
            break;                          \
        default:                            \
            f(RWKV_TYPE_Q8_0, __VA_ARGS__); \
            break;                          \
    }

static void matmul_columns(const rwkv_matrix* w, const rwkv_rows* x, size_t row_begin,
                           size_t row_end, size_t panel, float* y, size_t ldy) {
    BY_TYPE(columns_rows, w, x, row_begin, row_end, panel, y, ldy)
}

static void unpack_columns(const rwkv_matrix* w, size_t panel, uint8_t* dst) {
    BY_TYPE(unpack_panel, w, panel, dst)
}

#undef BY_TYPE

static void use_columns(rwkv_kernels* k) {
    for (int type = RWKV_TYPE_Q4_0; type <= RWKV_TYPE_Q8_0; ++type) {
        k->matrix[type].pack_columns = rwkv_columns_pack;
        k->matrix[type].matmul_columns = matmul_columns;
        k->matrix[type].unpack_columns = unpack_columns;
    }
}
