// What a model file says of its model besides tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace rwkv {

// Containers that say nothing leave it as it is.
struct ModelNotes {
    std::string name;           // such as "RWKV7 Goose World3 1.5B"
    std::string chat_template;  // jinja
    // What each token stands for, by its number; "" for those that stand for nothing. Empty where
    // the file has no vocabulary.
    std::vector<std::string> tokens;
    int32_t end_of_text = -1;  // tokens; -1 where the file names none
    int32_t end_of_turn = -1;
    size_t rescale_every = 0;  // layers after which the residual stream is halved; 0: never
};

}  // namespace rwkv
