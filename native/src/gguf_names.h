// What llama.cpp calls RWKV's tensors, and what they are called in a ggmf file.
#pragma once

#include <string_view>

namespace rwkv {

enum class GgufForm {
    plain,
    heads,  // (H, N), whatever the file says of as many numbers
    fused,  // the mixes of version 6, one after another: w k v r g
};

struct GgufName {
    std::string_view gguf;
    std::string_view name;
    GgufForm form = GgufForm::plain;
};

// The row of a tensor of no layer, or nullptr.
const GgufName* find_top_name(std::string_view name);

// The row of a tensor of a layer, by what follows "blk.N."; its ggmf name is what follows
// "blocks.N.". nullptr if there is none.
const GgufName* find_layer_name(std::string_view rest, bool is_v7);

}  // namespace rwkv
