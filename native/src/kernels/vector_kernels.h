/* vector_kernels.h: the element-wise kernels, norms and recurrences, written once for all vector
 * levels. A level's file defines the vector type and the operations below, then includes this file.
 *
 *     vec, LANES                     a vector of LANES floats
 *     vload(p, n), vstore(p, n, v)   the first min(n, LANES) elements; lanes beyond n load as zeros
 *     vset1(s)                       all lanes s
 *     vadd vsub vmul vdiv            rounded once each
 *     vfma(a, b, c), vfnma(a, b, c)  c + a b, c - a b, rounded once
 *     vmax(a, b), vmin(a, b)         b or NaN where either is NaN
 *     vround(v)                      to the nearest whole number, halves to even
 *     vpow2(p, n)                    p 2^n for whole n in [-126, 128]
 *     vscale(p, n)                   the same where p 2^n and 2^n are normal numbers
 *     vless(a, b, x, y)              x where a < b, else y
 *     vsum(v)                        the sum of all lanes
 *     vkeep(v, n)                    the first n lanes of v, the others zeros
 *     vmask                          yes or no for each lane
 *     vwithin(a, x, b)               where a <= x <= b
 *     vwhere(m, v)                   the lanes of v where m holds, the others zeros
 *     vpack(m, x, w, y, z)           where m holds, the lanes of x to y and of w to z, side by
 *                                    side; overwrites their next lanes; returns the number
 *
 * Tails go through the same arithmetic as whole vectors, so an element's value does not depend on
 * where it stands in its array. */

/* ---- exp and its relatives ------------------------------------------------------------------- */

/* exp(x) to 2 ulp: x = n ln 2 + r, |r| <= ln 2 / 2, exp(x) = 2^n (1 + r + r^2 P(r)); ln 2 in two
 * parts so that r is exact enough; P is the polynomial of Cephes' expf. Below -87.336 (2^-126) the
 * result is 0, above 88.722 infinity; NaN stays. */
INLINE vec vexp(vec x) {
    const vec low = vset1(-87.33654f);
    const vec high = vset1(88.72283f);
    const vec c = vmax(low, vmin(high, x));
    const vec n = vround(vmul(c, vset1(1.44269504f)));
    const vec r = vfnma(n, vset1(-2.12194440e-4f), vfnma(n, vset1(0.693359375f), c));
    vec p = vset1(1.9875691500e-4f);
    p = vfma(p, r, vset1(1.3981999507e-3f));
    p = vfma(p, r, vset1(8.3334519073e-3f));
    p = vfma(p, r, vset1(4.1665795894e-2f));
    p = vfma(p, r, vset1(1.6666665459e-1f));
    p = vfma(p, r, vset1(5.0000001201e-1f));
    p = vfma(vmul(r, r), p, vadd(r, vset1(1.0f)));
    const vec y = vless(x, low, vset1(0.0f), vpow2(p, n));
    return vless(high, x, vset1(INFINITY), y);
}

INLINE vec vneg(vec x) { return vsub(vset1(-0.0f), x); }

INLINE vec vsigmoid(vec x) {
    const vec one = vset1(1.0f);
    return vdiv(one, vadd(one, vexp(vneg(x))));
}

/* tanh(x) = sign(x) (1 - 2 / (exp(2 |x|) + 1)); where |x| < 0.625, and that would cancel, the odd
 * polynomial of Cephes' tanhf. */
INLINE vec vtanh(vec x) {
    const vec zero = vset1(0.0f);
    const vec one = vset1(1.0f);
    const vec a = vless(x, zero, vneg(x), x);
    const vec large = vsub(one, vdiv(vset1(2.0f), vadd(vexp(vadd(a, a)), one)));
    const vec z = vmul(x, x);
    vec p = vset1(-5.70498872745e-3f);
    p = vfma(p, z, vset1(2.06390887954e-2f));
    p = vfma(p, z, vset1(-5.37397155531e-2f));
    p = vfma(p, z, vset1(1.33314422036e-1f));
    p = vfma(p, z, vset1(-3.33332819422e-1f));
    const vec small = vfma(vmul(p, z), x, x);
    return vless(a, vset1(0.625f), small, vless(x, zero, vneg(large), large));
}

/* ---- element-wise ---------------------------------------------------------------------------- */

