// The handle of a model, which both parts of the C API look into.
#pragma once

#include <memory>

#include "model.h"
#include "rwkv/rwkv.h"

struct rwkv_model {
    std::shared_ptr<const rwkv::Model> shared;
};
