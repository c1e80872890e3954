// How many threads: quotas of cgroups, wherever they are set, and RWKV_THREADS.
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "check.h"
#include "cpu_cores.h"
#if defined(__linux__)
#include "os_linux.h"
#endif
#include "status.h"

namespace {

#if defined(__linux__)
namespace fs = std::filesystem;

// Folders like those of /sys/fs/cgroup.
class Cgroups {
  public:
    Cgroups() : root_(fs::path(RWKV_BINARY_DIR) / ("cgroups-" + std::to_string(::getpid()))) {
        fs::create_directories(root_);
    }
    ~Cgroups() { fs::remove_all(root_); }
    void set(const char* file, const char* text) const {
        const fs::path path = root_ / file;
        fs::create_directories(path.parent_path());
        std::ofstream(path) << text;
    }
    size_t quota(const char* own) const { return rwkv::os::quota_cores(own, root_.string()); }

  private:
    fs::path root_;
};

void test_version_2() {
    const Cgroups c;
    const char* own = "0::/system.slice/app.service\n";
    CHECK(c.quota(own) == 0 && c.quota("") == 0 && c.quota("0::/\n") == 0);
    c.set("system.slice/app.service/cpu.max", "max 100000\n");
    CHECK(c.quota(own) == 0);
    // Whole cores, rounded down, but at least one.
    const struct {
        const char* text;
        size_t cores;
    } cases[] = {{"100000 100000", 1}, {"50000 100000", 1},  {"1 100000", 1},
                 {"199999 100000", 1}, {"200000 100000", 2}, {"390000 100000", 3},
                 {"150000 50000", 3}};
    for (const auto& each : cases) {
        c.set("system.slice/app.service/cpu.max", each.text);
        CHECK(c.quota(own) == each.cores);
    }
    // One above sets less, or more.
    c.set("system.slice/cpu.max", "200000 100000");
    CHECK(c.quota(own) == 2);
    c.set("system.slice/cpu.max", "900000 100000");
    CHECK(c.quota(own) == 3);
    // In a container the mount is its own cgroup, whatever path its host has for it.
    c.set("cpu.max", "100000 100000");
    CHECK(c.quota("0::/docker/0123456789abcdef") == 1 && c.quota("0::/") == 1);
    CHECK(c.quota("0::/../elsewhere\n") == 1);
    for (const char* nonsense : {"", "x", "-1 100000", "0 100000", "100000", "100000 0", "1 -1"}) {
        c.set("system.slice/app.service/cpu.max", nonsense);
        CHECK(c.quota(own) == 1);  // the root's
    }
    for (const char* nonsense : {"nothing", "0:", "::", ":::", "0::", "\n\n"}) {
        CHECK(c.quota(nonsense) <= 1);
    }
}

void test_version_1() {
    const Cgroups c;
    const char* own = "4:memory:/a\n3:cpu,cpuacct:/a/b\n1:name=systemd:/c\n";
    c.set("cpu/a/b/cpu.cfs_period_us", "100000");
    c.set("cpu/a/b/cpu.cfs_quota_us", "-1");
    CHECK(c.quota(own) == 0);
    c.set("cpu/a/b/cpu.cfs_quota_us", "350000");
    CHECK(c.quota(own) == 3);
    c.set("cpu/a/cpu.cfs_period_us", "100000");
    c.set("cpu/a/cpu.cfs_quota_us", "200000");
    CHECK(c.quota(own) == 2);
    c.set("cpu/c/cpu.cfs_period_us", "100000");  // of a hierarchy that is not the processor's
    c.set("cpu/c/cpu.cfs_quota_us", "100000");
    CHECK(c.quota(own) == 2);
}
#endif

void test_thread_count() {
    CHECK(unsetenv("RWKV_THREADS") == 0);
    const size_t usable = rwkv::usable_cores();
    CHECK(usable >= 1 && usable <= std::max(1u, std::thread::hardware_concurrency()));
    CHECK(rwkv::thread_count(0) == usable && rwkv::thread_count(7) == 7);
    CHECK(setenv("RWKV_THREADS", "3", 1) == 0);
    CHECK(rwkv::thread_count(0) == 3 && rwkv::thread_count(7) == 7);
    for (const char* bad : {"0", "-1", "+1", " 1", "1 ", "1e9", "1000000000", "\xff", "1025"}) {
        CHECK(setenv("RWKV_THREADS", bad, 1) == 0);
        try {
            rwkv::thread_count(0);
            CHECK(false);
        } catch (const rwkv::Failure& failure) {
            CHECK(failure.status() == RWKV_STATUS_INVALID_ARGUMENT);
            CHECK(std::string(failure.what()).rfind("RWKV_THREADS: expected", 0) == 0);
        }
    }
    for (const size_t bad : {size_t{1025}, size_t{1000000000}, SIZE_MAX}) {
        try {
            rwkv::thread_count(bad);
            CHECK(false);
        } catch (const rwkv::Failure& failure) {
            CHECK(std::string(failure.what()).rfind("n_threads: expected 1 to 1024", 0) == 0);
        }
    }
}

}  // namespace

int main() {
#if defined(__linux__)
    test_version_2();
    test_version_1();
#endif
    test_thread_count();
    return 0;
}
