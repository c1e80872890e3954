#include "machine_limits.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "kernels/registry.h"
#include "limits.h"
#include "memory.h"

namespace rwkv_bench {

namespace {

// In the order of the registry: each level's instructions, by the level's name.
struct Row {
    const char* level;
    void (*override_table)(limits*);
};

constexpr Row kRows[] = {
    {"reference", limits_generic},
#if defined(__x86_64__)
    {"avx2", limits_avx2},         {"avx512", limits_avx512}, {"avx512_vnni", limits_avx512_vnni},
    {"amx", limits_amx},
#elif defined(__aarch64__)
    {"neon", limits_neon},
    {"neon_dotprod", limits_neon_dotprod},
#endif
};

// The limits after climbing the engine's ladder to `top`. A level without a row of its own has the
// limits of those below it.
limits climb(const std::string& top) {
    limits all = {};
    for (const char* const* level = rwkv::kernel_names(); *level != nullptr; ++level) {
        if (rwkv::kernels_supported(*level)) {
            for (const Row& row : kRows) {
                if (std::strcmp(row.level, *level) == 0) row.override_table(&all);
            }
        }
        if (top == *level) break;
    }
    return all;
}

limits best_limits() {
    const char* highest = "reference";
    for (const char* const* level = rwkv::kernel_names(); *level != nullptr; ++level) {
        highest = *level;
    }
    return climb(highest);
}

double multiply_rate(double (*multiply)(size_t), size_t n_threads) {
    if (multiply == nullptr) return 0;
    size_t rounds = 16;
    while (true) {
        const double start = seconds_now();
        multiply(rounds);
        if (seconds_now() - start > 0.01) break;
        rounds *= 2;
    }
    double best = 0;
    for (int sample = 0; sample < 10; ++sample) {
        std::vector<double> done(n_threads);
        const double seconds =
            run_together(n_threads, [&](size_t i) { done[i] = multiply(rounds); });
        best = std::max(best, done[0] * static_cast<double>(n_threads) / seconds);
    }
    return best;
}

}  // namespace

double run_together(size_t n_threads, const std::function<void(size_t)>& body) {
    std::atomic<size_t> ready{0};
    std::atomic<bool> go{false};
    std::vector<double> ends(n_threads);
    const auto work = [&](size_t i) {
        ready.fetch_add(1);
        while (!go.load()) std::this_thread::yield();
        body(i);
        ends[i] = seconds_now();
    };
    std::vector<std::thread> others;
    for (size_t i = 1; i < n_threads; ++i) others.emplace_back(work, i);
    while (ready.load() < n_threads - 1) std::this_thread::yield();
    const double start = seconds_now();
    go.store(true);
    work(0);
    for (std::thread& t : others) t.join();
    return *std::max_element(ends.begin(), ends.end()) - start;
}

double read_rate(size_t n_bytes, size_t n_threads) {
    const limits all = best_limits();
    const size_t part =
        std::max<size_t>(n_bytes / n_threads / LIMITS_READ_UNIT, 1) * LIMITS_READ_UNIT;
    const rwkv::Memory buffer(part * n_threads);
    // Written first: pages that were never written are all one and the same page of zeros.
    std::memset(buffer.data(), 1, buffer.size());

    std::atomic<uint64_t> sink{0};
    const auto sample = [&](int way, size_t passes) {
        const double seconds = run_together(n_threads, [&](size_t i) {
            uint64_t sum = 0;
            for (size_t pass = 0; pass < passes; ++pass) {
                sum ^= all.read(buffer.data() + i * part, part, way);
            }
            sink ^= sum;
        });
        return static_cast<double>(buffer.size() * passes) / seconds;
    };
    // At least some 10 ms a sample, and two passes.
    const size_t passes = std::max<size_t>(2, (size_t{200} << 20) / buffer.size());
    double best = 0;
    int best_way = 0;
    for (int round = 0; round < 2; ++round) {
        for (int way = 0; way < LIMITS_READ_WAYS; ++way) {
            const double rate = sample(way, passes);
            if (rate > best) {
                best = rate;
                best_way = way;
            }
        }
    }
    for (int i = 0; i < 8; ++i) best = std::max(best, sample(best_way, passes));
    return best;
}

MultiplyRates multiply_rates(const std::string& level, size_t n_threads) {
    const limits all = climb(level);
    return {multiply_rate(all.multiply_int8, n_threads),
            multiply_rate(all.multiply_bf16, n_threads),
            multiply_rate(all.multiply_fp32, n_threads)};
}

}  // namespace rwkv_bench
