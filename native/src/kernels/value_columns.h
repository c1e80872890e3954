/* value_columns.h: the products of matrices of values by columns (see packing.h), written once for the
 * vector levels that have them. A level's file defines, then includes this file:
 *
 *     vec, vset1, vadd, vfma, vstore    as in vector_kernels.h
 *     LANES             floats of a vector
 *     load_values       LANES values as a vec: (type, p)
 *     CHAINS            sums that each output is made of in panel_values, 2 or 4: input c goes to that of
 *                       c mod CHAINS, those beyond a multiple of CHAINS to the first
 *     VALUES_TILE       as for panel_matmul.h, which comes before this file
 *     FAR_ROWS          from how many rows on rwkv_prefetch asks far ahead, too */

enum {
    VECS = 4,                       /* vectors of outputs that lie together: a stripe */
    STRIPE = VECS * LANES,          /* these outputs */
    STRIPES = RWKV_COLUMN / STRIPE, /* of a panel */
    CHUNK = 64,                     /* inputs whose weights stay in the first-level cache */
    LISTED = 4096,                  /* inputs that are listed at a time */
    LISTED_AHEAD = 32,              /* how far ahead those that are listed are fetched */
    VALUE_ROWS_ALONE = 3,           /* rows up to which each skips its own zeros */
};

INLINE vec sum_of_chains(const vec chain[CHAINS]) {
    vec sum = vadd(chain[0], chain[1]);
    if (CHAINS == 4) sum = vadd(sum, vadd(chain[2], chain[CHAINS - 1]));
    return sum;
}

/* The inputs from `begin` on, fewer than `n` of a row x of n_in, that are not zero, chain after chain:
 * list[i] is such an input less `begin`; those of chain k end at ends[k]. */
INLINE void list_active(const float* x, size_t n_in, size_t begin, size_t n,
                        uint16_t list[LISTED + 1], size_t ends[CHAINS]) {
    const size_t whole = n_in - n_in % CHAINS;
    const size_t end = begin + n < whole ? begin + n : whole;
    size_t n_listed = 0;
    for (size_t k = 0; k < CHAINS; ++k) {
        for (size_t c = begin + k; c < end; c += CHAINS) {
            list[n_listed] = (uint16_t)(c - begin); /* the next takes its place if it is zero */
            n_listed += x[c] != 0.0f;
        }
        for (size_t c = end; k == 0 && c < begin + n; ++c) {
            list[n_listed] = (uint16_t)(c - begin);
            n_listed += x[c] != 0.0f;
        }
        ends[k] = n_listed;
    }
}

/* A row, of whose inputs those that are not zero are read. What is left out would have added 0 w to a
 * sum that is not -0, which changes nothing. */
INLINE void listed_row(rwkv_type type, const rwkv_matrix* w, const float* x, size_t panel,
                       float* y) {
    const size_t size = rwkv_block_bytes(type);
    const size_t column = STRIPE * size;
    const size_t stripe = w->n_in * column;
    vec sum[STRIPES][VECS][CHAINS];
    for (size_t s = 0; s < STRIPES; ++s) {
        for (size_t v = 0; v < VECS; ++v) {
            for (size_t k = 0; k < CHAINS; ++k) sum[s][v][k] = vset1(0.0f);
        }
    }
    for (size_t begin = 0; begin < w->n_in; begin += LISTED) {
        const size_t n = w->n_in - begin < LISTED ? w->n_in - begin : LISTED;
        uint16_t list[LISTED + 1];
        size_t ends[CHAINS];
        list_active(x, w->n_in, begin, n, list, ends);
        const size_t n_listed = ends[CHAINS - 1];
        const uint8_t* at = (const uint8_t*)w->data + STRIPES * panel * stripe + begin * column;
        for (size_t s = 0; s < STRIPES; ++s, at += stripe) {
            for (size_t k = 0, i = 0; k < CHAINS; ++k) {
                vec a[VECS];
                for (size_t v = 0; v < VECS; ++v) a[v] = sum[s][v][k];
                for (; i < ends[k]; ++i) {
                    /* Into the second-level cache, as fetch_active of columns_matmul.h does; behind
                     * the last comes the next stripe, whoever's it is. */
                    const size_t next = i + LISTED_AHEAD;
                    const uint8_t* far_p = next < n_listed ? at : at + stripe;
                    const size_t j = next < n_listed ? next : next - n_listed;
                    far_p += list[j < n_listed ? j : 0] * column;
                    for (size_t b = 0; b < column; b += 64) __builtin_prefetch(far_p + b, 0, 2);
                    const uint8_t* p = at + list[i] * column;
                    const vec xc = vset1(x[begin + list[i]]);
                    for (size_t v = 0; v < VECS; ++v) {
                        a[v] = vfma(load_values(type, p + v * LANES * size), xc, a[v]);
                    }
                }
                for (size_t v = 0; v < VECS; ++v) sum[s][v][k] = a[v];
            }
        }
    }
    for (size_t s = 0; s < STRIPES; ++s) {
        for (size_t v = 0; v < VECS; ++v) {
            vstore(y + s * STRIPE + v * LANES, LANES, sum_of_chains(sum[s][v]));
        }
    }
}

