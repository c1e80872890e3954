// What Linux tells of the processor and of this process's share of it, beside os.h.
#pragma once

#include <cstddef>
#include <string>

namespace rwkv::os {

// The least quota in whole cores, rounded down but at least 1, that the cgroups named in
// `own_cgroups` (the text of /proc/self/cgroup) and all above them set; 0 if none sets one. `mount`
// is where cgroups are mounted: /sys/fs/cgroup. Version 2, and the cpu controller of version 1.
size_t quota_cores(const std::string& own_cgroups, const std::string& mount);

}  // namespace rwkv::os
