#include "pool_costs.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <thread>
#include <vector>

#include "machine_limits.h"
#include "thread_pool.h"

namespace rwkv_bench {

namespace {

using rwkv::Team;
using rwkv::ThreadPool;

constexpr size_t kRegions = 100;  // timed together: one is too short for the clock

void sleep_for(double seconds) {
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

double median(std::vector<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

// The median of sample(), taken for that long, after one that does not count.
template <class Sample>
double median_for(double seconds, Sample&& sample) {
    sample();
    std::vector<double> samples;
    const double begin = seconds_now();
    do {
        samples.push_back(sample());
    } while (seconds_now() - begin < seconds);
    return median(samples);
}

// Work that touches no memory: a chain of `steps` multiplications (Knuth's generator), each of
// which waits for the one before.
void multiply(size_t steps) {
    uint64_t x = 1;
    for (size_t i = 0; i < steps; ++i) x = x * 6364136223846793005u + 1442695040888963407u;
    static std::atomic<uint64_t> result;  // somebody could look at it, so it must be computed
    if (x == 0) result.store(x, std::memory_order_relaxed);
}

// Seconds for one of kRegions calls in a row.
template <class Call>
double time_of(Call&& call) {
    const double start = seconds_now();
    for (size_t i = 0; i < kRegions; ++i) call();
    return (seconds_now() - start) / kRegions;
}

// As time_of, for regions with one piece for each thread.
template <class Body>
double time_of_regions(ThreadPool& pool, Body&& body) {
    double seconds = 0;
    pool.run([&](Team& team) {
        const double taken = time_of([&] { team.for_each(pool.size(), 1, body); });
        // Every thread measures the same regions; the last piece of all is one thread's.
        team.for_each(1, 1, [&](size_t, size_t) { seconds = taken; });
    });
    return seconds;
}

double beyond_pieces(ThreadPool& pool, double seconds) {
    constexpr size_t kManySteps = 1 << 20;
    const double start = seconds_now();
    multiply(kManySteps);
    const double step = (seconds_now() - start) / kManySteps;
    const auto steps = static_cast<size_t>(PoolCosts::kPieceSeconds / step);
    return median_for(seconds, [&] {
        // The pieces alone, just before, at the same clock rate.
        const double pieces = time_of([&] { multiply(steps); });
        return time_of_regions(pool, [&](size_t, size_t) { multiply(steps); }) - pieces;
    });
}

double wake(ThreadPool& pool, double seconds) {
    return median_for(seconds, [&] {
        sleep_for(2e-3);  // longer than any waiting thread spins
        std::atomic<size_t> begun{0};
        const double start = seconds_now();
        pool.run([&](Team& team) {
            team.for_each(pool.size(), 1, [&](size_t, size_t) {
                ++begun;
                while (begun < pool.size()) std::this_thread::yield();
            });
        });
        return seconds_now() - start;
    });
}

double idle(ThreadPool& pool, double seconds) {
    pool.run([](Team& team) { team.for_each(1, 1, [](size_t, size_t) {}); });
    sleep_for(10e-3);  // what a thread spins before it sleeps is not idleness
    const double start = seconds_now();
    const std::clock_t before = std::clock();  // of all threads
    sleep_for(std::max(1.0, seconds));
    const double used = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
    return used / (seconds_now() - start);
}

}  // namespace

PoolCosts pool_costs(size_t n_threads, double seconds) {
    ThreadPool pool(n_threads);
    const auto nothing = [](size_t, size_t) {};
    PoolCosts costs;
    costs.region = median_for(seconds, [&] { return time_of_regions(pool, nothing); });
    costs.beyond_pieces = beyond_pieces(pool, seconds);
    costs.run = median_for(seconds, [&] {
        return time_of(
            [&] { pool.run([&](Team& team) { team.for_each(pool.size(), 1, nothing); }); });
    });
    costs.wake = wake(pool, seconds);
    costs.idle = idle(pool, seconds);
    return costs;
}

}  // namespace rwkv_bench
