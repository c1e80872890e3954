// Any bytes as a vocabulary: it opens or fails with a sentence; what opens encodes bytes to tokens
// that decode to the same bytes.
#include <cstring>
#include <string>
#include <vector>

#include "harness.h"
#include "memory_file.h"

void run_input(const uint8_t* data, size_t size) {
    const MemoryFile file(data, size);
    rwkv_tokenizer* tokenizer = nullptr;
    const rwkv_status status = rwkv_tokenizer_open(file.path(), &tokenizer);
    if (status != RWKV_STATUS_OK) {
        REQUIRE(status == RWKV_STATUS_VOCABULARY && tokenizer == nullptr);
        require_message();
        return;
    }
    std::vector<int32_t> tokens(size);
    size_t n_tokens = 0;
    const char* text = reinterpret_cast<const char*>(data);
    if (rwkv_tokenizer_encode(tokenizer, text, size, tokens.data(), tokens.size(), &n_tokens) ==
        RWKV_STATUS_OK) {
        std::string decoded(size, '\0');
        size_t n_bytes = 0;
        REQUIRE(rwkv_tokenizer_decode(tokenizer, tokens.data(), n_tokens, decoded.data(),
                                      decoded.size(), &n_bytes) == RWKV_STATUS_OK);
        REQUIRE(n_bytes == size && std::memcmp(decoded.data(), text, size) == 0);
    }
    char byte[1];
    size_t n = 0;
    const auto n_vocab = static_cast<int32_t>(rwkv_tokenizer_n_vocab(tokenizer));
    for (const int32_t token : {-1, 0, n_vocab - 1, n_vocab}) {
        const rwkv_status decoded = rwkv_tokenizer_decode(tokenizer, &token, 1, byte, 1, &n);
        const bool known = rwkv_tokenizer_has(tokenizer, token) != 0;
        REQUIRE(known == (decoded != RWKV_STATUS_TOKEN_OUT_OF_RANGE));
    }
    rwkv_tokenizer_free(tokenizer);
}