static void lerp(const float* x, const float* prev, const float* mix, size_t n, float* y) {
    for (size_t i = 0; i < n; i += LANES) {
        const vec xi = vload(x + i, n - i);
        const vec difference = vsub(vload(prev + i, n - i), xi);
        vstore(y + i, n - i, vfma(difference, vload(mix + i, n - i), xi));
    }
}

static void add(const float* x, const float* z, size_t n, float* y) {
    for (size_t i = 0; i < n; i += LANES) {
        vstore(y + i, n - i, vadd(vload(x + i, n - i), vload(z + i, n - i)));
    }
}

static void mul(const float* x, const float* z, size_t n, float* y) {
    for (size_t i = 0; i < n; i += LANES) {
        vstore(y + i, n - i, vmul(vload(x + i, n - i), vload(z + i, n - i)));
    }
}

static void add_mul(const float* x, const float* z, size_t n, float* y) {
    for (size_t i = 0; i < n; i += LANES) {
        vstore(y + i, n - i, vfma(vload(x + i, n - i), vload(z + i, n - i), vload(y + i, n - i)));
    }
}

static void sigmoid(const float* x, size_t n, float* y) {
    for (size_t i = 0; i < n; i += LANES) vstore(y + i, n - i, vsigmoid(vload(x + i, n - i)));
}

static void tanh_(const float* x, size_t n, float* y) {
    for (size_t i = 0; i < n; i += LANES) vstore(y + i, n - i, vtanh(vload(x + i, n - i)));
}

static void silu(const float* x, size_t n, float* y) {
    for (size_t i = 0; i < n; i += LANES) {
        const vec xi = vload(x + i, n - i);
        vstore(y + i, n - i, vmul(xi, vsigmoid(xi)));
    }
}

static void relu2(const float* x, size_t n, float* y) {
    for (size_t i = 0; i < n; i += LANES) {
        const vec positive = vmax(vset1(0.0f), vload(x + i, n - i));
        vstore(y + i, n - i, vmul(positive, positive));
    }
}

static void decay_v6(const float* x, size_t n, float* y) {
    for (size_t i = 0; i < n; i += LANES) {
        vstore(y + i, n - i, vexp(vneg(vexp(vload(x + i, n - i)))));
    }
}

/* ---- rows: sums go to four vectors in turn, which are added at the end ---------------------- */

INLINE vec add4(const vec v[4]) { return vadd(vadd(v[0], v[1]), vadd(v[2], v[3])); }

INLINE void layer_norm_of(const float* x, const float* w, const float* b, float eps, size_t n,
                          float* y) {
    const size_t whole = n - n % (4 * LANES);
    vec sum[4] = {vset1(0.0f), vset1(0.0f), vset1(0.0f), vset1(0.0f)};
    for (size_t i = 0; i < whole; i += 4 * LANES) {
        for (size_t c = 0; c < 4; ++c) sum[c] = vadd(sum[c], vload(x + i + c * LANES, LANES));
    }
    for (size_t i = whole; i < n; i += LANES) sum[0] = vadd(sum[0], vload(x + i, n - i));
    const vec mean = vset1(vsum(add4(sum)) / (float)n);
    for (size_t c = 0; c < 4; ++c) sum[c] = vset1(0.0f);
    for (size_t i = 0; i < whole; i += 4 * LANES) {
        for (size_t c = 0; c < 4; ++c) {
            const vec difference = vsub(vload(x + i + c * LANES, LANES), mean);
            sum[c] = vfma(difference, difference, sum[c]);
        }
    }
    for (size_t i = whole; i < n; i += LANES) {
        const vec difference = vkeep(vsub(vload(x + i, n - i), mean), n - i);
        sum[0] = vfma(difference, difference, sum[0]);
    }
    const float variance = vsum(add4(sum)) / (float)n;
    const vec factor = vset1(1.0f / sqrtf(variance + eps));
    for (size_t i = 0; i < n; i += LANES) {
        const vec normed = vmul(vsub(vload(x + i, n - i), mean), factor);
        vstore(y + i, n - i, vfma(normed, vload(w + i, n - i), vload(b + i, n - i)));
    }
}

static void layer_norm(const float* x, const float* w, const float* b, float eps, size_t n,
                       float* y) {
    layer_norm_of(x, w, b, eps, n, y);
}

/* ---- version 7's element-wise work, a head at a time; released models' heads have 64 channels
 * ----- */

