// Tokens, one by one -> text that can be shown: whole characters, nothing of a stop string.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer.h"

namespace rwkv {

// Bytes that could still become a stop string are held back, then those that are the beginning of a
// character.
class TextStream {
  public:
    explicit TextStream(std::shared_ptr<const Tokenizer> tokenizer)
        : tokenizer_(std::move(tokenizer)) {}

    void stop(std::string_view stop) { stops_.emplace_back(stop); }

    // The text that has become certain. Throws if the vocabulary lacks the token, or if there is no
    // tokenizer; then nothing has come.
    std::string push(int32_t token);
    std::string push(std::string_view bytes);

    // What was held back, at the end of the text.
    std::string finish();

    bool stopped() const noexcept { return stopped_; }
    void reset() noexcept;

  private:
    // Whole characters of what was pending and of `bytes`.
    std::string decode(std::string_view bytes);

    std::shared_ptr<const Tokenizer> tokenizer_;
    std::vector<std::string> stops_;
    bool stopped_ = false;
    std::string held_;     // bytes that may become a stop string
    std::string pending_;  // the beginning of a character, at most 3 bytes
};

}  // namespace rwkv