/* Input c of n_rows rows times `vecs` vectors of its weights at p, added to the sums of chain k. */
INLINE void add_input(rwkv_type type, const uint8_t* p, const float* xc, size_t ld, size_t n_rows,
                      size_t vecs, size_t k, vec sum[VECS][VALUES_TILE][CHAINS]) {
    for (size_t v = 0; v < vecs; ++v) {
        const vec wc = load_values(type, p + v * LANES * rwkv_block_bytes(type));
        for (size_t i = 0; i < n_rows; ++i) {
            sum[v][i][k] = vfma(wc, vset1(xc[i * ld]), sum[v][i][k]);
        }
    }
}

/* n_rows (1, 2 or 4) rows, of which all inputs are read. A chunk's weights come from memory once, and
 * are read again for other sums: half the registers hold sums, VECS CHAINS of them, for `vecs` vectors,
 * n_rows rows and `chains` chains. Where registers are 16, four rows take one chain at a time, so that
 * an activation's load serves two vectors: a core does as many loads in a cycle as products. */
INLINE void value_stripe(rwkv_type type, const rwkv_matrix* w, const rwkv_rows* x, size_t row,
                         size_t n_rows, size_t stripe, float* y, size_t ldy) {
    const size_t chains = LANES == 8 && n_rows == 4 ? 1 : CHAINS;
    const size_t vecs = VECS * CHAINS / (n_rows * chains);
    const size_t column = STRIPE * rwkv_block_bytes(type);
    const size_t step = CHAINS / chains * column;
    const size_t whole = w->n_in - w->n_in % CHAINS;
    const uint8_t* at = (const uint8_t*)w->data + stripe * w->n_in * column;
    const float* xr = x->x + row * x->ld;
    vec sum[VECS][VALUES_TILE][CHAINS];
    for (size_t v = 0; v < VECS; ++v) {
        for (size_t i = 0; i < n_rows; ++i) {
            for (size_t k = 0; k < CHAINS; ++k) sum[v][i][k] = vset1(0.0f);
        }
    }
    for (size_t begin = 0; begin < w->n_in; begin += CHUNK) {
        const size_t end = w->n_in - begin < CHUNK ? w->n_in : begin + CHUNK;
        for (size_t part = 0; part < n_rows; ++part) { /* of the sums */
            const size_t first = part * chains / CHAINS * vecs;
            const size_t chain = part * chains % CHAINS;
            const size_t offset = first * LANES * rwkv_block_bytes(type);
            const uint8_t* p = at + begin * column + offset;
            vec a[VECS][VALUES_TILE][CHAINS];
            for (size_t v = 0; v < vecs; ++v) {
                for (size_t i = 0; i < n_rows; ++i) {
                    for (size_t k = 0; k < chains; ++k) a[v][i][k] = sum[first + v][i][chain + k];
                }
            }
            size_t c = begin;
            for (; c + CHAINS <= end; c += CHAINS) {
                /* Each part fetches its share of what comes ahead. */
                const int fetches = c / CHAINS % n_rows == part;
                for (size_t k = 0; k < chains; ++k, p += step) {
                    for (size_t b = 0; fetches && b < step; b += 64) {
                        rwkv_prefetch(p - offset + b, n_rows >= FAR_ROWS);
                    }
                    add_input(type, p + chain * column, xr + c + chain + k, x->ld, n_rows, vecs, k,
                              a);
                }
            }
            for (; chain == 0 && c < end && c >= whole; ++c, p += column) {
                add_input(type, p, xr + c, x->ld, n_rows, vecs, 0, a);
            }
            for (size_t v = 0; v < vecs; ++v) {
                for (size_t i = 0; i < n_rows; ++i) {
                    for (size_t k = 0; k < chains; ++k) sum[first + v][i][chain + k] = a[v][i][k];
                }
            }
        }
    }
    for (size_t v = 0; v < VECS; ++v) {
        for (size_t i = 0; i < n_rows; ++i) {
            vstore(y + i * ldy + v * LANES, LANES, sum_of_chains(sum[v][i]));
        }
    }
}

