#include "cpu_cores.h"

#include <algorithm>
#include <cstdlib>

#include "os.h"
#include "status.h"

namespace rwkv {

size_t usable_cores() noexcept {
    try {
        return std::max<size_t>(1, os::usable_cores());
    } catch (...) {
        return 1;
    }
}

size_t thread_count(size_t wanted) {
    constexpr size_t kMaxThreads = 1024;
    if (wanted == 0) {
        const char* text = std::getenv("RWKV_THREADS");
        if (text == nullptr || *text == '\0') return usable_cores();
        char* end = nullptr;
        const unsigned long n = std::strtoul(text, &end, 10);
        if (*text < '0' || *text > '9' || *end != '\0' || n < 1 || n > kMaxThreads) {
            throw Failure(RWKV_STATUS_INVALID_ARGUMENT,
                          format("RWKV_THREADS: expected a number of threads, 1 to %zu, got '%s'",
                                 kMaxThreads, text));
        }
        return n;
    }
    if (wanted > kMaxThreads) {
        throw Failure(RWKV_STATUS_INVALID_ARGUMENT,
                      format("n_threads: expected 1 to %zu, or 0 for as many as there are cores, "
                             "got %zu",
                             kMaxThreads, wanted));
    }
    return wanted;
}

}  // namespace rwkv
