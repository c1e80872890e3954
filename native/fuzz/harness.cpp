#include "harness.h"

#include <algorithm>
#include <ctime>

#include "bounded_memory.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv);

namespace {

constexpr size_t kMoreBytes = size_t{64} << 20;
constexpr double kMostSeconds = 1;

// Of this process: others on the machine do not count.
double seconds() {
    timespec now = {};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

size_t n_inputs = 0;
size_t most_bytes = 0;
double most_seconds = 0;

void tell() {
    std::fprintf(stderr, "most of %zu inputs: %.1f MB, %.3f s\n", n_inputs,
                 static_cast<double>(most_bytes) / (1 << 20), most_seconds);
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
    std::atexit(tell);
    setenv("RWKV_THREADS", "1", 1);
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const double begin = seconds();
    bounded::allow(2 * size + kMoreBytes);
    run_input(data, size);
    most_bytes = std::max(most_bytes, bounded::most_held());
    const double took = seconds() - begin;
    most_seconds = std::max(most_seconds, took);
    ++n_inputs;
    if (took > kMostSeconds) {
        std::fprintf(stderr, "ERROR: expected at most %g s, got %g s\n", kMostSeconds, took);
        std::abort();
    }
    return 0;
}
