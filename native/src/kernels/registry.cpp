#include "kernels/registry.h"

#include <cstdlib>
#include <cstring>
#include <string>

#include "cpu_features.h"
#include "status.h"

namespace rwkv {

namespace {

// THE list. Each level overrides entries of the table that the levels before it left.
struct Level {
    const char* name;
    uint32_t needs;  // CpuFeature bits
    void (*override_table)(rwkv_kernels*);
    bool aside = false;  // no rung of the ladder: used if it is asked for, on top of those below it
};

constexpr Level kLevels[] = {
    {"reference", 0, rwkv_kernels_reference},
#if defined(RWKV_TEST_LEVELS)
    {"reference_wide", 0, rwkv_kernels_reference_wide, true},
#endif
#if defined(RWKV_X86)
    {"avx2", kAvx2 | kFma | kF16c, rwkv_kernels_avx2},
    {"avx512", kAvx2 | kFma | kF16c | kAvx512, rwkv_kernels_avx512},
    {"avx512_vnni", kAvx2 | kFma | kF16c | kAvx512 | kAvx512Vnni, rwkv_kernels_avx512_vnni},
#endif
#if defined(RWKV_AMX)
    {"amx", kAvx2 | kFma | kF16c | kAvx512 | kAvx512Vnni | kAvx512Bf16 | kAmxBf16,
     rwkv_kernels_amx},
#endif
#if defined(RWKV_ARM64)
    {"neon", 0, rwkv_kernels_neon},
    {"neon_dotprod", kArmDotprod, rwkv_kernels_neon_dotprod},
#endif
};

constexpr size_t kLevelCount = sizeof kLevels / sizeof *kLevels;

bool supported(const Level& level) noexcept {
    static const uint32_t features = cpu_features();  // slow to ask for in a virtual machine
    return (features & level.needs) == level.needs;
}

const Level* find(const char* name) noexcept {
    for (const Level& level : kLevels) {
        if (std::strcmp(level.name, name) == 0) return &level;
    }
    return nullptr;
}

std::string names_of(bool only_supported) {
    std::string names;
    for (const Level& level : kLevels) {
        if (only_supported && !supported(level)) continue;
        names += names.empty() ? "" : ", ";
        names += level.name;
    }
    return names;
}

// The table after climbing to `top`, skipping levels that this machine lacks.
rwkv_kernels climb(const Level& top) {
    rwkv_kernels kernels = {};
    for (const Level& level : kLevels) {
        if (supported(level) && (!level.aside || &level == &top)) {
            level.override_table(&kernels);
            kernels.name = level.name;
        }
        if (&level == &top) break;
    }
    return kernels;
}

}  // namespace

rwkv_kernels kernels_of(const char* name) {
    const Level* level = find(name);
    if (level == nullptr) {
        throw Failure(RWKV_STATUS_KERNELS_UNKNOWN,
                      format("RWKV_KERNELS: unknown level '%s', expected one of: %s.", name,
                             names_of(false).c_str()));
    }
    if (!supported(*level)) {
        throw Failure(RWKV_STATUS_KERNELS_UNSUPPORTED,
                      format("RWKV_KERNELS: this processor or operating system does not support "
                             "level '%s'; supported here: %s.",
                             name, names_of(true).c_str()));
    }
    return climb(*level);
}

rwkv_kernels choose_kernels() {
    const char* name = std::getenv("RWKV_KERNELS");
    if (name != nullptr && *name != '\0') return kernels_of(name);
    return climb(kLevels[kLevelCount - 1]);
}

const char* const* kernel_names() noexcept {
    static const char* names[kLevelCount + 1] = {};
    static const bool filled = [] {
        for (size_t i = 0; i < kLevelCount; ++i) names[i] = kLevels[i].name;
        return true;
    }();
    (void)filled;
    return names;
}

bool kernels_supported(const char* name) noexcept {
    const Level* level = find(name);
    return level != nullptr && supported(*level);
}

}  // namespace rwkv
