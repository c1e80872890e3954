// How many threads this process should compute with.
#pragma once

#include <cstddef>

namespace rwkv {

// The physical cores that this process may use, at least 1: those in its affinity mask, counted
// once for each core however many hardware threads it has, and at most its cgroups' quota.
size_t usable_cores() noexcept;

// The number of threads for an option that says `wanted`; 0 means the environment variable
// RWKV_THREADS or, where that is not set either, usable_cores(). Fails with INVALID_ARGUMENT.
size_t thread_count(size_t wanted);

}  // namespace rwkv
