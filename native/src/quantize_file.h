// Model files whose matrices are quantised, from files in fp32 or fp16.
#pragma once

#include <string>
#include <vector>

#include "model_file.h"
#include "new_file.h"

namespace rwkv {

// Writes the model of `in`, a ggmf file of type fp32 or fp16, as a ggmf file of the quantised type
// `to`, byte for byte as `rwkv-convert IN OUT --dtype TYPE --layout rwkv.cpp` does: rwkv.cpp's choice
// of what is quantised, our order of tensors. Memory does not grow with the file. Returns the names
// of tensors that no version of RWKV has: they are left out. Fails with TENSOR_TYPE, TENSOR_MISSING,
// TENSOR_SHAPE, FILE_FORMAT, FILE_TRUNCATED, FILE_UNREADABLE, FILE_UNWRITABLE.
std::vector<std::string> quantize_file(const ModelFile& in, rwkv_type to, NewFile& out);

}  // namespace rwkv
