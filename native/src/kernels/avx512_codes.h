/* avx512_codes.h: what a block of panel16 holds, in 512-bit vectors, for the levels that have
 * them. */

/* Two bits of each byte, those from bit 2 k on, as a code's upper two of six. */
INLINE __m512i upper_bits(__m512i v, int k) {
    const __m512i moved = k == 0   ? _mm512_slli_epi16(v, 4)
                          : k == 1 ? _mm512_slli_epi16(v, 2)
                          : k == 2 ? v
                                   : _mm512_srli_epi16(v, 2);
    return _mm512_and_si512(moved, _mm512_set1_epi8(0x30));
}

/* The numbers that nibbles stand for in iq4_nl. */
INLINE __m512i look_up(__m512i nibbles) {
    static const int8_t iq4_nl[16] = {RWKV_IQ4_NL};
    const __m128i table = _mm_loadu_si128((const __m128i*)iq4_nl);
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), nibbles);
}

/* A block's codes, group by group; those of q8_0 and iq4_nl have a sign. far_ahead: see rwkv_prefetch. */
INLINE void unpack_codes(rwkv_type type, const rwkv_block16* block, int far_ahead,
                         __m512i code[8]) {
    const int is_q8 = type == RWKV_TYPE_Q8_0;
    const __m512i low = _mm512_set1_epi8(15);
    for (int g = 0; g < (is_q8 ? 8 : 4); ++g) {
        const uint8_t* p = block->codes + 64 * g;
        const __m512i bytes = _mm512_loadu_si512(p);
        rwkv_prefetch(p, far_ahead);
        if (is_q8) {
            code[g] = bytes;
        } else {
            code[g] = _mm512_and_si512(bytes, low);
            code[g + 4] = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low);
        }
    }
    for (int g = 0; g < 8; ++g) {
        if (type == RWKV_TYPE_IQ4_NL) code[g] = look_up(code[g]);
        if (rwkv_high_bits(type) == 1) {
            __mmask64 bits;
            memcpy(&bits, block->high + 8 * g, sizeof bits);
            code[g] = _mm512_mask_add_epi8(code[g], bits, code[g], _mm512_set1_epi8(16));
        } else if (rwkv_high_bits(type) == 2) {
            const uint8_t* p = block->high + 64 * (g / 4);
            if (g % 4 == 0) rwkv_prefetch(p, far_ahead);
            code[g] = _mm512_or_si512(code[g], upper_bits(_mm512_loadu_si512(p), g % 4));
        }
    }
}

/* d_w and m_w of the 16 rows from o on. */
INLINE __m512 load_d(rwkv_type type, const uint8_t* d, const uint8_t* s, size_t o) {
    const __m512 dw = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)(d + 2 * o)));
    if (rwkv_block_type_of(type)->n_scales != 1) return dw;
    const __m512i s32 = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)(s + o)));
    return _mm512_mul_ps(dw, _mm512_cvtepi32_ps(s32));
}

INLINE __m512 load_m(rwkv_type type, const uint8_t* m, const uint8_t* t, size_t o) {
    return rwkv_has_m(type) ? load_d(type, m, t, o) : _mm512_setzero_ps();
}

/* The first or the second s of 16 rows of q6_K. */
INLINE __m512i load_s(const uint8_t* s, int half) {
    const __m512i both = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)s));
    return _mm512_srai_epi32(half == 0 ? _mm512_slli_epi32(both, 16) : both, 16);
}

INLINE __m512i broadcast(const int8_t* q) {
    return _mm512_set1_epi32((int32_t)rwkv_load_u32((const uint8_t*)q));
}
