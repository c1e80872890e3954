// From a model file to a model: every tensor checked, every matrix packed for this processor.
#pragma once

#include <memory>
#include <string>

#include "input_file.h"
#include "model.h"
#include "packer.h"

namespace rwkv {

struct ModelOptions {
    size_t n_threads = 0;   // 0: RWKV_THREADS, else the cores this process may use
    float ln_x_eps = 0.0f;  // 0: the official value
    Progress progress = {};
    bool like_rwkv_cpp = false;  // whose value for version 5 takes the official one's place
    size_t first_layer = 0;
    size_t n_layers = 0;  // 0: the whole model
};

// Fails with the FILE, TENSOR, MODEL and KERNELS statuses, and CANCELLED.
std::shared_ptr<const Model> load_model(std::unique_ptr<InputFile> input,
                                        const ModelOptions& options);
std::shared_ptr<const Model> load_model(const std::string& path, const ModelOptions& options);

}  // namespace rwkv
