// A prompt -> text, piece by piece: the session reads, the sampler draws, the stream makes text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "rwkv/rwkv.h"
#include "sampler.h"
#include "session.h"
#include "text_stream.h"

namespace rwkv {

class Generator {
  public:
    Generator(Session& session, std::shared_ptr<const Tokenizer> tokenizer, Sampler& sampler);

    void stop(std::string_view stop) { stream_.stop(stop); }
    void stop_token(int32_t token) { stop_tokens_.insert(token); }

    // After a failure nothing was read, and the text before, if any, goes on.
    void begin(std::string_view prompt, size_t max_tokens);

    // The text that has become certain, valid until the next call; nullptr when it has ended. After
    // a failure it can be called again.
    const std::string* next();
    rwkv_finish reason() const noexcept { return reason_; }

  private:
    const std::string* end(rwkv_finish reason);

    Session& session_;
    Sampler& sampler_;
    std::shared_ptr<const Tokenizer> tokenizer_;
    TextStream stream_;
    std::set<int32_t> stop_tokens_;
    std::vector<float> logits_;  // (n_vocab), after the last token read
    size_t left_ = 0;            // tokens that may still be drawn
    bool begun_ = false;
    rwkv_finish reason_ = RWKV_FINISH_NONE;
    std::optional<int32_t> drawn_;  // a token that the session could not read yet
    std::string text_;
};

}  // namespace rwkv
