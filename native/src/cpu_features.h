// What this processor can do and this operating system lets programs use.
#pragma once

#include <cstdint>

namespace rwkv {

enum CpuFeature : uint32_t {
    kAvx2 = 1u << 0,
    kFma = 1u << 1,
    kF16c = 1u << 2,
    kAvx512 = 1u << 3,  // F, BW, DQ and VL together
    kAvx512Vnni = 1u << 4,
    kAvx512Bf16 = 1u << 5,
    kAmxBf16 = 1u << 6,  // AMX-TILE and AMX-BF16, with the operating system's leave to use tiles
    kArmDotprod = 1u << 7,
};

// The set of features. x86: asked of the processor (cpuid) and of the operating system (xgetbv:
// whether it saves the wider registers). Arm: asked of the operating system.
uint32_t cpu_features() noexcept;

}  // namespace rwkv
