// The C API's structs as values, for tests and benchmarks.
#pragma once

#include "rwkv/rwkv.h"

inline rwkv_model_options model_options() {
    rwkv_model_options options;
    rwkv_model_options_init(&options, sizeof options);
    return options;
}

inline rwkv_sampler_options sampler_options() {
    rwkv_sampler_options options;
    rwkv_sampler_options_init(&options, sizeof options);
    return options;
}

inline rwkv_model_info info_of(const rwkv_model* model) {
    rwkv_model_info info = {};
    rwkv_model_info_get(model, &info, sizeof info);
    return info;
}
