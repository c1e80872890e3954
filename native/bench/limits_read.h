/* limits_read.h: reading a buffer as fast as it goes, written once for all vector types. A file
 * defines `vec` (a vector of integers of sizeof(vec) bytes, at most 64), vload(p) and vxor(a, b),
 * and vfold(v), which makes a uint64_t of a vector; then it includes this file.
 *
 * Several streams keep more cache lines under way than one: the processor's prefetchers follow each
 * by itself and stop at the end of a page. */

#define READ_INLINE static inline __attribute__((always_inline))

READ_INLINE uint64_t read_streams(const uint8_t* p, size_t n, size_t streams, size_t ahead) {
    const size_t stride = n / streams;
    vec sums[8][64 / sizeof(vec)];
    for (size_t s = 0; s < streams; ++s) {
        for (size_t i = 0; i < 64 / sizeof(vec); ++i) sums[s][i] = vload(p);
    }
    for (size_t at = 0; at < stride; at += 64) {
        for (size_t s = 0; s < streams; ++s) {
            const uint8_t* line = p + s * stride + at;
            /* Beyond the end of the buffer this does nothing. */
            if (ahead != 0) __builtin_prefetch(line + ahead, 0, 3);
            for (size_t i = 0; i < 64 / sizeof(vec); ++i) {
                sums[s][i] = vxor(sums[s][i], vload(line + i * sizeof(vec)));
            }
        }
    }
    uint64_t all = 0;
    for (size_t s = 0; s < streams; ++s) {
        for (size_t i = 0; i < 64 / sizeof(vec); ++i) all ^= vfold(sums[s][i]);
    }
    return all;
}

static uint64_t read_bytes(const uint8_t* p, size_t n, int way) {
    switch (way) {
        case 0:
            return read_streams(p, n, 1, 0);
        case 1:
            return read_streams(p, n, 1, 4096);
        case 2:
            return read_streams(p, n, 4, 0);
        case 3:
            return read_streams(p, n, 4, 2048);
        case 4:
            return read_streams(p, n, 8, 0);
        default:
            return read_streams(p, n, 8, 1024);
    }
}
