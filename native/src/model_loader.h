// From a model file to a model: every tensor checked, every matrix packed for this processor.
#pragma once

#include <memory>
#include <string>

#include "model.h"

namespace rwkv {

struct ModelOptions {
    size_t n_threads = 0;   // 0: RWKV_THREADS, else the cores this process may use
    float ln_x_eps = 0.0f;  // 0: the official value
};

// Fails with the FILE, TENSOR, MODEL and KERNELS statuses.
std::shared_ptr<const Model> load_model(const std::string& path, const ModelOptions& options);

}  // namespace rwkv
