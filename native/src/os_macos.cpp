#include <sys/sysctl.h>

#include "os.h"

namespace rwkv::os {

namespace {

// A number that the kernel has under a name; 0 if it has none.
int number(const char* name) noexcept {
    int value = 0;
    size_t n_bytes = sizeof value;
    if (::sysctlbyname(name, &value, &n_bytes, nullptr, 0) != 0) return 0;
    return value;
}

}  // namespace

// Processes have neither masks nor quotas.
size_t usable_cores() { return static_cast<size_t>(number("hw.physicalcpu")); }

bool may_use(Instructions which) noexcept {
    switch (which) {
        case Instructions::x86_tiles:
            return false;  // of no Mac
        case Instructions::arm_dot_product:
            return number("hw.optional.arm.FEAT_DotProd") != 0;
    }
    return false;
}

}  // namespace rwkv::os
