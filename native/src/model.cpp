#include "model.h"

#include "executor.h"

namespace rwkv {

const char* version_name(Version version) noexcept {
    switch (version) {
        case Version::v4:
            return "4";
        case Version::v5_1:
            return "5.1";
        case Version::v5_2:
            return "5.2";
        case Version::v6:
            return "6";
        case Version::v7:
            return "7";
    }
    return "unknown";
}

size_t Config::layer_state_size() const noexcept {
    return version == Version::v4 ? 5 * n_embd : n_embd * (2 + head_size);
}

Model::Model(const rwkv_kernels& with, size_t threads)
    : kernels(with), n_threads(threads), executor_(new Executor(threads)) {}

Model::~Model() {
    Executor* const executor = executor_.load(std::memory_order_acquire);
    // The parent's is left as it is: see executor.h.
    if (executor->is_of_this_process()) delete executor;
}

Executor& Model::executor() const {
    Executor* current = executor_.load(std::memory_order_acquire);
    if (current->is_of_this_process()) return *current;
    auto own = std::make_unique<Executor>(n_threads);
    if (executor_.compare_exchange_strong(current, own.get(), std::memory_order_acq_rel)) {
        return *own.release();
    }
    return *current;  // that of another thread of this process, which was first
}

}  // namespace rwkv