INLINE void before_of(const rwkv_weights_v7* p, const rwkv_head_v7* h, size_t n) {
    const vec one = vset1(1.0f);
    vec squares = vset1(0.0f);
    for (size_t i = 0; i < n; i += LANES) {
        const vec kappa = vmul(vload(h->k + i, n - i), vload(p->k_k + i, n - i));
        vstore(h->minus_kappa + i, n - i, kappa);
        squares = vfma(kappa, kappa, squares);
    }
    const float length = sqrtf(vsum(squares));
    const vec to_unit = vset1(1.0f / (length < 1e-12f ? 1e-12f : length));
    /* Several loops, each with one chain of an exp: so the vectors of a head are worked on side by
     * side, while of one long loop too few steps are under way at once. */
    for (size_t i = 0; i < n; i += LANES) {
        const size_t left = n - i;
        const vec a = vsigmoid(vadd(vload(p->a0 + i, left), vload(h->a + i, left)));
        vstore(h->a + i, left, a);
        const vec factor = vfma(vsub(a, one), vload(p->k_a + i, left), one);
        vstore(h->k + i, left, vmul(vload(h->k + i, left), factor));
    }
    for (size_t i = 0; i < n; i += LANES) {
        const size_t left = n - i;
        vstore(h->w + i, left, vsigmoid(vadd(vload(p->w0 + i, left), vload(h->w + i, left))));
    }
    for (size_t i = 0; i < n; i += LANES) {
        const size_t left = n - i;
        const vec v = vload(h->v + i, left);
        if (p->v0 == NULL) {
            vstore(h->v_first + i, left, v);
        } else {
            const vec mix = vsigmoid(vadd(vload(p->v0 + i, left), vload(h->v_mix + i, left)));
            vstore(h->v + i, left, vfma(vsub(vload(h->v_first + i, left), v), mix, v));
        }
    }
    for (size_t i = 0; i < n; i += LANES) {
        const size_t left = n - i;
        vstore(h->w + i, left, vexp(vmul(vset1(-0.606531f), vload(h->w + i, left))));
    }
    for (size_t i = 0; i < n; i += LANES) {
        const size_t left = n - i;
        const vec kappa = vmul(vload(h->minus_kappa + i, left), to_unit);
        vstore(h->minus_kappa + i, left, vneg(kappa));
        vstore(h->a_kappa + i, left, vmul(vload(h->a + i, left), kappa));
    }
}

static void before_wkv7(const rwkv_weights_v7* p, const rwkv_head_v7* h, size_t n) {
    if (n == 64) {
        before_of(p, h, 64);
    } else {
        before_of(p, h, n);
    }
}

INLINE void after_of(const rwkv_weights_v7* p, const rwkv_head_v7* h, size_t n) {
    vec products = vset1(0.0f);
    for (size_t i = 0; i < n; i += LANES) {
        const vec rk = vmul(vload(h->r + i, n - i), vload(h->k + i, n - i));
        products = vfma(rk, vload(p->r_k + i, n - i), products);
    }
    const vec bonus = vset1(vsum(products));
    layer_norm_of(h->y, p->ln_x_weight, p->ln_x_bias, p->ln_x_eps, n, h->y);
    for (size_t i = 0; i < n; i += LANES) {
        const vec y = vfma(bonus, vload(h->v + i, n - i), vload(h->y + i, n - i));
        vstore(h->y + i, n - i, vmul(y, vload(h->g + i, n - i)));
    }
}

static void after_wkv7(const rwkv_weights_v7* p, const rwkv_head_v7* h, size_t n) {
    if (n == 64) {
        after_of(p, h, 64);
    } else {
        after_of(p, h, n);
    }
}

/* ---- recurrences: lanes are values i -------------------------------------------------------- */

/* WANTED: whether y is. */
INLINE void wkv4_of(int WANTED, size_t n_tokens, size_t ld, size_t n, const float* u,
                    const float* w, const float* k, const float* v, const float* S, size_t ldS,
                    float* S_after, size_t ldS_after, float* y) {
    for (size_t i = 0; i < n; i += LANES) {
        const size_t left = n - i;
        const vec ui = WANTED ? vload(u + i, left) : vset1(0.0f);
        const vec wi = vload(w + i, left);
        vec a = vload(S + i, left);
        vec b = vload(S + ldS + i, left);
        vec p = vload(S + 2 * ldS + i, left);
        for (size_t t = 0; t < n_tokens; ++t) {
            const vec ki = vload(k + t * ld + i, left);
            const vec vi = vload(v + t * ld + i, left);
            if (WANTED) {
                const vec uk = vadd(ui, ki);
                const vec top = vmax(p, uk);
                const vec e1 = vexp(vsub(p, top));
                const vec e2 = vexp(vsub(uk, top));
                vstore(y + t * ld + i, left, vdiv(vfma(e1, a, vmul(e2, vi)), vfma(e1, b, e2)));
            }
            const vec pw = vadd(p, wi);
            const vec next = vmax(pw, ki);
            const vec f1 = vexp(vsub(pw, next));
            const vec f2 = vexp(vsub(ki, next));
            a = vfma(f1, a, vmul(f2, vi));
            b = vfma(f1, b, f2);
            p = next;
        }
        vstore(S_after + i, left, a);
        vstore(S_after + ldS_after + i, left, b);
        vstore(S_after + 2 * ldS_after + i, left, p);
    }
}

