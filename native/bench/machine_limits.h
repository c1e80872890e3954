// Measures this machine's limits: how fast threads can read memory, and multiply.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace rwkv_bench {

inline double seconds_now() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double>(now).count();
}

// Runs body(thread) on n_threads threads that begin together; returns the seconds until the last
// one is done.
double run_together(size_t n_threads, const std::function<void(size_t)>& body);

// Bytes per second at which n_threads threads, each with its part, read a buffer of n_bytes over
// and over: the best of several ways and samples, since whatever disturbs makes it slower only.
double read_rate(size_t n_bytes, size_t n_threads);

struct MultiplyRates {
    double int8 = 0;  // multiply-adds per second; 0: the level has no such instruction
    double bf16 = 0;
    double fp32 = 0;
};

// What n_threads threads can multiply with the instructions of a kernel level and those below it.
MultiplyRates multiply_rates(const std::string& level, size_t n_threads);

}  // namespace rwkv_bench
