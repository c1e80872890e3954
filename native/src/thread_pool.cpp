#include "thread_pool.h"

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif
#if defined(__linux__)
#include <sched.h>

#include <cstdio>
#include <set>
#include <string>
#include <utility>
#endif

namespace rwkv {

void Signal::pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

void Signal::wake() noexcept {
    // All accesses are sequentially consistent: either the sleeper sees the new value before it
    // sleeps, or we see the sleeper.
    if (sleepers_.load(std::memory_order_seq_cst) > 0) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
        }
        condition_.notify_all();
    }
}

#if defined(__linux__)

namespace {

// A whole number from a file of sysfs or cgroupfs, or -1.
long read_number(const std::string& path) noexcept {
    long value = -1;
    if (std::FILE* file = std::fopen(path.c_str(), "re")) {
        if (std::fscanf(file, "%ld", &value) != 1) value = -1;
        std::fclose(file);
    }
    return value;
}

// The cgroup's limit in whole cores, rounded up, or 0 if it sets none. Version 2, then version 1.
size_t quota_cores() noexcept {
    long quota = -1;
    long period = -1;
    if (std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "re")) {
        if (std::fscanf(file, "%ld %ld", &quota, &period) != 2) quota = -1;  // "max 100000"
        std::fclose(file);
    } else {
        quota = read_number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
        period = read_number("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    }
    if (quota <= 0 || period <= 0) return 0;
    return static_cast<size_t>((quota + period - 1) / period);
}

}  // namespace

size_t usable_cores() noexcept {
    try {
        cpu_set_t allowed;
        if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 1;
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
        size_t n = std::max<size_t>(1, cores.size() + unknown);
        if (const size_t quota = quota_cores()) n = std::min(n, quota);
        return n;
    } catch (...) {
        return 1;
    }
}

#else

size_t usable_cores() noexcept { return std::max(1u, std::thread::hardware_concurrency()); }

#endif

ThreadPool::ThreadPool(size_t n_threads)
    : n_threads_(std::max<size_t>(1, n_threads)), parts_(n_threads_) {
    try {
        for (size_t i = 1; i < n_threads_; ++i) threads_.emplace_back([this, i] { work(i); });
    } catch (...) {  // the destructor of a half-built object does not run
        stop();
        throw;
    }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() noexcept {
    stopping_ = true;
    started_.set(started_.now() + 1);
    for (std::thread& thread : threads_) thread.join();
}

// No thread works on a region now.
void ThreadPool::open_region(uint64_t region) noexcept {
    finished_.store(0, std::memory_order_relaxed);
    for (Part& part : parts_) part.claimed.store(region << 32, std::memory_order_release);
    region_.set(region);
}

void ThreadPool::run(const std::function<void(Team&)>& body) {
    body_ = &body;
    open_region(0);
    inside_.set(kOpen);
    if (n_threads_ > 1) started_.set(started_.now() + 1);
    Team team(*this, 0);
    body(team);
    // All work is done. Close the door, and wait for those who are still inside, on their way out.
    uint64_t inside = inside_.now();
    while (!inside_.compare_exchange(inside, inside & ~kOpen)) {
    }
    inside_.wait([](uint64_t now) { return now == 0; });
}

void ThreadPool::work(size_t thread) {
    uint64_t seen = 0;
    for (;;) {
        started_.wait([&](uint64_t now) { return now != seen; });
        seen = started_.now();
        if (stopping_) return;
        // A thread that wakes late may find the run over.
        uint64_t inside = inside_.now();
        while ((inside & kOpen) != 0 && !inside_.compare_exchange(inside, inside + 1)) {
        }
        if ((inside & kOpen) == 0) continue;
        Team team(*this, thread);
        (*body_)(team);
        inside = inside_.now();
        while (!inside_.compare_exchange(inside, inside - 1)) {
        }
        // The door is closed and this was the last: wake the caller. Not more than that, because a
        // caller that did not sleep may be in its next run already.
        if (inside == 1) inside_.wake();
    }
}

}  // namespace rwkv
