/* vector_sampler.h: the sampler's kernels, written once for all vector levels over the vector type of
 * vector_kernels.h, which a level's file includes before. RWKV_LANES elements at a time, whatever
 * the vector's width, so that all levels add alike and the same seed gives the same tokens. */

enum { VECTORS = RWKV_LANES / LANES };

/* The sum of 16 lanes, halves added to halves: vsum does so too. */
INLINE float vsum_lanes(vec* v) {
    for (int half = VECTORS / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; ++i) v[i] = vadd(v[i], v[i + half]);
    }
    return vsum(v[0]);
}

static float largest(const float* x, size_t n) {
    vec top[VECTORS];
    vec bad[VECTORS]; /* NaN once an element is not below infinity */
    for (int v = 0; v < VECTORS; ++v) {
        top[v] = vset1(-INFINITY);
        bad[v] = vset1(0.0f);
    }
    for (size_t i = 0; i < n; i += RWKV_LANES) {
        for (int v = 0; v < VECTORS; ++v) {
            const vec xi = vload(x + i + v * LANES, LANES);
            top[v] = vmax(xi, top[v]);
            bad[v] = vless(xi, vset1(INFINITY), bad[v], vset1(NAN));
        }
    }
    float lanes16[RWKV_LANES];
    float result = -INFINITY;
    for (int v = 0; v < VECTORS; ++v) vstore(lanes16 + v * LANES, LANES, top[v]);
    for (int i = 0; i < RWKV_LANES; ++i) result = lanes16[i] > result ? lanes16[i] : result;
    return result + vsum_lanes(bad);
}

/* As in vexp, with one more rounding for each product, and a polynomial of degree 5 for exp(r), the
 * one beginning 1 + r with the least relative error, 1.1e-7. */
static float exp_sum(const float* x, size_t n, float top, float scale, float low, float high,
                     float* y) {
    vec sum[VECTORS];
    for (int v = 0; v < VECTORS; ++v) sum[v] = vset1(0.0f);
    for (size_t i = 0; i < n; i += RWKV_LANES) {
        for (int v = 0; v < VECTORS; ++v) {
            const vec xi = vload(x + i + v * LANES, LANES);
            const vec c = vmul(vsub(xi, vset1(top)), vset1(scale));
            const vec k = vround(vmul(c, vset1(1.44269504f)));
            const vec r =
                vsub(vsub(c, vmul(k, vset1(0.693359375f))), vmul(k, vset1(-2.12194440e-4f)));
            vec p = vset1(0.00831250101f);
            p = vadd(vmul(p, r), vset1(0.0418903306f));
            p = vadd(vmul(p, r), vset1(0.166671157f));
            p = vadd(vmul(p, r), vset1(0.499992311f));
            p = vadd(vmul(p, r), vset1(1.0f));
            p = vadd(vmul(p, r), vset1(1.0f));
            const vec yi = vwhere(vwithin(vset1(low), xi, vset1(high)), vscale(p, k));
            vstore(y + i + v * LANES, LANES, yi);
            sum[v] = vadd(sum[v], yi);
        }
    }
    return vsum_lanes(sum);
}

static void keep_from(float low, const float* x, size_t n, float top, float* w, float sums[2]) {
    const vec zero = vset1(0.0f);
    vec of_w[VECTORS];
    vec of_products[VECTORS];
    for (int v = 0; v < VECTORS; ++v) of_w[v] = of_products[v] = zero;
    for (size_t i = 0; i < n; i += RWKV_LANES) {
        for (int v = 0; v < VECTORS; ++v) {
            const vec xi = vload(x + i + v * LANES, LANES);
            const vec wi = vless(xi, vset1(low), zero, vload(w + i + v * LANES, LANES));
            const vec product = vmul(wi, vsub(xi, vset1(top)));
            vstore(w + i + v * LANES, LANES, wi);
            of_w[v] = vadd(of_w[v], wi);
            of_products[v] = vadd(of_products[v], vless(zero, wi, product, zero));
        }
    }
    sums[0] = vsum_lanes(of_w);
    sums[1] = vsum_lanes(of_products);
}

INLINE size_t split_by(int by_distance, const float* x, const float* w, size_t n, vec middle,
                       float low, float high, float* x_out, float* w_out, float sums[2]) {
    vec above[VECTORS];
    vec within[VECTORS];
    for (int v = 0; v < VECTORS; ++v) above[v] = within[v] = vset1(0.0f);
    size_t count = 0;
    for (size_t i = 0; i < n; i += RWKV_LANES) {
        for (int v = 0; v < VECTORS; ++v) {
            const vec xi = vload(x + i + v * LANES, LANES);
            const vec wi = vload(w + i + v * LANES, LANES);
            const vec d = vsub(xi, middle);
            const vec key = by_distance ? vmin(d, vsub(middle, xi)) : xi;
            const vmask in = vwithin(vset1(low), key, vset1(high));
            above[v] = vadd(above[v], vless(vset1(high), key, wi, vset1(0.0f)));
            within[v] = vadd(within[v], vwhere(in, wi));
            count += vpack(in, xi, wi, x_out + count, w_out + count);
        }
    }
    sums[0] = vsum_lanes(above);
    sums[1] = vsum_lanes(within);
    return count;
}

static size_t split(const float* x, const float* w, size_t n, const float* middle, float low,
                    float high, float* x_out, float* w_out, float sums[2]) {
    if (middle == NULL) {
        return split_by(0, x, w, n, vset1(0.0f), low, high, x_out, w_out, sums);
    }
    return split_by(1, x, w, n, vset1(*middle), low, high, x_out, w_out, sums);
}

static void use_vector_sampler(rwkv_kernels* k) {
    k->largest = largest;
    k->exp_sum = exp_sum;
    k->keep_from = keep_from;
    k->split = split;
}
