// Any bytes as a model file: it opens or fails with a sentence; what opens can be fed, and states
// written and read.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "memory_file.h"
#include "rwkv/rwkv.h"
#include "structs.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const MemoryFile file(data, size);
    rwkv_model_options options = model_options();
    options.n_threads = 1;
    rwkv_model* model = nullptr;
    if (rwkv_model_open(file.path(), &options, &model) != RWKV_STATUS_OK) {
        if (model != nullptr || *rwkv_error_message() == '\0') std::abort();
        return 0;
    }
    const rwkv_model_info info = info_of(model);
    rwkv_session* session = nullptr;
    if (rwkv_session_create(model, &session) != RWKV_STATUS_OK) std::abort();
    std::vector<float> logits(info.n_vocab);
    std::vector<float> state(info.state_size);
    const std::vector<int32_t> tokens(40, static_cast<int32_t>(info.n_vocab - 1));
    for (const size_t n : {size_t{1}, tokens.size()}) {
        if (rwkv_session_feed(session, tokens.data(), n, logits.data()) != RWKV_STATUS_OK ||
            rwkv_state_read(session, state.data(), state.size()) != RWKV_STATUS_OK ||
            rwkv_state_write(session, state.data(), state.size()) != RWKV_STATUS_OK) {
            std::abort();
        }
    }
    rwkv_session_free(session);
    rwkv_model_free(model);
    return 0;
}
