// The containers of model files.
#pragma once

#include <memory>
#include <string>

#include "model_file.h"

namespace rwkv {

// Reads the table of a model file's tensors; its first bytes choose the reader. Fails with any of
// the FILE statuses, TENSOR_TYPE or TENSOR_SHAPE.
std::unique_ptr<ModelFile> read_model_file(std::unique_ptr<InputFile> input);

}  // namespace rwkv
