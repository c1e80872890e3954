// A state as a file: written whole or not at all, and used only if it is what this model wrote.
// The layout is in docs/formats.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "input_file.h"
#include "model.h"
#include "rwkv/rwkv.h"
#include "state.h"

namespace rwkv {

// The bytes of the file. Fails with STATE_VALUE; `where` is for the message.
std::vector<uint8_t> state_bytes(const Model& model, const State& state, rwkv_state_type type,
                                 const std::string& where);

// Fails with FILE_UNWRITABLE, STATE_VALUE.
void save_state(const Model& model, const State& state, const std::string& path,
                rwkv_state_type type);

// Returns the state in the file. Fails with FILE_UNREADABLE, STATE_FORMAT, STATE_TRUNCATED,
// STATE_VERSION, STATE_MISMATCH, STATE_VALUE.
State load_state(const Model& model, const InputFile& file);

}  // namespace rwkv