static void wkv4(size_t n_tokens, size_t ld, size_t n, const float* u, const float* w,
                 const float* k, const float* v, const float* S, size_t ldS, float* S_after,
                 size_t ldS_after, float* y) {
    if (y != NULL) {
        wkv4_of(1, n_tokens, ld, n, u, w, k, v, S, ldS, S_after, ldS_after, y);
    } else {
        wkv4_of(0, n_tokens, ld, n, u, w, k, v, S, ldS, S_after, ldS_after, y);
    }
}

/* COUNT vectors of values, of one token: y_i = (sum_j r_j u_j k_j) v_i + sum_j r_j S_ji, if WANTED.
 * `left` is the number of values from here on. */
INLINE void wkv5_values(int WANTED, int COUNT, size_t n, size_t left, float ruk, const float* r,
                        const float* k, const float* v, const float* w, const float* S,
                        float* S_after, float* y) {
    vec vi[4];
    vec sum[4];
    for (int c = 0; c < COUNT; ++c) {
        vi[c] = vload(v + LANES * c, left - (size_t)(LANES * c));
        sum[c] = vmul(vset1(ruk), vi[c]);
    }
    for (size_t j = 0; j < n; ++j) {
        const vec rj = vset1(WANTED ? r[j] : 0.0f);
        const vec kj = vset1(k[j]);
        const vec wj = vset1(w[j]);
        for (int c = 0; c < COUNT; ++c) {
            const size_t at = j * n + (size_t)(LANES * c);
            const vec s = vload(S + at, left - (size_t)(LANES * c));
            if (WANTED) sum[c] = vfma(rj, s, sum[c]);
            vstore(S_after + at, left - (size_t)(LANES * c), vfma(wj, s, vmul(kj, vi[c])));
        }
    }
    if (!WANTED) return;
    for (int c = 0; c < COUNT; ++c) vstore(y + LANES * c, left - (size_t)(LANES * c), sum[c]);
}

INLINE void wkv5_of(int WANTED, size_t n_tokens, size_t ld, size_t n, const float* r,
                    const float* k, const float* v, const float* u, const float* w, size_t ldw,
                    const float* S, float* S_after, float* y) {
    for (size_t t = 0; t < n_tokens; ++t, k += ld, v += ld, w += ldw, S = S_after) {
        float ruk = 0.0f;
        if (WANTED) {
            vec sum = vset1(0.0f);
            for (size_t j = 0; j < n; j += LANES) {
                const vec rk = vmul(vload(r + j, n - j), vload(k + j, n - j));
                sum = vfma(rk, vload(u + j, n - j), sum);
            }
            ruk = vsum(sum);
        }
        size_t i = 0;
        for (; i + 4 * LANES <= n; i += 4 * LANES) {
            wkv5_values(WANTED, 4, n, 4 * LANES, ruk, r, k, v + i, w, S + i, S_after + i,
                        WANTED ? y + i : NULL);
        }
        for (; i < n; i += LANES) {
            wkv5_values(WANTED, 1, n, n - i, ruk, r, k, v + i, w, S + i, S_after + i,
                        WANTED ? y + i : NULL);
        }
        if (WANTED) r += ld, y += ld;
    }
}

static void wkv5(size_t n_tokens, size_t ld, size_t n, const float* r, const float* k,
                 const float* v, const float* u, const float* w, size_t ldw, const float* S,
                 float* S_after, float* y) {
    if (y != NULL) {
        wkv5_of(1, n_tokens, ld, n, r, k, v, u, w, ldw, S, S_after, y);
    } else {
        wkv5_of(0, n_tokens, ld, n, r, k, v, u, w, ldw, S, S_after, y);
    }
}

