// The products of kernels/amx.c, with its tile instructions emulated (amx_emulation.h), against the
// definition: weights and activations rounded to bf16, products added up. Once with the processor's
// AVX512-BF16, if it has it, and once with that emulated as well (avx512_emulation.h), if SIMDe is
// installed.
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "block_types.h"
#include "check.h"
#include "cpu_features.h"
#include "kernels/registry.h"
#include "random_blocks.h"

using namespace rwkv;

extern "C" void rwkv_kernels_amx_emulated(rwkv_kernels* k);
#ifdef RWKV_EMULATED_AVX512
extern "C" void rwkv_kernels_avx512_emulated(rwkv_kernels* k);
#endif

namespace {

// Round to nearest, halves to even; finite numbers only.
float bf16(float f) {
    uint32_t bits;
    std::memcpy(&bits, &f, sizeof bits);
    bits = (bits + 0x7fffu + (bits >> 16 & 1)) & 0xffff0000u;
    std::memcpy(&f, &bits, sizeof f);
    return f;
}

}  // namespace

int main() {
#ifdef RWKV_EMULATED_AVX512
    rwkv_kernels k = kernels_of("reference");
    rwkv_kernels_avx512_emulated(&k);
#else
    constexpr uint32_t kNeeds = kAvx2 | kFma | kF16c | kAvx512 | kAvx512Vnni | kAvx512Bf16;
    if ((cpu_features() & kNeeds) != kNeeds) {
        std::printf("no AVX512-BF16 on this machine: not run\n");
        return 0;
    }
    rwkv_kernels k = kernels_of("avx512_vnni");
#endif
    rwkv_kernels_amx_emulated(&k);

    std::mt19937 random_bits(11);
    const auto value = [&] { return static_cast<float>(random_bits()) * 0x1p-31f - 1.0f; };
    for (int t = 0; t < RWKV_TYPE_COUNT; ++t) {
        const rwkv_type type = static_cast<rwkv_type>(t);
        if (!rwkv_is_quantised(type)) continue;
        for (const size_t n_in : {32, 96, 256, 1024, 1056, 1280, 2208}) {  // about a chunk of 1024
            if (!row_fits(type, n_in)) continue;
            for (const size_t n_out : {1, 16, 17, 40, 64}) {
                for (const size_t n_rows : {32, 33, 48, 63, 70}) {
                    const size_t row_bytes = rwkv_row_bytes(type, n_in);
                    std::vector<uint8_t> file(n_out * row_bytes);
                    std::vector<float> w(n_out * n_in);
                    for (size_t o = 0; o < n_out; ++o) {
                        tests::random_row(type, n_in, random_bits, &file[o * row_bytes]);
                        dequantize_row(type, &file[o * row_bytes], n_in, &w[o * n_in]);
                    }
                    const size_t n_panels = (n_out + 15) / 16;
                    std::vector<uint8_t> packed(k.matrix[t].packed_size(type, n_out, n_in));
                    k.matrix[t].pack(type, file.data(), n_out, n_in, 0, n_panels, packed.data());
                    const rwkv_matrix matrix = {packed.data(), n_out, n_in, type, 0};

                    std::vector<float> x(n_rows * n_in);
                    for (float& v : x) v = value();
                    std::vector<uint16_t> half((n_rows + 31) / 32 * 32 * n_in, 0x7fc0);  // NaN
                    k.to_bf16(x.data(), x.size(), half.data());
                    for (size_t i = 0; i < x.size(); ++i) {
                        const uint32_t bits = static_cast<uint32_t>(half[i]) << 16;
                        float got;
                        std::memcpy(&got, &bits, sizeof got);
                        CHECK(got == bf16(x[i]));
                        x[i] = got;
                    }
                    const rwkv_rows rows = {x.data(), nullptr, half.data(), n_in, n_in, 16};
                    // With a panel left out where there are enough: what is not asked for is not
                    // touched.
                    const size_t first_panel = n_panels > 2 ? 1 : 0;
                    const size_t ldy = n_out + 5;
                    std::vector<float> y(n_rows * ldy, 9.0f);
                    k.matrix[t].matmul_wide(&matrix, &rows, 0, n_rows, first_panel, n_panels,
                                            y.data() + first_panel * RWKV_PANEL, ldy);
                    for (size_t i = 0; i < n_rows; ++i) {
                        for (size_t o = 0; o < ldy; ++o) {
                            const double got = y[i * ldy + o];
                            if (o < first_panel * 16 || o >= n_out) {
                                CHECK(got == 9.0);
                                continue;
                            }
                            double sum = 0;
                            double size = 0;
                            for (size_t c = 0; c < n_in; ++c) {
                                const double term =
                                    static_cast<double>(bf16(w[o * n_in + c])) * x[i * n_in + c];
                                sum += term;
                                size += std::fabs(term);
                            }
                            // A weight within an fp32 rounding of a bf16 tie may round the other
                            // way in the kernel: 2^-8 of one term. Else fp32 additions.
                            CHECK_NEAR(got, sum, 2e-6 * size + 0x1p-8);
                        }
                    }
                }
            }
        }
    }
    return 0;
}
