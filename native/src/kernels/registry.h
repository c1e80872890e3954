// The ladder of instruction-set levels and the choice among them.
#pragma once

#include "kernels.h"

namespace rwkv {

// The table of the highest level that this machine supports, or of the level named by the
// environment variable RWKV_KERNELS. Fails with KERNELS_UNKNOWN or KERNELS_UNSUPPORTED; never falls
// back silently.
rwkv_kernels choose_kernels();

// The table of the level `name`. Fails as above.
rwkv_kernels kernels_of(const char* name);

// The names of all levels in this build, lowest first, ending with nullptr.
const char* const* kernel_names() noexcept;

// Whether this machine has all that the level needs; false for unknown names.
bool kernels_supported(const char* name) noexcept;

}  // namespace rwkv