/* COUNT vectors of values, of all tokens. While the state is swept for token t, the sum with a of
 * token t + 1 is taken along: one pass over the state for each token. WANTED: whether y is. */
INLINE void wkv7_values(int WANTED, int COUNT, size_t n_tokens, size_t ld, size_t n, size_t left,
                        const float* r, const float* w, const float* k, const float* v,
                        const float* a, const float* b, const float* S, float* S_after, float* y) {
    vec s[4];
    for (int c = 0; c < COUNT; ++c) s[c] = vset1(0.0f);
    for (size_t j = 0; j < n; ++j) {
        const vec aj = vset1(a[j]);
        for (int c = 0; c < COUNT; ++c) {
            const float* Sj = S + j * n + LANES * c;
            /* Heads follow each other: with many sequences their states come from memory. */
            rwkv_prefetch((const uint8_t*)Sj, 1);
            s[c] = vfma(vload(Sj, left - (size_t)(LANES * c)), aj, s[c]);
        }
    }
    for (size_t t = 0; t < n_tokens; ++t, S = S_after) {
        const float* next_a = t + 1 < n_tokens ? a + ld : a; /* the last sum is not used */
        vec vi[4];
        vec sum[4];
        vec next_s[4];
        for (int c = 0; c < COUNT; ++c) {
            vi[c] = vload(v + LANES * c, left - (size_t)(LANES * c));
            sum[c] = next_s[c] = vset1(0.0f);
        }
        for (size_t j = 0; j < n; ++j) {
            const vec rj = vset1(WANTED ? r[j] : 0.0f);
            const vec wj = vset1(w[j]);
            const vec kj = vset1(k[j]);
            const vec bj = vset1(b[j]);
            const vec aj = vset1(next_a[j]);
            for (int c = 0; c < COUNT; ++c) {
                const size_t at = j * n + (size_t)(LANES * c);
                vec x = vmul(vload(S + at, left - (size_t)(LANES * c)), wj);
                x = vfma(s[c], bj, x);
                x = vfma(vi[c], kj, x);
                vstore(S_after + at, left - (size_t)(LANES * c), x);
                if (WANTED) sum[c] = vfma(x, rj, sum[c]);
                next_s[c] = vfma(x, aj, next_s[c]);
            }
        }
        for (int c = 0; c < COUNT; ++c) {
            if (WANTED) vstore(y + LANES * c, left - (size_t)(LANES * c), sum[c]);
            s[c] = next_s[c];
        }
        if (WANTED) r += ld, y += ld;
        w += ld, k += ld, v += ld, a += ld, b += ld;
    }
}

INLINE void wkv7_of(int WANTED, size_t n_tokens, size_t ld, size_t n, const float* r,
                    const float* w, const float* k, const float* v, const float* a, const float* b,
                    const float* S, float* S_after, float* y) {
    enum { WIDE = WKV7_VECTORS * LANES };
    size_t i = 0;
    for (; i + WIDE <= n; i += WIDE) {
        wkv7_values(WANTED, WKV7_VECTORS, n_tokens, ld, n, WIDE, r, w, k, v + i, a, b, S + i,
                    S_after + i, WANTED ? y + i : NULL);
    }
    for (; i < n; i += LANES) {
        wkv7_values(WANTED, 1, n_tokens, ld, n, n - i, r, w, k, v + i, a, b, S + i, S_after + i,
                    WANTED ? y + i : NULL);
    }
}

static void wkv7(size_t n_tokens, size_t ld, size_t n, const float* r, const float* w,
                 const float* k, const float* v, const float* a, const float* b, const float* S,
                 float* S_after, float* y) {
    if (y != NULL) {
        wkv7_of(1, n_tokens, ld, n, r, w, k, v, a, b, S, S_after, y);
    } else {
        wkv7_of(0, n_tokens, ld, n, r, w, k, v, a, b, S, S_after, y);
    }
}

static void use_vector_kernels(rwkv_kernels* k) {
    k->layer_norm = layer_norm;
    k->lerp = lerp;
    k->add = add;
    k->mul = mul;
    k->add_mul = add_mul;
    k->sigmoid = sigmoid;
    k->tanh = tanh_;
    k->silu = silu;
    k->relu2 = relu2;
    k->decay_v6 = decay_v6;
    k->before_wkv7 = before_wkv7;
    k->after_wkv7 = after_wkv7;
    k->wkv4 = wkv4;
    k->wkv5 = wkv5;
    k->wkv7 = wkv7;
}
