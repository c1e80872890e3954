// A state as a file: written whole or not at all, and used only if it is what this model wrote.
// The layout is in docs/formats.md.
#pragma once

#include <string>

#include "model.h"
#include "rwkv/rwkv.h"
#include "state.h"

namespace rwkv {

// Fails with FILE_UNWRITABLE, STATE_VALUE.
void save_state(const Model& model, const State& state, const std::string& path,
                rwkv_state_type type);

// Returns the state in the file. Fails with FILE_UNREADABLE, STATE_FORMAT, STATE_TRUNCATED,
// STATE_VERSION, STATE_MISMATCH, STATE_VALUE.
State load_state(const Model& model, const std::string& path);

}  // namespace rwkv