INLINE void value_columns(rwkv_type type, const rwkv_matrix* w, const rwkv_rows* x,
                          size_t row_begin, size_t row_end, size_t panel, float* y, size_t ldy) {
    const size_t n_rows = row_end - row_begin;
    size_t n_active = 0;
    for (size_t row = row_begin; n_rows <= VALUE_ROWS_ALONE && row < row_end; ++row) {
        const float* xr = x->x + row * x->ld;
        for (size_t c = 0; c < w->n_in; ++c) n_active += xr[c] != 0.0f;
    }
    /* From where on reading all takes no longer: as in columns_matmul.h. */
    if (n_rows <= VALUE_ROWS_ALONE && 5 * n_active < 2 * n_rows * w->n_in) {
        for (size_t row = row_begin; row < row_end; ++row, y += ldy) {
            listed_row(type, w, x->x + row * x->ld, panel, y);
        }
        return;
    }
    /* Stripe after stripe, so that the next rows find it in the second-level cache. */
    for (size_t s = 0; s < STRIPES; ++s) {
        const size_t stripe = panel * STRIPES + s;
        float* at = y + s * STRIPE;
        for (size_t row = row_begin, n; row < row_end; row += n, at += n * ldy) {
            n = tile_rows(x, row, row_end, VALUES_TILE, 0);
            if (n == 1) {
                value_stripe(type, w, x, row, 1, stripe, at, ldy);
            } else if (n == 2) {
                value_stripe(type, w, x, row, 2, stripe, at, ldy);
            } else {
                value_stripe(type, w, x, row, 4, stripe, at, ldy);
            }
        }
    }
}

static void pack_value_columns(rwkv_type type, const uint8_t* src, size_t n_out, size_t n_in,
                               size_t panel_begin, size_t panel_end, uint8_t* dst) {
    (void)n_out; /* a multiple of RWKV_COLUMN: all stripes are whole */
    rwkv_columns_pack_values(type, STRIPE, src, n_in, panel_begin, panel_end, dst);
}

static void unpack_value_columns(const rwkv_matrix* w, size_t panel, uint8_t* dst) {
    rwkv_columns_unpack_values(w, STRIPE, panel, dst);
}

static void matmul_value_columns(const rwkv_matrix* w, const rwkv_rows* x, size_t row_begin,
                                 size_t row_end, size_t panel, float* y, size_t ldy) {
    if (w->type == RWKV_TYPE_FP32) {
        value_columns(RWKV_TYPE_FP32, w, x, row_begin, row_end, panel, y, ldy);
    } else if (w->type == RWKV_TYPE_FP16) {
        value_columns(RWKV_TYPE_FP16, w, x, row_begin, row_end, panel, y, ldy);
    } else {
        value_columns(RWKV_TYPE_BF16, w, x, row_begin, row_end, panel, y, ldy);
    }
}

static void use_value_columns(rwkv_kernels* k) {
    for (int type = 0; type < RWKV_TYPE_COUNT; ++type) {
        if (rwkv_is_quantised((rwkv_type)type)) continue;
        k->matrix[type].pack_columns = pack_value_columns;
        k->matrix[type].matmul_columns = matmul_value_columns;
        k->matrix[type].unpack_columns = unpack_value_columns;
    }
}
