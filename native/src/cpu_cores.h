// How many threads this process should compute with.
#pragma once

#include <cstddef>
#include <string>

namespace rwkv {

// The physical cores that this process may use, at least 1: those in its affinity mask, counted
// once for each core however many hardware threads it has, and at most its cgroups' quota.
size_t usable_cores() noexcept;

// The number of threads for an option that says `wanted`; 0 means the environment variable
// RWKV_THREADS or, where that is not set either, usable_cores(). Fails with INVALID_ARGUMENT.
size_t thread_count(size_t wanted);

// The least quota in whole cores, rounded down but at least 1, that the cgroups named in
// `own_cgroups` (the text of /proc/self/cgroup) and all above them set; 0 if none sets one. `mount`
// is where cgroups are mounted: /sys/fs/cgroup. Version 2, and the cpu controller of version 1.
size_t quota_cores(const std::string& own_cgroups, const std::string& mount);

}  // namespace rwkv
