#include "os_linux.h"

#include <sched.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <set>
#include <utility>

#include "os.h"

namespace rwkv::os {

namespace {

// A small file of procfs, sysfs or cgroupfs; "" if it cannot be read.
std::string read_text(const std::string& path) {
    std::string text;
    if (std::FILE* file = std::fopen(path.c_str(), "re")) {
        char part[4096];
        while (const size_t n = std::fread(part, 1, sizeof part, file)) text.append(part, n);
        std::fclose(file);
    }
    return text;
}

// The number at the beginning of a file, or -1.
long read_number(const std::string& path) {
    long value = -1;
    if (std::sscanf(read_text(path).c_str(), "%ld", &value) != 1) return -1;
    return value;
}

// How many whole cores a cgroup's folder allows; 0 if it sets no limit.
size_t quota_of(const std::string& folder) {
    long quota = -1;
    long period = -1;
    // Version 2: "QUOTA PERIOD" or "max PERIOD". Version 1: a file for each, quota -1 if none.
    if (std::sscanf(read_text(folder + "/cpu.max").c_str(), "%ld %ld", &quota, &period) != 2) {
        quota = read_number(folder + "/cpu.cfs_quota_us");
        period = read_number(folder + "/cpu.cfs_period_us");
    }
    if (quota <= 0 || period <= 0) return 0;
    // Rounded down: a thread more than the quota has whole cores for would be stopped for a part
    // of every period, and the others would wait for it.
    return static_cast<size_t>(std::max(1L, quota / period));
}

// The path of a process's cgroup from a line ID:CONTROLLERS:PATH, if it is version 2 (0::PATH) or
// has the controller cpu; and below which folder of the mount it lies.
bool is_of_cpu(const std::string& line, std::string* path, std::string* folder) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) return false;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    *path = line.substr(second + 1);
    if (controllers.empty()) {
        *folder = "";
        return true;
    }
    *folder = "/cpu";  // where several controllers share a hierarchy, a link to it
    return (std::string(",").append(controllers).append(",")).find(",cpu,") != std::string::npos;
}

}  // namespace

size_t quota_cores(const std::string& own_cgroups, const std::string& mount) {
    size_t least = 0;
    for (size_t begin = 0; begin < own_cgroups.size();) {
        const size_t end = std::min(own_cgroups.find('\n', begin), own_cgroups.size());
        std::string path;
        std::string folder;
        if (is_of_cpu(own_cgroups.substr(begin, end - begin), &path, &folder)) {
            // A limit of any cgroup above holds too. In a container the path may be one that only
            // its host sees, and the mount itself the container's: the walk ends there.
            for (;;) {
                while (!path.empty() && path.back() == '/') path.pop_back();
                const size_t quota = quota_of(std::string(mount).append(folder).append(path));
                if (quota != 0) least = least == 0 ? quota : std::min(least, quota);
                if (path.empty()) break;
                const size_t slash = path.rfind('/');
                path.resize(slash == std::string::npos ? 0 : slash);
            }
        }
        begin = end + 1;
    }
    return least;
}

size_t usable_cores() {
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 0;
    std::set<std::pair<long, long>> cores;  // (package, core): hardware threads share theirs
    size_t unknown = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (!CPU_ISSET(cpu, &allowed)) continue;
        const std::string topology =
            "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
        const long package = read_number(topology + "physical_package_id");
        const long core = read_number(topology + "core_id");
        if (core < 0) {
            ++unknown;
        } else {
            cores.emplace(package, core);
        }
    }
    const size_t n = std::max<size_t>(1, cores.size() + unknown);
    const size_t quota = quota_cores(read_text("/proc/self/cgroup"), "/sys/fs/cgroup");
    return quota == 0 ? n : std::min(n, quota);
}

bool may_use(Instructions which) noexcept {
    switch (which) {
        case Instructions::x86_tiles: {
            // The 8 KiB of tile registers are saved only for processes that have asked for it.
            // Asking again is harmless.
#if defined(SYS_arch_prctl)
            constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
            constexpr int kTileData = 18;               // XFEATURE_XTILEDATA
            return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
            return false;
#endif
        }
        case Instructions::arm_dot_product: {
            constexpr unsigned long kAsimdDp = 1ul << 20;  // HWCAP_ASIMDDP, on 64-bit Arm alone
            return (getauxval(AT_HWCAP) & kAsimdDp) != 0;
        }
    }
    return false;
}

}  // namespace rwkv::os
