// What the tests of kernels have in common: numbers, comparisons, and every level that can run here.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "kernels/kernels.h"
#include "kernels/registry.h"

namespace rwkv {

// The same numbers in every run.
inline uint32_t random_bits() {
    static std::mt19937 generator(7);
    return static_cast<uint32_t>(generator());
}

inline std::vector<float> floats(size_t n, float low, float high) {
    std::vector<float> v(n);
    for (float& x : v) {
        x = low + (high - low) * static_cast<float>(random_bits()) * 0x1p-32f;
    }
    return v;
}

// Prints where a value is off, in the manner "wkv7/avx2/n=65".
struct Case {
    std::string name;

    void near(size_t i, double got, double expected, double tolerance) const {
        if (std::isnan(got) && std::isnan(expected)) return;
        if (got == expected || std::fabs(got - expected) <= tolerance) return;
        std::fprintf(stderr, "%s: element %zu is %.9g, expected %.9g within %g\n", name.c_str(), i,
                     got, expected, tolerance);
        std::exit(1);
    }

    // Each element to `relative` of its own size or of `scale`, the size of the terms added in it.
    void near(const std::vector<float>& got, const std::vector<float>& expected, double relative,
              double scale) const {
        for (size_t i = 0; i < expected.size(); ++i) {
            near(i, got[i], expected[i], relative * (std::fabs(expected[i]) + scale));
        }
    }
};

inline Case named(const char* op, const rwkv_kernels& k, size_t n) {
    return {std::string(op) + "/" + k.name + "/n=" + std::to_string(n)};
}

constexpr size_t kLengths[] = {1,  2,  3,  7,  8,  9,  15, 16,  17,  31,  32,  33,
                               47, 48, 63, 64, 65, 96, 97, 128, 255, 256, 1000};

#ifdef RWKV_EMULATED_AVX512

// The levels that need AVX-512, compiled against avx512_emulation.h.
extern "C" void rwkv_kernels_avx512_emulated(rwkv_kernels* k);
extern "C" void rwkv_kernels_avx512_vnni_emulated(rwkv_kernels* k);

template <typename Test>
void for_each_level(const Test& test) {
    const rwkv_kernels reference = kernels_of("reference");
    rwkv_kernels k = reference;
    rwkv_kernels_avx512_emulated(&k);
    k.name = "avx512";
    test(reference, k);
    rwkv_kernels_avx512_vnni_emulated(&k);
    k.name = "avx512_vnni";
    test(reference, k);
}

#else

// Calls test(reference, k) for every level that this machine supports.
template <typename Test>
void for_each_level(const Test& test) {
    const rwkv_kernels reference = kernels_of("reference");
    for (const char* const* name = kernel_names(); *name != nullptr; ++name) {
        if (!kernels_supported(*name)) {
            std::printf("%s: not supported on this machine\n", *name);
            continue;
        }
        const rwkv_kernels k = kernels_of(*name);
        CHECK(std::strcmp(k.name, *name) == 0);  // what runs is what was asked for
        test(reference, k);
        std::printf("%s: ok\n", k.name);
    }
}

#endif

}  // namespace rwkv
