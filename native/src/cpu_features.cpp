#include "cpu_features.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

#include "os.h"

namespace rwkv {

#if defined(__x86_64__) || defined(__i386__)

namespace {

// The states that the operating system saves (XCR0).
uint64_t saved_states() noexcept {
    uint32_t low = 0;
    uint32_t high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return static_cast<uint64_t>(high) << 32 | low;
}

constexpr bool bit(uint32_t word, int i) { return (word >> i & 1) != 0; }

}  // namespace

uint32_t cpu_features() noexcept {
    uint32_t a = 0;
    uint32_t b = 0;
    uint32_t c = 0;
    uint32_t d = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    const bool osxsave = bit(c, 27);
    const bool avx = bit(c, 28);
    const bool fma = bit(c, 12);
    const bool f16c = bit(c, 29);
    if (!osxsave || !avx) return 0;
    const uint64_t states = saved_states();
    constexpr uint64_t kYmm = 0x6;          // XMM and YMM
    constexpr uint64_t kZmm = kYmm | 0xe0;  // and the masks and ZMM
    if ((states & kYmm) != kYmm) return 0;
    uint32_t features = 0;
    if (fma) features |= kFma;
    if (f16c) features |= kF16c;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return features;
    if (bit(b, 5)) features |= kAvx2;
    if ((states & kZmm) != kZmm) return features;
    if (bit(b, 16) && bit(b, 17) && bit(b, 30) && bit(b, 31)) features |= kAvx512;
    if (bit(c, 11)) features |= kAvx512Vnni;
    constexpr uint64_t kTiles = 0x60000;  // tile configuration and data
    const bool amx = bit(d, 22) && bit(d, 24) && (states & kTiles) == kTiles &&
                     os::may_use(os::Instructions::x86_tiles);
    if (amx) features |= kAmxBf16;
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && bit(a, 5)) features |= kAvx512Bf16;
    return features;
}

#elif defined(__aarch64__)

uint32_t cpu_features() noexcept {
    return os::may_use(os::Instructions::arm_dot_product) ? kArmDotprod : 0;
}

#else

uint32_t cpu_features() noexcept { return 0; }

#endif

}  // namespace rwkv
