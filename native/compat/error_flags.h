// Which of rwkv.cpp's error flags stand for a failure.
#pragma once

#include "rwkv_cpp/rwkv.h"
#include "status.h"

namespace rwkv_cpp {

// Where flags come from: rwkv.cpp tells faults of a file's tensors differently when it opens and
// when it quantises.
enum class Reading { to_open, to_quantise };

// The flags of a failure that came while the model file at `path` was read. The file is looked at
// again: there are more flags than statuses.
int flags_of_file(const char* path, const rwkv::Failure& failure, Reading reading) noexcept;

// The flags of a status that has nothing to do with a file.
int flags_of(rwkv_status status) noexcept;

}  // namespace rwkv_cpp
