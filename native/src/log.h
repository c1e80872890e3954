// What is not a failure but worth knowing, for whom rwkv_log_set names.
#pragma once

#include <string>

#include "rwkv/rwkv.h"

namespace rwkv {

void set_log(rwkv_log_callback callback, void* data);
void log_note(const std::string& message) noexcept;

}  // namespace rwkv
